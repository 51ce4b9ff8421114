//! How brokers come in, and who does not.

use flux_broker::overlay::Uplink;
use flux_broker::peers::Peers;
use flux_cert::Certificate;

use crate::tree::{Site, run, until};

#[test]
fn brokers_may_start_in_any_order() {
    run(async {
        let site = Site::new(7, "kary:2");
        let mut nodes = Vec::new();
        for rank in [6, 2, 5, 1, 4, 3, 0] {
            nodes.push(site.start(rank).await);
        }
        for node in &nodes {
            node.until_status("full").await;
        }
        for node in nodes.iter().take(6) {
            node.until_joined().await;
        }
    });
}

#[test]
fn those_who_never_came_are_offline() {
    run(async {
        let site = Site::new(3, "kary:2");
        let leader = site.start(0).await;
        assert_eq!(leader.health().status, "partial");
        assert_eq!(leader.child(1), ("offline".to_owned(), None));
        let other = site.start(2).await;
        other.until_joined().await;
        until("2 online", || leader.child(2).0 == "full").await;
        assert_eq!(leader.health().status, "partial");
        assert_eq!(leader.overlay.notable_children().len(), 1);
    });
}

#[test]
fn leaf_waits_until_its_parent_is_there() {
    run(async {
        let site = Site::new(2, "kary:2");
        let leaf = site.start(1).await;
        leaf.until_logged("is not reachable").await;
        assert_eq!(*leaf.overlay.uplink().borrow(), Uplink::Joining);
        let leader = site.start(0).await;
        assert_eq!(leaf.overlay.joined().await, Ok(()));
        leader.until_status("full").await;
    });
}

#[test]
fn other_version_is_refused_by_name() {
    run(async {
        let mut site = Site::new(2, "kary:2");
        site.set("tbon.test-version", "0.1.7");
        let leader = site.start(0).await;
        for (version, told) in
            [("0.1.8", "v0.1.8"), ("0.2.7", "v0.2.7"), ("1.1.7-5-gabc", "v1.1.7")]
        {
            site.set("tbon.test-version", version);
            let child = site.start(1).await;
            let mismatch = format!("flux-core {told} mismatched with parent v0.1.7");
            assert_eq!(child.overlay.joined().await, Err(format!("overlay.hello: {mismatch}")));
            leader.until_logged("flux-core version mismatch - needs software update?").await;
            assert_eq!(leader.child(1), ("offline".to_owned(), Some(mismatch)));
            assert_eq!(leader.health().status, "partial");
            child.kill();
        }
        site.set("tbon.test-version", "0.1.7-5-gabc");
        let child = site.start(1).await;
        assert_eq!(child.overlay.joined().await, Ok(()));
        leader.until_status("full").await;
    });
}

#[test]
fn other_certificate_never_connects() {
    run(async {
        let site = Site::new(2, "kary:2");
        let leader = site.start(0).await;
        let other = site.dir.path().join("curve.cert");
        Certificate::generate().unwrap().save(&other).unwrap();
        let stranger = site.start(1).await;
        leader.until_logged("is the certificate the same?").await;
        assert_eq!(leader.child(1).0, "offline");
        assert_eq!(*stranger.overlay.uplink().borrow(), Uplink::Joining);
    });
}

#[test]
fn child_with_another_table_is_refused() {
    run(async {
        let flat = Site::new(3, "kary:2");
        let leader = flat.start(0).await;
        // The same hosts, but there rank 2 is below rank 0, here below rank 1.
        let mut chain = Site::new(3, "kary:1");
        let dir = std::mem::replace(&mut chain.dir, flat.dir);
        let middle = chain.start(1).await;
        middle.until_joined().await;
        chain.set("tbon.topo", "kary:2");
        let leaf = chain.start(2).await;
        leaf.until_joined().await;
        assert_eq!(leader.child(2).0, "full");
        leaf.kill();
        chain.set("tbon.topo", "kary:1");
        let leaf = chain.start(2).await;
        leaf.until_joined().await;
        assert_eq!(middle.child(2).0, "full");
        drop(dir);
    });
}

#[test]
fn nobody_comes_in_while_the_parent_leaves() {
    run(async {
        let site = Site::new(2, "kary:2");
        let leader = site.start(0).await;
        leader.overlay.close();
        let child = site.start(1).await;
        child.until_logged("connected to parent").await;
        assert_eq!(leader.child(1).0, "offline");
        assert_eq!(*child.overlay.uplink().borrow(), Uplink::Joining);
        leader.kill();
        let leader = site.start(0).await;
        child.until_joined().await;
        leader.until_status("full").await;
    });
}
