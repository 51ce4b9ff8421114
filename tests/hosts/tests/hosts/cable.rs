//! Cables that are pulled out, and put in again.

use flux_hosts::{Instance, network};

#[test]
fn without_a_timeout_a_cut_cable_is_told_and_nothing_is_lost() {
    let Some(net) = network(2) else { return };
    let mut instance = Instance::new(net);
    instance.config = "[tbon]\ntorpid_min = \"1s\"\ntorpid_max = \"3s\"".to_owned();
    instance.start_all();
    assert_eq!(instance.flux("getattr tbon.tcp_user_timeout"), "0s");
    assert_eq!(instance.user_timeouts(0), [0]);
    assert_eq!(instance.user_timeouts(1), [0]);
    instance.net.cut(1);
    instance.until_logged(0, "broker on n2 (rank 1) has been unresponsive for");
    // It is not scheduled to, but it is not given up either.
    instance.until("resource status -s torpid -no {ranks}", "1");
    assert_eq!(instance.flux("overlay status --timeout=1s --summary"), "full");
    instance.net.mend(1);
    instance.until_logged(0, "broker on n2 (rank 1) is responsive now");
    instance.until("resource status -s torpid -no {nnodes}", "0");
    assert!(!instance.log(0).contains("(rank 1) failed"), "{}", instance.log(0));
    assert!(instance.flux("ping -c1 1").contains("1!broker.ping pad=0 seq=0 time="));
}

#[test]
fn with_tcp_user_timeout_a_cut_cable_breaks_the_link_on_both_sides() {
    let Some(net) = network(2) else { return };
    let mut instance = Instance::new(net);
    instance.config = "[tbon]\ntcp_user_timeout = \"2s\"\ntorpid_min = \"1s\"".to_owned();
    instance.start_all();
    assert_eq!(instance.flux("getattr tbon.tcp_user_timeout"), "2s");
    assert_eq!(instance.user_timeouts(0), [2000]);
    assert_eq!(instance.user_timeouts(1), [2000]);
    instance.net.cut(1);
    instance.until("overlay status", "0 n1: degraded\n└─ 1 n2: lost");
    instance.until_logged(0, "n2 (rank 1) failed");
    assert!(instance.flux("ping -c1 1").ends_with("1!broker.ping: No route to host"));
    instance.until_logged(1, "parent lost: connection to parent tcp://n1:8050 was lost");
    assert_eq!(instance.exit_code(1), Some(1), "{}", instance.log(1));
    // As systemd does, and the cable still is not there.
    instance.start(1);
    instance.until_logged(1, "connecting to tcp://n1:8050");
    instance.net.mend(1);
    instance.until("overlay status --summary", "full");
    instance.until("run -N2 echo here", "here\nhere");
}
