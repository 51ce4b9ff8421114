//! What a jobtap plugin is able to do, thing by thing, each seen where a user would: in the job's
//! events, in listings, in an answer. The plugin is `plugins-wasm/fixture-abilities`.

use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object, encode_json, text};
use flux_protocol::rpc::{job_manager as rpc, resource};
use serde_json::{Value, json};

use crate::instance::{Instance, Options, jobspec_of, run, until};

const PLUGIN: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist/fixtures/fixture-abilities.wasm");
const NAME: &str = "fixture-abilities.wasm";
const CAPS: [&str; 7] = [
    "drain",
    "rpc:*",
    "kvs.read:resource.R",
    "event.publish:abilities.*",
    "event:abilities.*",
    "exec:abilities",
    "attr:more.than.it.asks.for",
];

async fn instance(entry: Value) -> Instance {
    let mut plugin = json!({ "load": PLUGIN, "caps": CAPS });
    plugin.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
    let command = json!({ "command": ["sh", "-c", "exit 3"] });
    let config = json!({ "job-manager": { "plugins": [plugin], "abilities": command } });
    Instance::with(Options { config, ..Options::default() }).await.unwrap()
}

/// A job that the plugin does something for.
fn named(name: &str) -> Value {
    timed(name, "0.001s", json!({}))
}

fn timed(name: &str, duration: &str, more: Value) -> Value {
    let exec = json!({ "test": { "run_duration": duration } });
    let mut system = json!({ "exec": exec, "job": { "name": name } });
    system.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jobspec_of(&["simulated"], 1, system)
}

fn dependent(name: &str, scheme: &str, value: &str) -> Value {
    let dependency = json!({ "scheme": scheme, "value": value });
    timed(name, "0.001s", json!({ "dependencies": [dependency] }))
}

/// Run a job to its end; its events.
async fn events_of(instance: &Instance, jobspec: &Value) -> Vec<(String, Value)> {
    let id = instance.submit(jobspec).await.unwrap();
    instance.wait_event(id, "clean").await;
    let context = |event: &flux_protocol::eventlog::Event| match &event.context {
        Some(context) => serde_json::from_str(context.get()).unwrap(),
        None => Value::Null,
    };
    instance.events(id).await.iter().map(|event| (event.name.clone(), context(event))).collect()
}

/// The context of a job's only event of this name.
fn only<'a>(events: &'a [(String, Value)], name: &str) -> &'a Value {
    let found: Vec<&Value> =
        events.iter().filter(|event| event.0 == name).map(|event| &event.1).collect();
    assert_eq!(found.len(), 1, "{name}: {events:?}");
    found[0]
}

/// The events are there, in this order.
fn ordered(events: &[(String, Value)], names: &[&str]) {
    let mut rest = events.iter();
    for name in names {
        assert!(rest.any(|event| event.0 == *name), "{names:?}: {events:?}");
    }
}

async fn refused(instance: &Instance, jobspec: &Value) -> String {
    instance.submit(jobspec).await.unwrap_err().text.unwrap()
}

async fn query(instance: &Instance) -> Value {
    let request = rpc::NameRequest { name: NAME.to_owned() };
    Value::Object(instance.handle.rpc::<rpc::JobtapQuery>(&request).await.unwrap())
}

/// Topics that a job was called with, in order.
async fn topics(instance: &Instance, id: JobId) -> Vec<String> {
    let trace = query(instance).await["trace"].clone();
    let calls = trace.as_array().unwrap().iter().filter_map(Value::as_str);
    let of_job = calls.filter_map(|call| call.split_once(' '));
    let of_job = of_job.filter(|(_, job)| *job == id.0.to_string());
    of_job.map(|(topic, _)| topic.to_owned()).collect()
}

/// A request to the plugin itself.
async fn ask(instance: &Instance, method: &str) -> Result<Value, Errno> {
    let payload = encode_json(&json!({ "a": 1 })).unwrap();
    let topic = format!("job-manager.abilities.{method}");
    let mut answer =
        instance.handle.send_raw::<()>(topic, Nodeid::ANY, Default::default(), payload);
    let payload = answer.next_raw().await.map_err(|failure| failure.errno)?;
    Ok(serde_json::from_str(text(payload.as_ref()).unwrap()).unwrap())
}

