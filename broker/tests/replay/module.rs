//! `module.*`.

use std::time::Duration;

use flux_broker::handle::Handle;
use flux_broker::modules;
use flux_broker::services::event::Event;
use flux_broker::services::heartbeat::Heartbeat;
use flux_broker::services::module::Module;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::Method;
use flux_protocol::rpc::module as rpc;
use flux_replay::{Replay, Rules, Vector};
use serde_json::json;

use crate::instance::{Instance, run};

#[test]
fn modules_are_managed_as_captured() {
    run(async {
        let instance = Instance::start().with::<Module>().await;
        let load = async |name: &str| {
            let broker = &instance.broker;
            modules::load(broker, name, None, &[]).await.unwrap();
        };
        for name in ["content", "content-sqlite", "kvs", "kvs-watch", "job-info", "heartbeat"] {
            load(name).await;
        }
        let vector = Vector::load("module").unwrap();
        let socket = instance.socket();
        Replay::new(&vector, Rules::default(), &socket)
            .skip_run("flux module list", "other modules are loaded, see below")
            .skip_run("flux module stats", "what modules count is their own affair")
            .skip_run("timeout -s INT 1.2 flux module trace", "see below")
            .play()
            .await
            .assert_equal();
        instance.sweep(|topic| topic.starts_with("module.")).await;
        modules::remove_all(&instance.broker).await.unwrap();
        instance.stop().await;
    });
}

#[test]
fn a_module_is_listed_while_it_is_loaded_and_may_have_another_name() {
    run(async {
        let instance = Instance::start().with_module::<Module>().await;
        let handle = Handle::new(instance.broker.router().clone());
        load(&handle, "heartbeat", None, &[]).await.unwrap();
        load(&handle, "heartbeat.so", Some("hb2"), &["period=5s"]).await.unwrap();
        let list = handle.rpc::<rpc::List>(&Empty).await.unwrap().mods;
        let names: Vec<&str> = list.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["module", "heartbeat", "hb2"]);
        assert_eq!(list[2].services, ["hb2"]);
        assert_eq!(list[2].status, rpc::status::RUNNING);
        let stats = handle.rpc::<Hb2Stats>(&Empty).await.unwrap();
        assert_eq!(stats["period"], json!(5.0));
        assert_eq!(load(&handle, "heartbeat", None, &[]).await.unwrap_err().errno, Errno::EEXIST);
        assert_eq!(
            load(&handle, "heartbeat", Some("hb3"), &["nonsense"]).await.unwrap_err().text.unwrap(),
            "nonsense: unknown option"
        );
        let remove = |name: &str| rpc::RemoveRequest { name: name.to_owned(), cancel: false };
        handle.rpc::<rpc::Remove>(&remove("hb2")).await.unwrap();
        let builtin = handle.rpc::<rpc::Remove>(&remove("module")).await.unwrap_err();
        assert_eq!(builtin.errno, Errno::EINVAL);
        assert_eq!(handle.rpc::<rpc::List>(&Empty).await.unwrap().mods.len(), 2);
        modules::remove_all(&instance.broker).await.unwrap();
        instance.stop().await;
    });
}

#[test]
fn traces_show_what_a_module_receives_and_sends() {
    run(async {
        let instance = Instance::start().with::<Event>().await.with::<Module>().await;
        let instance = instance.with_args::<Heartbeat>(&["period=1h"]).await;
        let handle = Handle::new(instance.broker.router().clone());
        let request = rpc::TraceRequest {
            typemask: 15,
            topic_glob: "heartbeat.*".to_owned(),
            names: vec!["heartbeat".to_owned()],
            full: true,
        };
        let mut stream = handle.stream::<rpc::Trace>(Nodeid::ANY, &request).unwrap();
        // Requests of one caller are taken in order, but by two services here.
        handle.rpc::<rpc::List>(&Empty).await.unwrap();
        handle.rpc::<flux_protocol::rpc::heartbeat::Stats>(&Empty).await.unwrap();
        let next = async |stream: &mut flux_broker::handle::Responses<rpc::Trace>| {
            tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap().unwrap()
        };
        let received = next(&mut stream).await;
        assert_eq!((received.prefix.as_str(), received.kind), ("rx", 1));
        assert_eq!(received.topic, "heartbeat.stats-get");
        let sent = next(&mut stream).await;
        assert_eq!((sent.prefix.as_str(), sent.kind, sent.errnum), ("tx", 2, 0));
        assert_eq!(sent.name.as_deref(), Some("heartbeat"));
        assert!(sent.payload.unwrap().get().contains("\"period\":3600"), "{}", sent.payload_size);
        drop(stream);
        instance.stop().await;
    });
}

async fn load(
    handle: &Handle,
    path: &str,
    name: Option<&str>,
    args: &[&str],
) -> Result<Empty, flux_protocol::failure::Failure> {
    let request = rpc::LoadRequest {
        path: path.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        exec: None,
        name: name.map(str::to_owned),
        loader: None,
    };
    handle.rpc::<rpc::Load>(&request).await
}

/// The stats of a second heartbeat module.
struct Hb2Stats;

impl Method for Hb2Stats {
    const TOPIC: &'static str = "hb2.stats-get";
    const WHO: flux_protocol::rpc::Who = flux_protocol::rpc::Who::Owner;
    const REPLY: flux_protocol::rpc::Reply = flux_protocol::rpc::Reply::One;
    type Request = Empty;
    type Response = Object;
}
