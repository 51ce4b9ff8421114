//! What plugins are told of jobs, what becomes of jobs when plugins fault, and what jobs are told
//! of why they wait.

use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::job_manager as rpc;
use flux_protocol::rpc::resource;
use serde_json::{Value, json};

use crate::instance::{Instance, Options, PATIENCE, jobspec_of, run, simulated};

const TRACER: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist/fixtures/fixture-jobtap.wasm");
const MF_PRIORITY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist/mf_priority.wasm");
const NAME: &str = "fixture-jobtap.wasm";

async fn with_tracer(more: Value) -> Instance {
    let mut config = json!({ "job-manager": { "plugins": [{ "load": TRACER, "max-faults": 2 }] } });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Instance::with(Options { config, ..Options::default() }).await.unwrap()
}

/// A job that the tracer knows what to do with.
fn named(name: &str, slots: u64) -> Value {
    let exec = json!({ "test": { "run_duration": "0.001s" } });
    jobspec_of(&["simulated"], slots, json!({ "exec": exec, "job": { "name": name } }))
}

async fn refused(instance: &Instance, jobspec: &Value) -> String {
    let failure = instance.submit(jobspec).await.unwrap_err();
    assert_eq!(failure.errno, Errno::EINVAL);
    failure.text.unwrap_or_default()
}

async fn query(instance: &Instance, key: &str) -> Value {
    let request = rpc::NameRequest { name: NAME.to_owned() };
    instance.handle.rpc::<rpc::JobtapQuery>(&request).await.unwrap()[key].clone()
}

async fn down(instance: &Instance) -> Object {
    let request = rpc::JobtapRequest { query_only: Some(true), ..rpc::JobtapRequest::default() };
    instance.handle.rpc::<rpc::Jobtap>(&request).await.unwrap().down
}

#[test]
fn a_job_that_a_plugin_refuses_is_not_told_of_to_the_others_and_new_to_none() {
    run(async {
        let policy = json!({ "limits": { "job-size": { "max": { "ncores": 1 } } } });
        let instance = with_tracer(json!({ "policy": policy })).await;
        assert_eq!(refused(&instance, &named("refuse", 1)).await, "refused as asked");
        let text = refused(&instance, &named("plain", 2)).await;
        assert!(text.starts_with("requested ncores (2)"), "{text}");
        let trace = query(&instance, "trace").await;
        let trace: Vec<&str> = trace.as_str().unwrap().split(',').collect();
        // The builtin plugin that limits sizes stands before the tracer.
        assert!(trace.len() == 2 && trace.iter().all(|call| call.starts_with("create:")));
        let id = instance.submit(&named("plain", 1)).await.unwrap();
        instance.wait_event(id, "clean").await;
        let trace = query(&instance, "trace").await;
        let order = ["create", "validate", "new"].map(|call| format!("{call}:{}", id.0)).join(",");
        assert!(trace.as_str().unwrap().contains(&order), "{trace}");
        instance.stop().await;
    });
}

#[test]
fn what_a_plugin_could_not_judge_is_refused_until_it_is_quarantined_and_rearmed() {
    run(async {
        let instance = with_tracer(json!({})).await;
        for _ in 0..2 {
            let text = refused(&instance, &named("panic", 1)).await;
            assert!(text.starts_with("plugin tracer panicked in job.create"), "{text}");
            if down(&instance).await == Object::new() {
                continue;
            }
            // It is up again for the next one, or not to be waited for any more.
            let id = instance.submit(&named("plain", 1)).await.unwrap();
            instance.wait_event(id, "clean").await;
        }
        assert_eq!(down(&instance).await.get(NAME), Some(&json!("quarantined")));
        let id = instance.submit(&named("panic", 1)).await.unwrap();
        instance.wait_event(id, "clean").await;
        let rearm = |name: &str| rpc::NameRequest { name: name.to_owned() };
        let unknown = instance.handle.rpc::<rpc::JobtapRearm>(&rearm("nobody")).await;
        assert_eq!(unknown.unwrap_err().errno, Errno::ENOENT);
        instance.handle.rpc::<rpc::JobtapRearm>(&rearm(NAME)).await.unwrap();
        assert_eq!(down(&instance).await, Object::new());
        refused(&instance, &named("refuse", 1)).await;
        instance.stop().await;
    });
}

