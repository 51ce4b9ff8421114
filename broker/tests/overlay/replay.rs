//! Captured conversations with the overlay and groups of a tree of four.

use flux_protocol::message::Message;
use flux_replay::{Connection, Replay, Row, Rules, Vector, sweep};

use crate::tree::{Node, Site, run};

const SERVED: [&str; 3] = ["attr", "overlay", "groups"];

fn unserved(_: &Row, message: &Message) -> bool {
    !SERVED.contains(&message.topic.service())
}

async fn flat(site: &Site) -> Vec<Node> {
    let nodes = site.start_all().await;
    for node in &nodes {
        for (name, value) in [("hostlist", "vm,vm,vm,vm"), ("security.owner", "0")] {
            node.broker.attrs().put(name, value, flux_broker::attrs::Access::Immutable);
        }
    }
    nodes
}

#[test]
fn overlay_answers_as_captured() {
    run(async {
        let site = Site::new(4, "kary:32");
        let _nodes = flat(&site).await;
        let vector = Vector::load("overlay").unwrap();
        let rules = Rules::default().any("duration");
        let report = Replay::on_ranks(&vector, rules, |rank| site.socket(rank))
            .ignore(unserved)
            .play()
            .await;
        report.assert_equal();
    });
}

#[test]
fn groups_answer_as_captured() {
    run(async {
        let site = Site::new(4, "kary:32");
        let nodes = flat(&site).await;
        let online = |name: &str| flux_protocol::rpc::groups::NameRequest { name: name.to_owned() };
        for node in &nodes {
            node.handle
                .rpc::<flux_protocol::rpc::groups::Join>(&online("broker.online"))
                .await
                .unwrap();
        }
        let leader = &nodes[0].handle;
        while leader
            .rpc::<flux_protocol::rpc::groups::Get>(&online("broker.online"))
            .await
            .unwrap()
            .members
            != "0-3"
        {}
        let vector = Vector::load("state-machine-groups").unwrap();
        // The real broker collects changes for 0.1 s, and so tells of them later.
        let rules = Rules::default().any("members").any("subtree.mygrp");
        let report = Replay::on_ranks(&vector, rules, |rank| site.socket(rank))
            .ignore(|_, message| message.topic.service() != "groups")
            .play()
            .await;
        report.assert_equal();
    });
}

#[test]
fn probes_are_answered_as_captured() {
    run(async {
        let site = Site::new(4, "kary:32");
        let _nodes = flat(&site).await;
        // What ends the tree, and what is sent to modules alone, is left out.
        let left_out =
            ["overlay.config-sync", "overlay.config-reload", "overlay.disconnect-parent"];
        let wanted = |topic: &str| {
            let service = topic.split('.').next().unwrap_or_default();
            ["overlay", "groups"].contains(&service) && !left_out.contains(&topic)
        };
        let probes = sweep::probes(wanted).unwrap();
        assert!(!probes.is_empty());
        let mut differences = Vec::new();
        for probe in &probes {
            let mut connection = Connection::open(&site.socket(0)).await.unwrap().unwrap();
            differences.extend(probe.differs(&mut connection).await.unwrap());
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    });
}
