//! How brokers leave, and what becomes of those behind them.

use std::time::Duration;

use flux_broker::overlay::Uplink;
use flux_broker::peers::Peers;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::overlay;

use crate::tree::{Site, run, until};

fn pair(status: &str, error: &str) -> (String, Option<String>) {
    (status.to_owned(), Some(error.to_owned()))
}

#[test]
fn leaf_that_stops_is_offline_and_the_tree_partial() {
    run(async {
        let mut nodes = Site::new(7, "kary:2").start_all().await;
        nodes.pop().unwrap().leave().await;
        until("6 offline", || nodes[2].child(6).0 == "offline").await;
        assert_eq!(nodes[2].child(6), pair("offline", "administrative shutdown"));
        for rank in [2, 0] {
            nodes[rank].until_status("partial").await;
        }
        assert_eq!(nodes[1].health().status, "full");
        assert!(!nodes[2].has_logged("(rank 6) failed"));
    });
}

#[test]
fn leaf_that_dies_is_lost_and_the_tree_degraded() {
    run(async {
        let mut nodes = Site::new(7, "kary:2").start_all().await;
        nodes.pop().unwrap().kill();
        for rank in [2, 0] {
            nodes[rank].until_status("degraded").await;
        }
        assert_eq!(nodes[2].child(6), pair("lost", "lost connection"));
        assert_eq!(nodes[0].child(2), ("degraded".to_owned(), None));
        assert_eq!(nodes[0].child(1), ("full".to_owned(), None));
        assert!(nodes[2].has_logged("h6 (rank 6) failed"));
        let ping = nodes[0].handle.rpc_to::<overlay::Health>(Nodeid(6), &Empty).await;
        assert_eq!(ping.unwrap_err().errno, Errno::EHOSTUNREACH);
    });
}

#[test]
fn dead_router_fails_what_went_through_it_and_its_subtree_leaves() {
    run(async {
        let mut nodes = Site::new(4, "kary:1").start_all().await;
        let mut down = nodes[0].handle.stream::<overlay::Health>(Nodeid(3), &Empty).unwrap();
        let mut up = nodes[3].handle.stream::<overlay::Health>(Nodeid(0), &Empty).unwrap();
        assert_eq!(down.next().await.unwrap().rank, 3);
        assert_eq!(up.next().await.unwrap().rank, 0);
        assert_eq!(nodes[1].overlay.stats().child_rpc, 1);
        nodes.remove(1).kill();
        let failure = down.next().await.unwrap_err();
        assert_eq!((failure.errno, failure.text), (Errno::EHOSTUNREACH, None));
        // Rank 0 also says so to its own watchers before it hears of more.
        let failure = up.next().await.unwrap_err();
        assert_eq!(failure.errno, Errno::EHOSTUNREACH);
        assert_eq!(failure.text.as_deref(), Some("overlay disconnect"));
        nodes[1].lost_parent().await;
        let lost = "h1 (rank 1) failed and severed contact with 2 other nodes";
        nodes[0].until_logged(lost).await;
        // Rank 3 learns it when rank 2, which has lost its parent, exits.
        nodes.remove(1).kill();
        nodes[1].lost_parent().await;
    });
}

#[test]
fn router_that_comes_back_gets_its_subtree_back() {
    run(async {
        let site = Site::new(3, "kary:1");
        let mut nodes = site.start_all().await;
        nodes.remove(1).kill();
        nodes[1].lost_parent().await;
        nodes.pop().unwrap().kill();
        nodes[0].until_status("degraded").await;
        let router = site.start(1).await;
        let leaf = site.start(2).await;
        leaf.until_joined().await;
        router.until_status("full").await;
        nodes[0].until_status("full").await;
    });
}

