//! Who comes in, who does not, and what both sides say.

use flux_hosts::{Instance, network};

/// As `tests` says: brokers are found by name, and listen at the interface of the name `eth0`.
#[test]
fn three_hosts_with_one_certificate_come_online_in_any_order() {
    let Some(net) = network(3) else { return };
    let mut instance = Instance::new(net);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for host in order {
            instance.start(host);
        }
        instance.until("overlay status", "0 n1: full\n├─ 1 n2: full\n└─ 2 n3: full");
        if order == [0, 1, 2] {
            found_each_other_as_configured(&instance);
        }
        for host in order {
            instance.kill(host);
        }
    }
}

fn found_each_other_as_configured(instance: &Instance) {
    assert_eq!(instance.flux("getattr hostlist"), "n[1-3]");
    assert_eq!(instance.flux("getattr broker.boot-method"), "config");
    assert_eq!(instance.flux_at(2, "getattr rank"), "2");
    assert_eq!(instance.flux_at(2, "getattr tbon.parent-endpoint"), "tcp://n1:8050");
    assert_eq!(instance.flux("getattr tbon.endpoint"), "tcp://n1:8050");
    let sockets = instance.net.command(0, "ss").arg("-ltnH").output().unwrap();
    let sockets = String::from_utf8_lossy(&sockets.stdout).into_owned();
    assert!(sockets.contains("10.77.0.1:8050"), "{sockets}");
}

#[test]
fn other_certificate_and_other_version_are_refused_and_both_sides_say_so() {
    let Some(net) = network(3) else { return };
    let mut instance = Instance::new(net);
    instance.keygen("other.cert");
    instance.start(0);
    instance.start_with(1, 1, "other.cert");
    instance.attrs.push("tbon.test-version=99.1.0".to_owned());
    instance.start(2);
    instance.until_logged(0, "authentication of tcp://10.77.0.2");
    instance.until_logged(0, "is the certificate the same?");
    instance.until_logged(1, "authentication with parent tcp://n1:8050 failed");
    instance.until_logged(0, "rejecting connection from n3 (rank 2): flux-core version mismatch");
    instance.until_logged(2, "flux-core v99.1.0 mismatched with parent");
    assert_eq!(instance.exit_code(2), Some(1), "{}", instance.log(2));
    let status = instance.flux("overlay status");
    let (first, last) = status.rsplit_once('\n').unwrap();
    assert_eq!(first, "0 n1: partial\n├─ 1 n2: offline");
    assert!(last.starts_with("└─ 2 n3: offline flux-core v99.1.0 mismatched"), "{last}");
    // What was repaired comes in, without anything being done at rank 0.
    instance.attrs.clear();
    instance.start(2);
    instance.kill(1);
    instance.start(1);
    instance.until("overlay status --summary", "full");
}

/// The newer process of a rank is believed to be the one that was started after a crash.
#[test]
fn second_broker_of_a_rank_takes_its_place_and_both_sides_say_so() {
    let Some(net) = network(3) else { return };
    let mut instance = Instance::new(net);
    instance.attrs.push("tbon.torpid_min=1s".to_owned());
    instance.start(0);
    instance.start(1);
    instance.until("overlay status", "0 n1: partial\n├─ 1 n2: full\n└─ 2 n3: offline");
    instance.start_with(2, 1, "curve.cert");
    instance.until_logged(0, "n2 (rank 1) reconnected after crash, dropping old connection state");
    instance.until_logged(1, "n1 (rank 0) sent disconnect control message");
    assert_eq!(instance.exit_code(1), Some(1), "{}", instance.log(1));
    instance.until("overlay status", "0 n1: partial\n├─ 1 n2: full\n└─ 2 n3: offline");
    assert_eq!(instance.flux_at(2, "getattr rank"), "1");
}