#[test]
fn a_job_is_told_why_it_waits_for_as_long_as_it_does() {
    run(async {
        let instance = Instance::start().await;
        let long = json!({ "exec": { "test": { "run_duration": "1000s" } } });
        let first = instance.submit(&jobspec_of(&["simulated"], 8, long)).await.unwrap();
        instance.wait_event(first, "start").await;
        let second = instance.submit(&simulated("1000s")).await.unwrap();
        let reason = until(&instance, second, |reason| !reason.is_null()).await;
        assert_eq!(reason, json!("needs 1 slot(s) of 1 core(s), 0 of 8 are free"));
        instance.raise(first, "cancel", 0).await.unwrap();
        instance.wait_event(second, "start").await;
        until(&instance, second, Value::is_null).await;
        instance.stop().await;
    });
}

/// Wait until the reason for which a job waits is such.
async fn until(instance: &Instance, id: JobId, is: impl Fn(&Value) -> bool) -> Value {
    let look = async {
        loop {
            let request = rpc::ListRequest { max_entries: 100 };
            let jobs = instance.handle.rpc::<rpc::List>(&request).await.unwrap().jobs;
            let job = jobs.into_iter().find(|job| job.id == id).unwrap();
            let annotations = job.annotations.unwrap_or_default();
            let reason = annotations.pointer("/sched/reason_pending").cloned().unwrap_or_default();
            if is(&reason) {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap()
}

#[test]
fn the_owner_adds_events_to_jobs_that_are_active() {
    run(async {
        let instance = Instance::start().await;
        let id = instance.submit_with(&simulated("0.001s"), 0, 0).await.unwrap();
        let post = |id, name: &str| rpc::PostEventRequest {
            id,
            name: name.to_owned(),
            context: Some(Object::from_iter([("key".to_owned(), json!(1))])),
        };
        instance.handle.rpc::<rpc::PostEvent>(&post(id, "mine")).await.unwrap();
        let event = instance.wait_event(id, "mine").await;
        assert_eq!(event.context.unwrap().get(), r#"{"key":1}"#);
        let unknown = instance.handle.rpc::<rpc::PostEvent>(&post(JobId(1), "mine")).await;
        assert_eq!(unknown.unwrap_err().errno, Errno::ENOENT);
        instance.stop().await;
    });
}

#[test]
fn a_job_may_not_outlive_the_instance() {
    run(async {
        let instance = Instance::start().await;
        let expiration = instance.now() + 3600.0;
        let request = resource::ExpirationRequest { expiration };
        let _: Empty = instance.handle.rpc::<resource::ExpirationUpdate>(&request).await.unwrap();
        let told = async {
            while !instance.log_lines().iter().any(|line| line.contains("the instance ends at")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap();
        let mut long = simulated("0.001s");
        long["attributes"]["system"]["duration"] = json!(7200);
        let text = refused(&instance, &long).await;
        assert!(
            text.starts_with("job duration (2h) exceeds remaining instance lifetime"),
            "{text}"
        );
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(id, "clean").await;
        instance.stop().await;
    });
}

/// `mf_priority` has no data of the accounting here, so every job waits for it.
#[test]
fn jobs_that_wait_for_a_priority_go_on_when_the_plugin_is_removed() {
    run(async {
        let plugins = json!({ "plugins": [{ "load": MF_PRIORITY }] });
        let config = json!({ "job-manager": plugins });
        let instance = Instance::with(Options { config, ..Options::default() }).await.unwrap();
        let plain = instance.submit(&simulated("0.001s")).await.unwrap();
        let raised = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(raised, "depend").await;
        let urgency = rpc::UrgencyRequest { id: raised, urgency: 31 };
        instance.handle.rpc::<rpc::Urgency>(&urgency).await.unwrap();
        instance.wait_event(raised, "clean").await;
        assert_eq!(instance.event_names(plain).await.last().unwrap(), "depend");
        let remove = Some("mf_priority.wasm".to_owned());
        let request = rpc::JobtapRequest { remove, ..rpc::JobtapRequest::default() };
        let handle = &instance.handle;
        let mut removed =
            handle.send::<rpc::Jobtap>(Nodeid::ANY, Flags::default(), &request).unwrap();
        assert_eq!(removed.next_raw().await.unwrap(), None);
        let priority = instance.wait_event(plain, "priority").await;
        assert_eq!(serde_json::to_value(&priority.context).unwrap()["priority"], 16);
        instance.wait_event(plain, "clean").await;
        instance.stop().await;
    });
}