#[test]
fn second_process_of_a_rank_takes_the_place_of_the_first() {
    run(async {
        let site = Site::new(2, "kary:2");
        let nodes = site.start_all().await;
        let mut open = nodes[0].handle.stream::<overlay::Health>(Nodeid(1), &Empty).unwrap();
        open.next().await.unwrap();
        let mut monitor = nodes[0].handle.stream::<overlay::Monitor>(Nodeid::ANY, &Empty).unwrap();
        assert_eq!(monitor.next().await.unwrap().status, "full");
        let second = site.start(1).await;
        second.until_joined().await;
        assert_eq!(monitor.next().await.unwrap().status, "lost");
        assert_eq!(monitor.next().await.unwrap().status, "full");
        let failure = open.next().await.unwrap_err();
        assert_eq!(failure.errno, Errno::EHOSTUNREACH);
        let text = "h1 (rank 1) reconnected after crash, dropping old connection state";
        nodes[0].until_logged(text).await;
        // The first is told to leave as soon as it says something.
        let _ = nodes[1].handle.rpc_upstream::<overlay::Health>(&Empty).await;
        let reason = nodes[1].lost_parent().await;
        assert_eq!(reason, "h0 (rank 0) sent disconnect control message");
        assert_eq!(*second.overlay.uplink().borrow(), Uplink::Joined);
        assert_eq!(nodes[0].child(1), ("full".to_owned(), None));
    });
}

#[test]
fn owner_can_break_a_link() {
    run(async {
        let nodes = Site::new(4, "kary:1").start_all().await;
        let disconnect = |rank| overlay::RankRequest { rank };
        let call = async |rank| {
            let request = disconnect(rank);
            nodes[0].handle.rpc_to::<overlay::DisconnectSubtree>(Nodeid(1), &request).await
        };
        let failure = call(3).await.unwrap_err();
        assert_eq!(failure.errno, Errno::ENOENT);
        let text = "requested rank is not this broker's direct child";
        assert_eq!(failure.text.as_deref(), Some(text));
        call(2).await.unwrap();
        assert_eq!(nodes[1].child(2), pair("lost", "administrative disconnect"));
        nodes[2].lost_parent().await;
        nodes[0].until_status("degraded").await;
        let failure = call(2).await.unwrap_err();
        assert_eq!(failure.errno, Errno::EINVAL);
        assert_eq!(failure.text.as_deref(), Some("rank 2 is already lost"));
        let line = "h2 (rank 2) disconnected by request and severed contact with 1 other nodes";
        assert!(nodes[1].has_logged(line));
    });
}

#[test]
fn broker_can_give_up_its_parent() {
    run(async {
        let nodes = Site::new(2, "kary:2").start_all().await;
        let request = overlay::DisconnectParentRequest { reason: "heartbeat lost".to_owned() };
        let flags = flux_protocol::message::Flags::default();
        nodes[1].handle.notify::<overlay::DisconnectParent>(Nodeid::ANY, flags, &request).unwrap();
        assert_eq!(nodes[1].lost_parent().await, "heartbeat lost");
        nodes[0].until_status("degraded").await;
        nodes[1].until_logged("disconnecting: heartbeat lost").await;
    });
}

#[test]
fn children_are_gone_when_the_last_has_said_goodbye() {
    run(async {
        let mut nodes = Site::new(3, "kary:2").start_all().await;
        nodes[0].overlay.close();
        assert!(!nodes[0].overlay.children().is_empty());
        let gone = nodes[0].overlay.children_gone();
        nodes.pop().unwrap().leave().await;
        nodes.pop().unwrap().leave().await;
        gone.await;
        assert!(nodes[0].overlay.children().is_empty());
        assert_eq!(nodes[0].health().status, "partial");
    });
}

#[test]
fn a_parent_that_goes_before_its_answer_to_a_goodbye_is_read_is_not_lost() {
    run(async {
        let mut nodes = Site::new(2, "kary:2").start_all().await;
        let leaf = nodes.pop().unwrap();
        let goodbye = leaf.overlay.goodbye();
        // In place of the answer comes the end of the connection.
        nodes.pop().unwrap().kill();
        goodbye.await;
        let lost = leaf.overlay.parent_lost();
        assert!(tokio::time::timeout(Duration::ZERO, lost).await.is_err());
    });
}

