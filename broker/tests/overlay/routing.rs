//! Where messages go in a whole tree.

use std::rc::Rc;

use flux_protocol::credential::Rolemask;
use flux_protocol::errno::Errno;
use flux_protocol::message::{Flags, Kind, Matchtag, Message, Nodeid, text_payload};
use flux_protocol::rpc::{attr, groups};

use crate::tree::{Inbox, Node, Site, run, until};

fn get(name: &str) -> attr::GetRequest {
    attr::GetRequest { name: name.to_owned() }
}

#[test]
fn every_rank_reaches_every_rank() {
    run(async {
        for topo in ["kary:2", "kary:1", "binomial"] {
            let nodes = Site::new(7, topo).start_all().await;
            for node in &nodes {
                for rank in 0..7 {
                    let response =
                        node.handle.rpc_to::<attr::Get>(Nodeid(rank), &get("rank")).await.unwrap();
                    assert_eq!(response.value, rank.to_string());
                }
            }
            for node in &nodes {
                let stats = node.overlay.stats();
                assert_eq!((stats.parent_rpc, stats.child_rpc), (0, 0));
            }
        }
    });
}

#[test]
fn ranks_outside_the_instance_are_unreachable() {
    run(async {
        let nodes = Site::new(3, "kary:1").start_all().await;
        for node in &nodes {
            for rank in [3, 9, Nodeid::UPSTREAM.0] {
                let failure =
                    node.handle.rpc_to::<attr::Get>(Nodeid(rank), &get("rank")).await.unwrap_err();
                assert_eq!((failure.errno, failure.text), (Errno::EHOSTUNREACH, None));
            }
        }
    });
}

#[test]
fn unknown_service_is_missed_at_the_root() {
    run(async {
        let nodes = Site::new(3, "kary:1").start_all().await;
        let mut responses =
            nodes[2].handle.send_raw::<()>("nosuch.thing", Nodeid::ANY, Flags::default(), None);
        let failure = responses.next_raw().await.unwrap_err();
        assert_eq!(failure.errno, Errno::ENOSYS);
        let text = "No service matching nosuch.thing is registered";
        assert_eq!(failure.text.as_deref(), Some(text));
    });
}

#[test]
fn upstream_request_passes_by_the_own_service() {
    run(async {
        let nodes = Site::new(3, "kary:1").start_all().await;
        for (rank, node) in nodes.iter().enumerate().skip(1) {
            let response = node.handle.rpc_upstream::<attr::Get>(&get("rank")).await.unwrap();
            assert_eq!(response.value, (rank - 1).to_string());
        }
        let failure = nodes[0].handle.rpc_upstream::<attr::Get>(&get("rank")).await.unwrap_err();
        assert_eq!(failure.errno, Errno::EHOSTUNREACH);
    });
}

#[test]
fn message_of_another_broker_is_not_local() {
    run(async {
        let nodes = Site::new(3, "kary:1").start_all().await;
        let join = groups::NameRequest { name: "g".to_owned() };
        for (from, to) in [(0, 2), (2, 0)] {
            let failure =
                nodes[from].handle.rpc_to::<groups::Join>(Nodeid(to), &join).await.unwrap_err();
            assert_eq!(failure.errno, Errno::EPROTO);
            let text = "groups.join is restricted to the local broker";
            assert_eq!(failure.text.as_deref(), Some(text));
        }
    });
}

fn listen(node: &Node) -> Rc<Inbox> {
    let inbox = Rc::new(Inbox::default());
    let uuid = flux_broker::router::new_uuid();
    node.broker.router().attach(uuid.clone(), inbox.clone());
    node.broker.router().subscribe(&uuid, "test.");
    inbox
}

fn event(topic: String) -> Message {
    Message::event(topic).with_payload(Some(text_payload("{}")))
}

#[test]
fn events_from_anywhere_reach_all_in_one_order() {
    run(async {
        let nodes = Site::new(7, "kary:2").start_all().await;
        let inboxes: Vec<_> = nodes.iter().map(listen).collect();
        for round in 0..3 {
            for node in &nodes {
                let topic = format!("test.{}.{round}", node.broker.rank());
                let event = event(topic).with_cred(node.broker.router().owner_cred());
                node.broker.router().publish(event).unwrap();
            }
        }
        let topics = |inbox: &Inbox| -> Vec<String> {
            inbox.0.borrow().iter().map(|event| event.topic.to_string()).collect()
        };
        for (rank, inbox) in inboxes.iter().enumerate() {
            until("21 events", || inbox.0.borrow().len() == 21).await;
            assert_eq!(topics(inbox), topics(&inboxes[0]));
            for (at, event) in (1..).zip(inbox.0.borrow().iter()) {
                assert_eq!(event.kind, Kind::Event { seq: at });
                let local = rank == 0 && event.topic.starts_with("test.0.");
                assert_eq!(event.cred.rolemask.contains(Rolemask::LOCAL), local);
            }
        }
    });
}

#[test]
fn response_without_a_matchtag_finds_its_way_back() {
    run(async {
        let nodes = Site::new(3, "kary:1").start_all().await;
        let inbox = Rc::new(Inbox::default());
        let uuid = flux_broker::router::new_uuid();
        nodes[2].broker.router().attach(uuid.clone(), inbox.clone());
        let mut request = Message::request("attr.list", Nodeid(0), Matchtag::NONE)
            .with_cred(nodes[2].broker.router().owner_cred());
        request.routes.push(uuid);
        nodes[2].broker.router().request(request);
        until("an answer", || !inbox.0.borrow().is_empty()).await;
        let answer = inbox.0.borrow()[0].clone();
        assert_eq!((answer.errnum(), answer.routes.len()), (0, 0));
        assert_eq!(answer.cred.rolemask, Rolemask::OWNER);
    });
}