#[test]
fn a_job_with_a_dependency_is_told_of_in_each_topic_once_and_in_order() {
    run(async {
        let instance = instance(json!({})).await;
        let id = instance.submit(&dependent("plain", "abilities", "met")).await.unwrap();
        instance.wait_event(id, "clean").await;
        until(async || topics(&instance, id).await.last().is_some_and(|t| t == "job.destroy"))
            .await;
        let expected = [
            "job.create",
            "job.validate",
            "job.dependency.abilities",
            "job.new",
            "job.state.depend",
            "job.state.priority",
            "job.state.sched",
            "job.admit",
            "job.state.run",
            "job.state.cleanup",
            "job.state.inactive",
            "job.inactive-add",
            "job.destroy",
        ];
        assert_eq!(topics(&instance, id).await, expected);
        let request = rpc::PurgeRequest { age_limit: -1.0, num_limit: 0, batch: 10, force: true };
        let _ = instance.handle.rpc::<rpc::Purge>(&request).await.unwrap();
        until(async || {
            topics(&instance, id).await.last().is_some_and(|t| t == "job.inactive-remove")
        })
        .await;
        instance.stop().await;
    });
}

#[test]
fn a_plugin_refuses_configurations_jobs_and_dependencies() {
    run(async {
        let refusing = json!({ "load": PLUGIN, "caps": CAPS, "conf": { "a": "refuse-start" } });
        let config = json!({ "job-manager": { "plugins": [refusing] } });
        let failure = match Instance::with(Options { config, ..Options::default() }).await {
            Ok(_) => panic!("it started"),
            Err(failure) => failure.to_string(),
        };
        assert!(failure.contains("not today"), "{failure}");

        let instance = instance(json!({})).await;
        assert_eq!(refused(&instance, &named("refuse-create")).await, "refused in job.create");
        assert_eq!(refused(&instance, &named("refuse-validate")).await, "refused in job.validate");
        let text = refused(&instance, &dependent("plain", "abilities", "refused")).await;
        assert_eq!(text, "a dependency to be refused");
        let text = refused(&instance, &dependent("plain", "nobody", "x")).await;
        assert!(text.contains("dependency scheme \"nobody\" not supported"), "{text}");
        instance.stop().await;
    });
}

#[test]
fn a_plugin_that_lacks_a_grant_is_not_loaded() {
    run(async {
        let config =
            json!({ "job-manager": { "plugins": [{ "load": PLUGIN, "caps": ["drain"] }] } });
        let failure = match Instance::with(Options { config, ..Options::default() }).await {
            Ok(_) => panic!("it started"),
            Err(failure) => failure.to_string(),
        };
        assert!(failure.contains("rpc:resource.status', which is not granted"), "{failure}");
    });
}

#[test]
fn a_dependency_that_is_added_or_removed_twice_is_one() {
    run(async {
        let instance = instance(json!({})).await;
        let events = events_of(&instance, &dependent("plain", "abilities", "held")).await;
        let held = json!({ "description": "held-a-moment" });
        assert_eq!(*only(&events, "dependency-add"), held);
        assert_eq!(*only(&events, "dependency-remove"), held);
        ordered(&events, &["dependency-add", "dependency-remove", "depend", "priority"]);
        instance.stop().await;
    });
}

#[test]
fn a_priority_is_given_at_once_later_or_when_it_is_asked_for_again() {
    run(async {
        let instance = instance(json!({})).await;
        for (name, priority) in
            [("priority", 77), ("unavailable", 42), ("reprioritize", 9), ("reprioritize-all", 9)]
        {
            let events = events_of(&instance, &named(name)).await;
            assert_eq!(*only(&events, "priority"), json!({ "priority": priority }), "{name}");
        }
        let events = events_of(&instance, &named("plain")).await;
        assert_eq!(*only(&events, "priority"), json!({ "priority": 16 }));
        instance.stop().await;
    });
}

