//! A configuration is in force for all, or for nobody: what becomes of one that a plugin refuses.

use flux_protocol::failure::Failure;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object, encode_json};
use flux_protocol::rpc::{config as rpc, job_manager};
use serde_json::{Value, json};

use crate::instance::{Instance, Options, jobspec_of, run, simulated};

/// Shows the table `[fixture]` that it has, and refuses some.
const FIXTURE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist/fixtures/fixture-config.wasm");

fn entry() -> Value {
    json!({ "load": FIXTURE, "caps": ["config:fixture"] })
}

async fn instance(plugins: Value) -> Instance {
    let config = json!({
        "fixture": { "is": "old" },
        "job-manager": { "plugins": plugins },
    });
    Instance::with(Options { config, ..Options::default() }).await.unwrap()
}

/// The configuration that is in force, with some tables in the place of others.
fn changed(instance: &Instance, tables: &Value) -> Object {
    let mut config = instance.broker.config().object().clone();
    for (name, table) in tables.as_object().unwrap() {
        let old = config.entry(name.clone()).or_insert_with(|| json!({}));
        old.as_object_mut().unwrap().extend(table.as_object().unwrap().clone());
    }
    config
}

async fn load(instance: &Instance, tables: Value) -> Result<(), String> {
    let config = changed(instance, &tables);
    let loaded = instance.handle.rpc::<rpc::Load>(&config).await;
    loaded.map(drop).map_err(|failure| failure.to_string())
}

/// What the plugin has for `[fixture]`.
async fn shown(instance: &Instance, name: &str) -> Value {
    let request = job_manager::NameRequest { name: name.to_owned() };
    let query = instance.handle.rpc::<job_manager::JobtapQuery>(&request).await.unwrap();
    query.get("fixture").cloned().unwrap_or_else(|| json!(query))
}

#[test]
fn what_one_plugin_refuses_none_has_and_nothing_changes() {
    run(async {
        let instance = instance(json!([entry(), { "load": "perilog.wasm" }])).await;
        let before = instance.broker.config();
        let refused = load(
            &instance,
            json!({
                "fixture": { "is": "new" },
                "policy": { "limits": { "job-size": { "max": { "ncores": 1 } } } },
                "job-manager": { "prolog": { "per-rank": true } },
            }),
        )
        .await;
        let text = "error updating job-manager: plugin perilog.wasm refuses: [job-manager.prolog]: \
                    no command specified and exec.imp not defined";
        assert_eq!(refused, Err(text.to_owned()));
        assert_eq!(instance.broker.config(), before);
        // Those that were asked before it had agreed.
        assert_eq!(shown(&instance, "fixture-config.wasm").await, json!({ "is": "old" }));
        let exec = json!({ "exec": { "test": { "run_duration": "0.001s" } } });
        let id = instance.submit(&jobspec_of(&["two"], 2, exec)).await.unwrap();
        instance.wait_event(id, "clean").await;
        assert_eq!(load(&instance, json!({ "fixture": { "is": "new" } })).await, Ok(()));
        assert_eq!(shown(&instance, "fixture-config.wasm").await, json!({ "is": "new" }));
        instance.stop().await;
    });
}

#[test]
fn what_another_service_refuses_plugins_do_not_keep() {
    run(async {
        let instance = instance(json!([entry()])).await;
        for (tables, told) in [
            (
                json!({ "ingest": { "validator": { "plugins": ["no-such-one"] } } }),
                "error updating job-ingest: [ingest.validator]: validator plugin 'no-such-one' not \
                 found",
            ),
            (
                json!({ "sched": { "plugin": "no-such-one.wasm" } }),
                "error updating sched-simple: [sched] plugin: no-such-one.wasm: No such plugin \
                 found",
            ),
        ] {
            let mut tables = tables;
            tables["fixture"] = json!({ "is": "new" });
            let refused = load(&instance, tables).await.unwrap_err();
            assert!(refused.starts_with(told), "{refused}");
            assert_eq!(shown(&instance, "fixture-config.wasm").await, json!({ "is": "old" }));
            // Jobs are judged and given resources as before.
            let id = instance.submit(&simulated("0.001s")).await.unwrap();
            instance.wait_event(id, "clean").await;
        }
        instance.stop().await;
    });
}

