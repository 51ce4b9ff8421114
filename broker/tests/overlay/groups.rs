//! Groups over a whole tree.

use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::groups as rpc;

use crate::tree::{Node, Site, run};

fn name(name: &str) -> rpc::NameRequest {
    rpc::NameRequest { name: name.to_owned() }
}

async fn join_all(nodes: &[Node], group: &str) {
    for node in nodes {
        node.handle.rpc::<rpc::Join>(&name(group)).await.unwrap();
    }
}

/// Read until the members are these.
async fn until_members(watch: &mut flux_broker::handle::Responses<rpc::Get>, members: &str) {
    while watch.next().await.unwrap().members != members {}
}

fn watch(node: &Node, group: &str) -> flux_broker::handle::Responses<rpc::Get> {
    node.handle.stream::<rpc::Get>(Nodeid(0), &name(group)).unwrap()
}

#[test]
fn rank_0_knows_the_members_of_the_whole_tree() {
    run(async {
        let nodes = Site::new(7, "kary:2").start_all().await;
        let mut members = watch(&nodes[5], "broker.online");
        assert_eq!(members.next().await.unwrap().members, "");
        join_all(&nodes, "broker.online").await;
        until_members(&mut members, "0-6").await;
        nodes[3].handle.rpc::<rpc::Leave>(&name("broker.online")).await.unwrap();
        until_members(&mut members, "0-2,4-6").await;
        // Elsewhere a broker knows its subtree.
        let stats = nodes[1].handle.rpc::<rpc::Stats>(&flux_protocol::payload::Empty).await;
        assert_eq!(stats.unwrap().subtree["broker.online"], "1,4");
        let failure = nodes[1].handle.rpc::<rpc::Get>(&name("broker.online")).await.unwrap_err();
        assert_eq!(failure.errno, Errno::EPROTO);
    });
}

#[test]
fn members_leave_with_the_link_that_they_are_behind() {
    run(async {
        let site = Site::new(7, "kary:2");
        let mut nodes = site.start_all().await;
        let mut members = watch(&nodes[0], "broker.online");
        join_all(&nodes, "broker.online").await;
        until_members(&mut members, "0-6").await;
        nodes.remove(1).kill();
        until_members(&mut members, "0,2,5-6").await;
        nodes.pop().unwrap().leave().await;
        until_members(&mut members, "0,2,5").await;
        let again = site.start(6).await;
        again.until_joined().await;
        again.handle.rpc::<rpc::Join>(&name("broker.online")).await.unwrap();
        until_members(&mut members, "0,2,5-6").await;
    });
}

#[test]
fn torpid_children_are_a_group() {
    run(async {
        let mut site = Site::new(2, "kary:2");
        site.set("tbon.torpid_min", "1ms");
        site.set("tbon.torpid_max", "20ms");
        let leader = site.start(0).await;
        let mut torpid = watch(&leader, "broker.torpid");
        let child = site.start(1).await;
        until_members(&mut torpid, "1").await;
        until_members(&mut torpid, "").await;
        until_members(&mut torpid, "1").await;
        child.kill();
        until_members(&mut torpid, "").await;
    });
}

#[test]
fn member_leaves_with_the_client_that_joined() {
    run(async {
        let nodes = Site::new(2, "kary:2").start_all().await;
        let socket = nodes[1].broker.attrs().get("rank").unwrap();
        assert_eq!(socket, "1");
        let mut members = watch(&nodes[0], "g");
        let client = flux_broker::handle::Handle::new(nodes[1].broker.router().clone());
        client.rpc::<rpc::Join>(&name("g")).await.unwrap();
        until_members(&mut members, "1").await;
        let failure = nodes[1].handle.rpc::<rpc::Join>(&name("g")).await.unwrap_err();
        assert_eq!(failure.errno, Errno::EEXIST);
        assert_eq!(failure.text.as_deref(), Some("rank 1 is already a member of g"));
        let flags = flux_protocol::message::Flags::default();
        client
            .notify::<rpc::Disconnect>(Nodeid::ANY, flags, &flux_protocol::payload::Empty)
            .unwrap();
        until_members(&mut members, "").await;
        let failure = nodes[1].handle.rpc::<rpc::Leave>(&name("g")).await.unwrap_err();
        assert_eq!(failure.errno, Errno::ENOENT);
        assert_eq!(failure.text.as_deref(), Some("rank 1 is not a member of g"));
    });
}
