//! How a large instance on one machine starts, runs a job everywhere, loses many of its brokers,
//! and comes back: figures, for those who ask.

use std::time::Instant;

use crate::instance::Instance;
use crate::say;

const SIZE: &str = "FLUX_SCALE_SIZE";
const FANOUT: u32 = 16;

/// ```text
/// FLUX_SCALE_SIZE=512 cargo test --workspace --test chaos large -- --ignored
/// ```
#[test]
#[ignore = "takes a minute, and gigabytes of memory"]
fn a_large_instance_loses_a_tenth_of_its_leaves_and_a_router_and_comes_back() {
    let size = std::env::var(SIZE).ok().and_then(|text| text.parse().ok()).unwrap_or(128);
    say(&format!("{SIZE}={size}, fanout {FANOUT}"));
    let mut clock = Instant::now();
    let mut figure = |what: &str| {
        say(&format!("{what:<44}{:8.2} s", clock.elapsed().as_secs_f64()));
        clock = Instant::now();
    };
    let instance = Instance::start(size, FANOUT);
    instance.until_online();
    figure("all brokers online");
    run_everywhere(&instance, size);
    figure("a job on every rank");
    say(&format!("{:<44}{:8.1} MB", "memory of all brokers (PSS)", memory(&instance)));

    // From the last rank upwards, those that have no children.
    let leaves = (size / 10).max(1);
    for rank in (size - leaves)..size {
        instance.kill(rank);
    }
    instance.kill(1);
    let severed = (2..size - leaves).filter(|rank| is_below_router_1(*rank)).count() as u32;
    let left = size - leaves - 1 - severed;
    instance.until_says("resource status -s online -no {nnodes}", &left.to_string());
    say(&format!("{leaves} leaves and router 1 killed, {severed} brokers lose their way"));
    figure("all of them known to be gone");
    instance.revive();
    figure("all brokers online again");
    run_everywhere(&instance, size);
    figure("a job on every rank");
    drop(instance);
    figure("shut down");
}

fn is_below_router_1(rank: u32) -> bool {
    let parent = |rank: u32| (rank - 1) / FANOUT;
    std::iter::successors(Some(rank), |rank| (*rank > 1).then(|| parent(*rank))).last() == Some(1)
}

fn run_everywhere(instance: &Instance, size: u32) {
    let nodes = format!("-N{size}");
    let output = instance.flux(&["run", &nodes, "-n", &size.to_string(), "echo", "here"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.lines().count(), size as usize, "{output:?}\n{}", instance.log());
}

/// Shared pages count once, in megabytes.
fn memory(instance: &Instance) -> f64 {
    let pss = |pid: u64| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    instance.pids().into_iter().flatten().filter_map(pss).sum::<f64>() / 1024.0
}