#[test]
fn a_plugin_gives_resources_without_the_scheduler_and_holds_what_the_scheduler_gave() {
    run(async {
        let instance = instance(json!({})).await;
        let events = events_of(&instance, &named("bypass")).await;
        assert_eq!(only(&events, "alloc")["bypass"], true);
        ordered(&events, &["alloc", "start", "finish", "free"]);

        // A job that ends gives the one that is held another chance.
        let held = instance.submit(&named("admit")).await.unwrap();
        until(async || topics(&instance, held).await.contains(&"job.admit".to_owned())).await;
        events_of(&instance, &named("plain")).await;
        instance.wait_event(held, "clean").await;
        let asked = topics(&instance, held).await;
        assert!(asked.iter().filter(|topic| *topic == "job.admit").count() >= 2, "{asked:?}");
        let names = instance.event_names(held).await;
        assert_eq!(names.iter().filter(|name| *name == "alloc").count(), 1, "{names:?}");
        instance.stop().await;
    });
}

#[test]
fn a_plugin_raises_exceptions_posts_events_annotates_and_explains() {
    run(async {
        let instance = instance(json!({})).await;
        let events = events_of(&instance, &named("raise")).await;
        let exception = only(&events, "exception");
        assert_eq!((&exception["type"], &exception["severity"]), (&json!("abilities"), &json!(0)));
        assert!(!events.iter().any(|event| event.0 == "start"), "{events:?}");
        let events = events_of(&instance, &named("warn")).await;
        assert_eq!(only(&events, "exception")["severity"], 5);
        ordered(&events, &["exception", "start", "finish"]);

        let events = events_of(&instance, &named("post")).await;
        assert_eq!(*only(&events, "posted"), json!({ "by": "abilities" }));

        for (name, pointer, value) in [
            ("annotate", "/abilities/seen", json!(true)),
            ("explain", "/why/abilities", json!("as an example")),
        ] {
            let id = instance.submit(&timed(name, "1000s", json!({}))).await.unwrap();
            instance.wait_event(id, "start").await;
            let jobs = instance.handle.rpc::<rpc::List>(&rpc::ListRequest { max_entries: 9 });
            let job = jobs.await.unwrap().jobs.into_iter().find(|job| job.id == id).unwrap();
            assert_eq!(job.annotations.unwrap_or_default().pointer(pointer), Some(&value));
            instance.raise(id, "cancel", 0).await.unwrap();
            instance.wait_event(id, "clean").await;
        }
        instance.stop().await;
    });
}

#[test]
fn a_plugin_changes_jobspecs_and_flags() {
    run(async {
        let instance = instance(json!({})).await;
        let events = events_of(&instance, &named("update")).await;
        let update = only(&events, "jobspec-update");
        assert_eq!(*update, json!({ "attributes.system.duration": 3600 }));
        let events = events_of(&instance, &named("flag")).await;
        assert_eq!(*only(&events, "set-flags"), json!({ "flags": ["waitable"] }));
        instance.stop().await;
    });
}

#[test]
fn a_plugin_decides_about_updates_key_by_key() {
    run(async {
        let instance = instance(json!({})).await;
        let id = instance.submit_with(&named("plain"), 0, 0).await.unwrap();
        instance.wait_event(id, "priority").await;
        let update = async |key: &str, value: &str| {
            let updates = Object::from_iter([(key.to_owned(), json!(value))]);
            let request = rpc::UpdateRequest { id, updates };
            let updated = instance.handle.rpc::<rpc::Update>(&request).await;
            updated.map(drop).map_err(|failure| (failure.errno, failure.text.unwrap_or_default()))
        };
        const KEY: &str = "attributes.system.custom";
        update(KEY, "more").await.unwrap();
        let event = instance.wait_event(id, "jobspec-update").await;
        let context: Value = event.context_as().unwrap();
        assert_eq!(context, json!({ KEY: "more", "attributes.system.more": 1 }));
        let told = topics(&instance, id).await;
        assert_eq!(told.iter().filter(|topic| *topic == "job.validate").count(), 1, "{told:?}");
        assert_eq!(told.last().map(String::as_str), Some("job.update"));

        update(KEY, "judged").await.unwrap();
        let told = topics(&instance, id).await;
        assert_eq!(told.iter().filter(|topic| *topic == "job.validate").count(), 2, "{told:?}");
        let (_, text) = update(KEY, "nowhere").await.unwrap_err();
        assert!(text.contains("unsatisfiable"), "{text}");
        let refusal = (Errno::EPERM, "an update to be refused".to_owned());
        assert_eq!(update(KEY, "refused").await, Err(refusal));
        let (_, text) = update(KEY, "not for it").await.unwrap_err();
        assert_eq!(text, format!("update of {KEY} not supported"));
        let (_, text) = update("attributes.system.nobody", "x").await.unwrap_err();
        assert_eq!(text, "update of attributes.system.nobody not supported");
        instance.raise(id, "cancel", 0).await.unwrap();
        instance.wait_event(id, "clean").await;
        instance.stop().await;
    });
}

