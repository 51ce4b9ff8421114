//! `[job-manager] plugins`: what is loaded from the start, and what is said of mistakes.

use flux_protocol::rpc::job_manager as rpc;
use serde_json::{Value, json};

use crate::instance::{Instance, Options, jobspec_of, run};

const ABILITIES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist/fixtures/fixture-abilities.wasm");

async fn instance(plugins: Value) -> Result<Instance, String> {
    let config = json!({ "job-manager": { "plugins": plugins } });
    let started = Instance::with(Options { config, ..Options::default() }).await;
    started.map_err(|failure| failure.to_string())
}

/// Names of the plugins that are not builtin, in load order.
async fn listed(instance: &Instance) -> Vec<String> {
    let request = rpc::JobtapRequest { query_only: Some(true), ..rpc::JobtapRequest::default() };
    let answer = instance.handle.rpc::<rpc::Jobtap>(&request).await.unwrap();
    let names = answer.plugins.iter().map(|name| name.as_str().unwrap().to_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn plugins_are_loaded_as_configured_and_by_the_names_of_native_ones() {
    run(async {
        let instance = Instance::start().await;
        assert!(listed(&instance).await.is_empty(), "perilog is not active by default");
        instance.stop().await;
        let plugins = json!([
            { "load": "submit-hold.wasm" },
            { "load": "perilog.so" },
            { "remove": "submit-hold.wasm" },
            { "load": "alloc-bypass.wasm" },
        ]);
        let instance = self::instance(plugins).await.unwrap();
        assert_eq!(listed(&instance).await, ["perilog.wasm", "alloc-bypass.wasm"]);
        instance.stop().await;
    });
}

#[test]
fn an_instance_does_not_start_with_a_mistake_in_the_list_and_names_it() {
    run(async {
        for (plugins, said) in [
            (json!({ "load": "perilog.wasm" }), "[job-manager.plugins] config must be an array"),
            (json!([{ "load": 42 }]), "[job-manager.plugins][0]: load: "),
            (
                json!([{ "load": "perilog.wasm" }, { "load": "nope.wasm" }]),
                "[job-manager.plugins][1]: load: nope.wasm: No such plugin found",
            ),
            (
                json!([{ "remove": "nope.wasm" }]),
                "[job-manager.plugins][0]: remove: nope.wasm: failed to find plugin to remove",
            ),
            (
                json!([{ "load": "perilog.wasm", "on-fault": "cry" }]),
                "on-fault: 'cry' is not reject, hold or skip",
            ),
            (
                json!([{ "load": "perilog.wasm" }, { "load": "perilog.so" }]),
                "perilog.wasm already loaded",
            ),
        ] {
            let text = match instance(plugins.clone()).await {
                Ok(_) => panic!("{plugins} was taken"),
                Err(text) => text,
            };
            assert!(text.contains(said), "{plugins}: {text}");
        }
    });
}

#[test]
fn without_the_plugin_that_gave_it_a_priority_is_the_urgency_again_when_asked_for() {
    run(async {
        let caps = ["drain", "rpc:*", "kvs.read:*", "event.publish:*", "event:*", "exec:*"];
        let plugin = json!({ "load": ABILITIES, "caps": caps });
        let instance = instance(json!([plugin])).await.unwrap();
        let exec = json!({ "test": { "run_duration": "1000s" } });
        let named = |name: &str, slots| {
            let more = json!({ "exec": exec, "job": { "name": name } });
            jobspec_of(&["simulated"], slots, more)
        };
        // All cores, so that the next one waits.
        let first = instance.submit(&named("plain", 8)).await.unwrap();
        instance.wait_event(first, "start").await;
        let id = instance.submit(&named("priority", 1)).await.unwrap();
        let event = instance.wait_event(id, "priority").await;
        assert_eq!(event.context_as::<Value>().unwrap(), json!({ "priority": 77 }));
        let request = rpc::JobtapRequest {
            remove: Some("fixture-abilities.wasm".to_owned()),
            ..rpc::JobtapRequest::default()
        };
        let payload = flux_protocol::payload::encode_json(&request).unwrap();
        let nodeid = flux_protocol::message::Nodeid::ANY;
        let topic = "job-manager.jobtap".to_owned();
        let mut answer = instance.handle.send_raw::<()>(topic, nodeid, Default::default(), payload);
        answer.next_raw().await.unwrap();
        let request = rpc::UrgencyRequest { id, urgency: 20 };
        instance.handle.rpc::<rpc::Urgency>(&request).await.unwrap();
        let asked = async {
            loop {
                let events = instance.events(id).await;
                let last = events.iter().rfind(|event| event.name == "priority").unwrap();
                if last.context_as::<Value>().unwrap() == json!({ "priority": 20 }) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::instance::PATIENCE, asked).await.unwrap();
        for id in [first, id] {
            instance.raise(id, "cancel", 0).await.unwrap();
            instance.wait_event(id, "clean").await;
        }
        instance.stop().await;
    });
}