#[test]
fn a_broker_that_is_stopped_between_hello_and_answer_is_offline_and_not_lost() {
    run(async {
        let site = Site::new(2, "kary:2");
        let leader = site.start(0).await;
        let leaf = site.start(1).await;
        // The parent has let it in, but the answer has not been read yet.
        until("1 online", || {
            leader.child(1).0 == "full" || *leaf.overlay.uplink().borrow() == Uplink::Joined
        })
        .await;
        leaf.leave().await;
        until("1 offline", || leader.child(1).0 == "offline").await;
        assert_eq!(leader.child(1), pair("offline", "administrative shutdown"));
        assert!(!leader.has_logged("(rank 1) failed"));
    });
}

#[test]
fn a_broker_without_a_parent_to_tell_leaves_at_once() {
    run(async {
        let leaf = Site::new(2, "kary:2").start(1).await;
        leaf.leave().await;
    });
}

#[test]
fn monitor_and_health_stream_every_change() {
    run(async {
        let site = Site::new(2, "kary:2");
        let leader = site.start(0).await;
        let mut monitor = leader.handle.stream::<overlay::Monitor>(Nodeid::ANY, &Empty).unwrap();
        let mut health = leader.handle.stream::<overlay::Health>(Nodeid::ANY, &Empty).unwrap();
        assert_eq!(health.next().await.unwrap().status, "partial");
        let child = site.start(1).await;
        let first = monitor.next().await.unwrap();
        assert_eq!((first.rank, first.status.as_str(), first.torpid), (1, "full", false));
        while health.next().await.unwrap().status != "full" {}
        child.kill();
        assert_eq!(monitor.next().await.unwrap().status, "lost");
        while health.next().await.unwrap().status != "degraded" {}
    });
}

#[test]
fn messages_on_a_link_can_be_traced() {
    run(async {
        let nodes = Site::new(2, "kary:2").start_all().await;
        let request = overlay::TraceRequest {
            typemask: 3,
            topic_glob: "overlay.h*".to_owned(),
            nodeid: -1,
            full: true,
        };
        let mut trace = nodes[0].handle.stream::<overlay::Trace>(Nodeid::ANY, &request).unwrap();
        // The trace is on once a later request is answered.
        nodes[0].handle.rpc::<overlay::Stats>(&Empty).await.unwrap();
        nodes[0].handle.rpc_to::<overlay::Health>(Nodeid(1), &Empty).await.unwrap();
        let sent = trace.next().await.unwrap();
        assert_eq!((sent.prefix.as_str(), sent.rank, sent.kind), ("tx", 1, 1));
        assert_eq!((sent.topic.as_str(), sent.payload_size), ("overlay.health", 0));
        let received = trace.next().await.unwrap();
        assert_eq!((received.prefix.as_str(), received.rank, received.kind), ("rx", 1, 2));
        assert!(received.payload.unwrap().get().starts_with("{\"rank\":1,"));
        assert_eq!(received.name, None);
    });
}

#[test]
fn silent_child_is_torpid_until_it_speaks() {
    run(async {
        let mut site = Site::new(2, "kary:2");
        site.set("tbon.torpid_min", "1ms");
        site.set("tbon.torpid_max", "20ms");
        let leader = site.start(0).await;
        // It does not know how little silence its parent bears: between two of its heartbeats,
        // which come at most once a second, it says nothing for longer than 20 ms.
        site.set("tbon.torpid_max", "0");
        let child = site.start(1).await;
        leader.until_logged("broker on h1 (rank 1) has been unresponsive for").await;
        leader.until_logged("broker on h1 (rank 1) is responsive now").await;
        let torpid = toml::from_str("[tbon]\ntorpid_max = '0'\ntorpid_min = '1ms'").unwrap();
        leader
            .handle
            .send_raw::<()>(
                "overlay.config-reload",
                Nodeid::ANY,
                flux_protocol::message::Flags::default(),
                flux_protocol::payload::encode_json::<flux_protocol::payload::Object>(&torpid)
                    .unwrap(),
            )
            .next_raw()
            .await
            .unwrap();
        assert!(leader.overlay.notable_children().iter().all(|child| !child.torpid));
        child.kill();
    });
}