#[test]
fn a_plugin_that_breaks_over_a_configuration_goes_on_with_the_one_it_had() {
    run(async {
        let mut last = entry();
        last["deadline"] = json!("200ms");
        let instance = instance(json!([last])).await;
        for fault in ["trap", "loop"] {
            let refused = load(&instance, json!({ "fixture": { "is": fault } })).await;
            let text = refused.unwrap_err();
            let told = "error updating job-manager: plugin fixture-config.wasm could not be asked \
                        (flux jobtap remove fixture-config.wasm does without it): ";
            assert!(text.starts_with(told) && text.contains("conf.update"), "{text}");
            // A job has it started again.
            let id = instance.submit(&simulated("0.001s")).await.unwrap();
            instance.wait_event(id, "clean").await;
            let request = job_manager::NameRequest { name: "fixture-config.wasm".to_owned() };
            instance.handle.rpc::<job_manager::JobtapRearm>(&request).await.unwrap();
            assert_eq!(shown(&instance, "fixture-config.wasm").await, json!({ "is": "old" }));
        }
        assert_eq!(load(&instance, json!({ "fixture": { "is": "new" } })).await, Ok(()));
        assert_eq!(shown(&instance, "fixture-config.wasm").await, json!({ "is": "new" }));
        instance.stop().await;
    });
}

#[test]
fn a_plugin_in_quarantine_has_the_configuration_when_it_is_re_armed() {
    run(async {
        let mut last = entry();
        last["max-faults"] = json!(1);
        let instance = instance(json!([last])).await;
        let _ = instance.submit(&jobspec_of(&["panic"], 1, json!({}))).await;
        instance.wait_log("quarantined after 1 faults").await;
        assert_eq!(load(&instance, json!({ "fixture": { "is": "new" } })).await, Ok(()));
        let request = job_manager::NameRequest { name: "fixture-config.wasm".to_owned() };
        instance.handle.rpc::<job_manager::JobtapRearm>(&request).await.unwrap();
        assert_eq!(shown(&instance, "fixture-config.wasm").await, json!({ "is": "new" }));
        instance.stop().await;
    });
}

/// Sent one after the other without waiting for an answer.
#[test]
fn changes_that_are_asked_for_at_once_are_made_in_order() {
    run(async {
        let instance = instance(json!([entry()])).await;
        let send = |method: &str, payload| {
            let topic = format!("job-manager.{method}");
            instance.handle.send_raw::<()>(topic, Nodeid::ANY, Default::default(), payload)
        };
        let reload = |is: &str| {
            let config = changed(&instance, &json!({ "fixture": { "is": is } }));
            send("config-reload", encode_json(&config).unwrap())
        };
        let jobtap = |load: Option<&str>, remove: Option<&str>| {
            let request = job_manager::JobtapRequest {
                load: load.map(str::to_owned),
                remove: remove.map(str::to_owned),
                ..job_manager::JobtapRequest::default()
            };
            send("jobtap", encode_json(&request).unwrap())
        };
        let mut answers = [
            reload("first"),
            reload("refuse"),
            jobtap(None, Some("fixture-config.wasm")),
            reload("refuse"),
            jobtap(Some("submit-hold.wasm"), None),
            reload("last"),
        ];
        let mut results = Vec::new();
        for answer in &mut answers {
            results.push(answer.next_raw().await.map(drop).map_err(|f: Failure| f.to_string()));
        }
        let refused = "plugin fixture-config.wasm refuses: [fixture]: what is refused: expected \
                       anything else";
        // Once it is gone, there is nobody who would refuse.
        let expected = [Ok(()), Err(refused.to_owned()), Ok(()), Ok(()), Ok(()), Ok(())].to_vec();
        assert_eq!(results, expected);
        instance.handle.rpc::<job_manager::Getinfo>(&Empty).await.unwrap();
        instance.stop().await;
    });
}