#[test]
fn a_plugin_hears_of_events_of_jobs_that_it_subscribed_to_and_no_others() {
    run(async {
        let instance = instance(json!({})).await;
        let id = instance.submit(&named("subscribe")).await.unwrap();
        instance.wait_event(id, "clean").await;
        let told = topics(&instance, id).await;
        let heard = |name: &str| told.contains(&format!("job.event.{name}"));
        assert!(heard("alloc") && heard("start"), "{told:?}");
        assert!(!heard("finish"), "after it had unsubscribed: {told:?}");
        assert!(instance.event_names(id).await.contains(&"heard".to_owned()));
        let id = instance.submit(&named("plain")).await.unwrap();
        instance.wait_event(id, "clean").await;
        let told = topics(&instance, id).await;
        assert!(!told.iter().any(|topic| topic.starts_with("job.event.")), "{told:?}");
        instance.stop().await;
    });
}

#[test]
fn a_job_starts_after_the_prolog_of_a_plugin_and_is_freed_after_its_epilog() {
    run(async {
        let instance = instance(json!({})).await;
        let events = events_of(&instance, &named("prolog")).await;
        ordered(&events, &["alloc", "prolog-start", "prolog-finish", "start", "finish"]);
        assert_eq!(only(&events, "prolog-finish")["description"], "warm-up");
        let events = events_of(&instance, &named("epilog")).await;
        ordered(&events, &["finish", "epilog-start", "epilog-finish", "free", "clean"]);
        assert_eq!(only(&events, "epilog-finish")["status"], 0);
        instance.stop().await;
    });
}

#[test]
fn a_plugin_looks_up_jobs_which_are_without_their_environment() {
    run(async {
        let instance = instance(json!({})).await;
        let events = events_of(&instance, &named("look")).await;
        let expected = json!({
            "result": "Some(JobResult::Completed)", "end": "finish", "resources": true,
            "started": true, "cwd": true, "environment": false, "unknown": false,
        });
        assert_eq!(*only(&events, "looked"), expected);
        instance.stop().await;
    });
}

#[test]
fn a_plugin_has_timers_counters_and_a_log() {
    run(async {
        let instance = instance(json!({})).await;
        let id = instance.submit(&timed("tick", "1000s", json!({}))).await.unwrap();
        let ticked = instance.wait_event(id, "ticked").await;
        assert_eq!(ticked.context_as::<Value>().unwrap(), json!({ "times": 3 }));
        instance.raise(id, "cancel", 0).await.unwrap();
        instance.wait_event(id, "clean").await;
        events_of(&instance, &named("count")).await;
        let stats = query(&instance).await;
        let metrics = stats.to_string();
        assert!(metrics.contains("\"jobs\":2.0") && metrics.contains("\"level\":0.5"), "{stats}");
        let id = instance.submit(&named("log")).await.unwrap();
        instance.wait_event(id, "clean").await;
        let line = format!("abilities.info[0]: job {} is seen", id.0);
        let mut log = instance.log_lines();
        until(async || !log.is_empty()).await;
        log.retain(|logged| logged.contains(&line));
        assert_eq!(log.len(), 1, "{log:?}");
        instance.stop().await;
    });
}

#[test]
fn a_plugin_with_grants_reaches_beyond_jobs() {
    run(async {
        let instance = instance(json!({})).await;
        let (failed, ok) = (json!({ "errnum": Errno::ENOSYS.0 }), json!({ "errnum": 0 }));
        let refused = json!({ "errnum": Errno::EPERM.0 });
        for (name, event, context) in [
            ("rpc", "answered", ok.clone()),
            ("rpc-nowhere", "answered", failed),
            ("rpc-refused", "answered", refused),
            ("kvs", "answered", ok),
            ("publish", "published", json!({})),
            ("call", "called", json!({ "a": 1 })),
            ("exec", "command-done", json!({ "status": 768 })),
        ] {
            let id = instance.submit(&timed(name, "1000s", json!({}))).await.unwrap();
            let found = instance.wait_event(id, event).await;
            assert_eq!(found.context_as::<Value>().unwrap(), context, "{name}");
            instance.raise(id, "cancel", 0).await.unwrap();
            instance.wait_event(id, "clean").await;
        }
        events_of(&instance, &named("drain")).await;
        until(async || {
            let status = instance.handle.rpc::<resource::Status>(&Empty).await.unwrap();
            status.drain.get("3").is_some_and(|info| info.reason == "an example")
        })
        .await;
        instance.stop().await;
    });
}

