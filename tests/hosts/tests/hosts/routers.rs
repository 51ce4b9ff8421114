//! Brokers with others below them that die, stop, and come back.

use flux_hosts::{Instance, network};

/// Of who waits for an answer to a ping. On a busy machine a healthy broker may need some time.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(6);
const KILL: i32 = 9;
const TERM: i32 = 15;
const CONT: i32 = 18;
const STOP: i32 = 19;

/// `0 - 1 - 2 - 3`
fn chain() -> Option<Instance> {
    let mut instance = Instance::new(network(4)?);
    instance.attrs.push("tbon.topo=kary:1".to_owned());
    Some(instance)
}

#[test]
fn a_router_that_dies_takes_its_subtree_with_it_and_all_come_back() {
    let Some(mut instance) = chain() else { return };
    instance.start(0);
    instance.until(
        "overlay status",
        "0 n1: partial\n└─ 1 n2: offline\n   └─ 2 n3: offline\n      └─ 3 n4: offline",
    );
    for host in 1..4 {
        instance.start(host);
    }
    instance.until("overlay status --summary", "full");
    stop_in_order(&mut instance);
    instance.signal(1, KILL);
    instance.exit_code(1);
    instance.until_logged(0, "n2 (rank 1) failed and severed contact with 2 other nodes");
    assert_eq!(instance.exit_code(2), Some(1), "{}", instance.log(2));
    instance.until_logged(2, "parent lost: connection to parent tcp://n2:8050 was lost");
    instance.until(
        "overlay status",
        "0 n1: degraded\n└─ 1 n2: lost\n   └─ 2 n3: lost\n      └─ 3 n4: lost",
    );
    // In the worst order.
    for host in [3, 2, 1] {
        instance.start(host);
    }
    instance.until("overlay status --summary", "full");
    assert_eq!(instance.flux("exec -r 3 flux getattr rank"), "3");
}

/// A broker that is stopped in good order is offline, and those above it partial.
fn stop_in_order(instance: &mut Instance) {
    instance.signal(3, TERM);
    assert_eq!(instance.exit_code(3), Some(0), "{}", instance.log(3));
    instance.until(
        "overlay status",
        "0 n1: partial\n└─ 1 n2: partial\n   └─ 2 n3: partial\n      └─ 3 n4: offline \
         administrative shutdown",
    );
}

#[test]
fn a_router_that_hangs_is_found_with_ping_and_parentof() {
    let Some(mut instance) = chain() else { return };
    instance.start_all();
    instance.signal(1, STOP);
    // From the node that does not answer upwards, as the guide has it.
    let (mut rank, mut culprit) = ("3".to_owned(), String::new());
    while answers_no_ping(&instance, &rank) {
        culprit = rank;
        rank = instance.flux(&format!("overlay parentof {culprit}"));
    }
    assert_eq!((culprit.as_str(), rank.as_str()), ("1", "0"));
    let status = instance.flux("overlay status --timeout=1s");
    assert_eq!(
        status,
        "0 n1: full\n└─ 1 n2: Connection timed out\n   └─ 2 n3: full\n      └─ 3 n4: full"
    );
    instance.signal(1, CONT);
    instance.until("overlay status --summary", "full");
    assert!(!answers_no_ping(&instance, "3"));
}

fn answers_no_ping(instance: &Instance, rank: &str) -> bool {
    // The broker that is stopped sends nothing back, not even an error.
    !instance.flux_within(PATIENCE, &format!("ping -c1 {rank}")).contains("time=")
}
