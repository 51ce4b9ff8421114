//! A whole instance in a bad hour: brokers die at any time, rank 0 as well, while jobs come and are
//! canceled and nodes are drained. Afterwards no job is lost, none has had a core that another one
//! had, what was drained is drained, and the tree is whole.
//!
//! What happens is drawn from a seed, and printed. `FLUX_CHAOS_SEED` and `FLUX_CHAOS_ROUNDS` ask
//! for other chaos, or for more; a round takes some ten seconds:
//!
//! ```text
//! FLUX_CHAOS_SEED=7 FLUX_CHAOS_ROUNDS=50 cargo test --workspace chaos
//! ```
//!
//! The programs are those of the same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod history;
mod instance;
mod scale;
mod schedule;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Child;
use std::time::{Duration, Instant};

use flux_protocol::idset::Idset;
use history::{History, assert_no_double_allocation};
use instance::Instance;
use schedule::{SIZE, Step, schedule};

const SEED: &str = "FLUX_CHAOS_SEED";
const ROUNDS: &str = "FLUX_CHAOS_ROUNDS";

/// What has been done, and what was promised.
struct Chaos {
    instance: Instance,
    /// Submissions that may still be on their way.
    submissions: Vec<Child>,
    /// Ids that were handed out.
    accepted: BTreeSet<String>,
    drained: BTreeSet<u32>,
}

#[test]
fn chaos_loses_no_job_and_doubles_no_allocation_and_the_tree_heals() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, rounds) = (number(SEED).unwrap_or(1), number(ROUNDS).unwrap_or(1));
    let steps = schedule(seed, rounds);
    say(&format!("{SEED}={seed} {ROUNDS}={rounds}"));
    for (index, step) in steps.iter().enumerate() {
        say(&format!("{index:4}: {step}"));
    }
    let begin = Instant::now();
    let mut chaos = Chaos {
        instance: Instance::start(SIZE, 2),
        submissions: Vec::new(),
        accepted: BTreeSet::new(),
        drained: BTreeSet::new(),
    };
    for step in &steps {
        chaos.take(*step);
    }
    let jobs = chaos.settle();
    let count = |wanted: fn(&History) -> bool| jobs.iter().filter(|job| wanted(job)).count();
    say(&format!(
        "{} steps in {:.1} s: {} job ids handed out, {} jobs: {} succeeded, {} were canceled; none \
         is lost, no core was given twice, the tree is full",
        steps.len(),
        begin.elapsed().as_secs_f64(),
        chaos.accepted.len(),
        jobs.len(),
        count(History::succeeded),
        count(History::was_canceled),
    ));
    assert!(!chaos.accepted.is_empty(), "no submission came through:\n{}", chaos.instance.log());
}

/// Past the test harness, which keeps to itself what is printed unless the test fails.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Chaos {
    fn take(&mut self, step: Step) {
        match step {
            Step::Submit { via, count, nodes, millis } => {
                let (copies, nodes) = (format!("--cc=0-{count}"), format!("-N{nodes}"));
                let seconds = format!("{}", millis as f64 / 1000.0);
                let args = ["submit", &copies, &nodes, "sleep", &seconds];
                self.submissions.push(self.instance.spawn(via, &args));
            }
            Step::Cancel { pick } => {
                self.collect(false);
                let Some(len) = self.accepted.len().checked_sub(1) else { return };
                let pick = pick as usize % (len + 1);
                if let Some(id) = self.accepted.iter().nth(pick) {
                    // It may have ended already.
                    self.instance.flux(&["cancel", id]);
                }
            }
            Step::Kill { rank } => self.instance.kill(rank),
            Step::Revive => self.instance.revive(),
            Step::Restart => {
                self.instance.restart();
                self.assert_drained();
            }
            Step::Drain { rank } => {
                if self.drained.insert(rank) {
                    self.succeeds(&format!("resource drain {rank} chaos"));
                }
            }
            Step::Undrain => self.undrain(),
            Step::Pause { millis } => std::thread::sleep(Duration::from_millis(millis)),
        }
    }

    fn succeeds(&self, command: &str) {
        let output = self.instance.flux(&command.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "flux {command}: {output:?}\n{}", self.instance.log());
    }

    fn undrain(&mut self) {
        let drained: Idset = std::mem::take(&mut self.drained).into_iter().collect();
        if !drained.is_empty() {
            self.succeeds(&format!("resource undrain {drained}"));
        }
    }

    fn assert_drained(&self) {
        let drained: Idset = self.drained.iter().copied().collect();
        let said = self.instance.says("resource status -s drain -no {ranks}");
        assert_eq!(said, drained.to_string(), "drained ranks\n{}", self.instance.log());
    }

    /// The ids of submissions that are through; those of all, when waiting for them.
    fn collect(&mut self, wait: bool) {
        for mut child in std::mem::take(&mut self.submissions) {
            if wait || child.try_wait().unwrap().is_some() {
                let output = child.wait_with_output().unwrap();
                let ids = String::from_utf8(output.stdout).unwrap();
                self.accepted.extend(ids.lines().map(str::to_owned));
            } else {
                self.submissions.push(child);
            }
        }
    }

    /// Let all jobs end, and look at what is left.
    fn settle(&mut self) -> Vec<History> {
        self.collect(true);
        self.instance.revive();
        self.undrain();
        self.instance.until_says("jobs -A -no {id}", "");
        self.instance.until_says("resource list -s free -no {nnodes}", &SIZE.to_string());
        let listed = self.instance.says("jobs -A -a --count=0 -no {id}");
        let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
        for id in &self.accepted {
            assert!(listed.contains(id), "job {id} is lost:\n{}", self.instance.log());
        }
        let jobs: Vec<History> =
            listed.iter().map(|id| History::read(&self.instance, id)).collect();
        for job in &jobs {
            job.assert_complete();
        }
        assert_no_double_allocation(&jobs);
        jobs
    }
}