#[test]
fn a_plugin_answers_requests_at_once_or_later_or_refuses_them() {
    run(async {
        let instance = instance(json!({})).await;
        for method in ["echo", "hello"] {
            assert_eq!(ask(&instance, method).await, Ok(json!({ "echo": { "a": 1 } })));
        }
        assert_eq!(ask(&instance, "late").await, Ok(json!({ "late": true })));
        assert_eq!(ask(&instance, "refuse").await, Err(Errno::EPERM));
        assert_eq!(ask(&instance, "unheard-of").await, Err(Errno::ENOSYS));
        instance.stop().await;
    });
}

/// Whatever topic it breaks in, the job ends as the policy says and nobody else is concerned.
#[test]
fn a_plugin_that_panics_in_any_topic_costs_what_its_policy_says_and_no_more() {
    run(async {
        let entry = json!({ "on-fault": "skip", "max-faults": 100 });
        let instance = instance(entry).await;
        for topic in [
            "job.create",
            "job.validate",
            "job.new",
            "job.state.depend",
            "job.state.priority",
            "job.state.sched",
            "job.admit",
            "job.state.run",
            "job.state.cleanup",
            "job.state.inactive",
            "job.inactive-add",
        ] {
            instance.log_lines();
            rearm(&instance).await;
            let events = events_of(&instance, &named(&format!("panic in {topic}"))).await;
            ordered(&events, &["priority", "alloc", "start", "finish", "clean"]);
            let fault = format!("plugin abilities panicked in {topic}: ");
            let mut log = Vec::new();
            let seen = std::cell::RefCell::new(&mut log);
            // When it starts again it is told of the job again, and may well panic again; each
            // time both the plugin and its host say so, one after the other.
            until(async || {
                let mut seen = seen.borrow_mut();
                seen.extend(instance.log_lines());
                let count = |source: &str, text: &str| {
                    let said = |line: &&String| line.starts_with(source) && line.contains(text);
                    seen.iter().filter(said).count()
                };
                let panics = count("abilities.crit[0]", "panicked at");
                count("abilities.err[0]", &fault) > 0
                    && count("abilities.err[0]", "plugin abilities panicked in ") == panics
            })
            .await;
            assert!(!log.iter().any(|line| line.starts_with("job-manager.err")), "{log:?}");
            // Of a priority that could not be asked for, the job has a note; that may be since a
            // callback panicked that the plugin was called with at the same time.
            let several = "plugin abilities panicked in several callbacks: ";
            let exceptions: Vec<_> = events.iter().filter(|event| event.0 == "exception").collect();
            for (_, exception) in &exceptions {
                assert_eq!(exception["type"], "abilities");
                assert_eq!(exception["severity"], 4);
                let note = exception["note"].as_str().unwrap();
                let own = topic == "job.state.priority" && note.starts_with(&fault);
                assert!(own || note.starts_with(several), "{events:?}");
            }
            if topic == "job.state.priority" {
                assert_eq!(exceptions.len(), 1, "{events:?}");
                assert_eq!(*only(&events, "priority"), json!({ "priority": 16 }));
            }
        }
        instance.stop().await;
    });
}

#[test]
fn a_plugin_that_panics_when_it_is_only_told_of_a_job_does_not_keep_it_out() {
    run(async {
        let instance = instance(json!({ "max-faults": 100 })).await;
        let events = events_of(&instance, &named("panic in job.new")).await;
        ordered(&events, &["validate", "priority", "alloc", "start", "finish", "clean"]);
        rearm(&instance).await;
        let text = refused(&instance, &named("panic in job.validate")).await;
        assert!(text.starts_with("plugin abilities panicked in job.validate: "), "{text}");
        instance.stop().await;
    });
}

async fn rearm(instance: &Instance) {
    let request = rpc::NameRequest { name: NAME.to_owned() };
    instance.handle.rpc::<rpc::JobtapRearm>(&request).await.unwrap();
}
