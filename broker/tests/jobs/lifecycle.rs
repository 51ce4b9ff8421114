//! What happens to a job, event by event.

use std::collections::BTreeMap;
use std::time::Duration;

use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::Object;
use flux_protocol::rpc::{job_ingest, job_manager};
use serde_json::{Value, json};

use crate::instance::{Instance, jobspec_of, run, simulated};

const PLAIN: [&str; 10] = [
    "submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free",
    "clean",
];

#[test]
fn a_plain_job_has_the_events_of_rfc_21_in_order() {
    run(async {
        let instance = Instance::start().await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(id, "clean").await;
        assert_eq!(instance.event_names(id).await, PLAIN);
        let events = instance.events(id).await;
        assert!(events.is_sorted_by_key(|event| event.timestamp));
        instance.stop().await;
    });
}

#[test]
fn a_job_with_the_debug_flag_tells_when_requests_were_sent() {
    run(async {
        let instance = Instance::start().await;
        let id = instance.submit_with(&simulated("0.001s"), 16, 14).await.unwrap();
        instance.wait_event(id, "clean").await;
        let mut expected = PLAIN.to_vec();
        expected.insert(4, "debug.alloc-request");
        expected.insert(6, "debug.start-request");
        assert_eq!(instance.event_names(id).await, expected);
        instance.stop().await;
    });
}

#[test]
fn a_job_with_the_debug_flag_tells_that_its_execution_service_is_gone() {
    run(async {
        let mut instance = Instance::start().await;
        let debugged = instance.submit_with(&simulated("1h"), 16, 2).await.unwrap();
        let plain = instance.submit(&simulated("1h")).await.unwrap();
        instance.wait_event(debugged, "start").await;
        instance.wait_event(plain, "start").await;
        instance.unload("job-exec").await;
        let lost = instance.wait_event(debugged, "debug.start-lost").await;
        assert_eq!(lost.context_as::<Object>().unwrap()["note"], "disconnect");
        assert!(!instance.event_names(plain).await.iter().any(|name| name.starts_with("debug")));
        instance.stop().await;
    });
}

#[test]
fn a_held_job_is_never_allocated_and_its_end_needs_no_resources() {
    run(async {
        let instance = Instance::start().await;
        let id = instance.submit_with(&simulated("0.001s"), 0, 0).await.unwrap();
        instance.wait_event(id, "priority").await;
        let other = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(other, "clean").await;
        instance.raise(id, "cancel", 0).await.unwrap();
        instance.wait_event(id, "clean").await;
        let expected = ["submit", "validate", "depend", "priority", "exception", "clean"];
        assert_eq!(instance.event_names(id).await, expected);
        instance.stop().await;
    });
}

#[test]
fn jobs_start_in_the_order_of_their_priority() {
    run(async {
        let instance = Instance::start().await;
        let start = |start| job_manager::QueueStartRequest {
            start,
            all: false,
            nocheckpoint: false,
            name: None,
            reason: None,
        };
        instance.handle.rpc::<job_manager::QueueStart>(&start(false)).await.unwrap();
        let whole = json!({ "exec": { "test": { "run_duration": "0.001s" } } });
        let mut ids = Vec::new();
        for urgency in [10, 20, 15] {
            // All eight cores, so that they run one after the other.
            let spec = jobspec_of(&["simulated"], 8, whole.clone());
            ids.push(instance.submit_with(&spec, urgency, 0).await.unwrap());
        }
        for id in &ids {
            instance.wait_event(*id, "priority").await;
        }
        instance.handle.rpc::<job_manager::QueueStart>(&start(true)).await.unwrap();
        let mut started = Vec::new();
        for id in ids {
            started.push((instance.wait_event(id, "alloc").await.timestamp, id));
        }
        assert!(started[1].0 < started[2].0 && started[2].0 < started[0].0, "{started:?}");
        instance.stop().await;
    });
}

/// Captured jobs whose course depends on neither a shell nor a second broker, and how they are
/// made here.
const CAPTURED: &[(&str, Course)] = &[
    ("success", Course::Ends(0)),
    ("fail-rc", Course::Ends(1792)),
    ("cancel-pending", Course::CanceledWhileHeld),
    ("cancel-running", Course::CanceledWhileRunning),
    ("exception-nonfatal", Course::Noted),
    ("timeout", Course::TimesOut),
    ("memo", Course::Memo),
    ("urgency", Course::Released),
    ("update-pending", Course::UpdatedWhileHeld),
    ("update-running", Course::UpdatedWhileRunning),
    ("waitable-debug", Course::Debugged),
    ("dependency-afterok", Course::AfterOk),
    ("dependency-fail", Course::AfterFailure),
    ("begin-time", Course::BeginsLater),
];

/// So long that something can be done to a job while it runs.
const LASTING: &str = "8s";

#[derive(Clone, Copy)]
enum Course {
    Ends(i32),
    CanceledWhileHeld,
    CanceledWhileRunning,
    Noted,
    TimesOut,
    Memo,
    Released,
    UpdatedWhileHeld,
    UpdatedWhileRunning,
    Debugged,
    AfterOk,
    AfterFailure,
    BeginsLater,
}

#[test]
fn captured_jobs_have_the_same_events_with_the_same_contexts_here() {
    run(async {
        let instance = Instance::start().await;
        let mut differences = Vec::new();
        let mut ids = Vec::new();
        for (name, course) in CAPTURED {
            ids.push((name, follow(&instance, *course).await));
        }
        for (name, id) in ids {
            instance.wait_event(id, "clean").await;
            let ours: Vec<String> = instance.events(id).await.iter().map(shown).collect();
            let theirs = captured(name);
            if ours != theirs {
                differences.push(format!("{name}:\n  captured {theirs:?}\n  now      {ours:?}"));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        instance.stop().await;
    });
}

/// Name, and the keys of the context; the values of those that do not differ from run to run.
fn shown(event: &Event) -> String {
    let context = event.context.as_ref().map_or("{}", |context| context.get());
    let context: BTreeMap<String, Value> = serde_json::from_str(context).unwrap();
    let constant = ["type", "severity", "final", "ranks", "urgency", "priority", "version"];
    let shown = context.iter().map(|(key, value)| match constant.contains(&key.as_str()) {
        true => format!("{key}={value}"),
        false => key.clone(),
    });
    format!("{} {}", event.name, shown.collect::<Vec<_>>().join(" ")).trim_end().to_owned()
}

fn captured(name: &str) -> Vec<String> {
    let path = format!("{}/../tests/vectors/jobs/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let job: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let log = job["kvs"]["eventlog"].as_array().unwrap().iter();
    log.map(|event| shown(&Event::decode(&event.to_string()).unwrap())).collect()
}

async fn follow(instance: &Instance, course: Course) -> JobId {
    let test = |test: Value| json!({ "exec": { "test": test } });
    let one = |system: Value| jobspec_of(&["simulated"], 1, system);
    let brief = || one(test(json!({ "run_duration": "0.001s" })));
    let with = |key: &str, value: Value| {
        let mut spec = brief();
        spec["attributes"]["system"][key] = value;
        spec
    };
    let submit = async |spec: Value| instance.submit(&spec).await.unwrap();
    let held = async |spec: Value| {
        let id = instance.submit_with(&spec, 0, 0).await.unwrap();
        instance.wait_event(id, "priority").await;
        id
    };
    let running = async |spec: Value| {
        let id = instance.submit(&spec).await.unwrap();
        instance.wait_event(id, "start").await;
        id
    };
    let cancel = async |id| instance.raise(id, "cancel", 0).await.unwrap();
    match course {
        Course::Ends(status) => {
            submit(one(test(json!({ "run_duration": "0.001s", "wait_status": status })))).await
        }
        Course::CanceledWhileHeld => {
            let id = held(brief()).await;
            cancel(id).await;
            id
        }
        Course::CanceledWhileRunning => {
            let id = running(simulated("1h")).await;
            cancel(id).await;
            id
        }
        Course::Noted => {
            let id = running(simulated(LASTING)).await;
            instance.raise(id, "foo", 1).await.unwrap();
            id
        }
        Course::TimesOut => {
            let mut spec = simulated("1h");
            spec["attributes"]["system"]["duration"] = json!(0.2);
            submit(spec).await
        }
        Course::Memo => {
            let id = running(simulated(LASTING)).await;
            note(instance, id).await;
            id
        }
        Course::Released => {
            let id = held(brief()).await;
            urgency(instance, id, 20).await;
            id
        }
        Course::UpdatedWhileHeld => {
            let id = held(with("duration", json!(60.0))).await;
            update(instance, id, 300.0).await;
            urgency(instance, id, 16).await;
            id
        }
        Course::UpdatedWhileRunning => {
            let mut spec = simulated(LASTING);
            spec["attributes"]["system"]["duration"] = json!(600.0);
            let id = running(spec).await;
            update(instance, id, 660.0).await;
            id
        }
        Course::Debugged => instance.submit_with(&brief(), 16, 14).await.unwrap(),
        Course::AfterOk | Course::AfterFailure => {
            let first = held(brief()).await;
            after(instance, first, brief(), matches!(course, Course::AfterOk)).await
        }
        Course::BeginsLater => {
            let soon = instance.now() + 0.3;
            let begin = json!([{ "scheme": "begin-time", "value": format!("{soon:.3}") }]);
            submit(with("dependencies", begin)).await
        }
    }
}

async fn update(instance: &Instance, id: JobId, duration: f64) {
    let updates = Object::from_iter([("attributes.system.duration".to_owned(), json!(duration))]);
    let request = job_manager::UpdateRequest { id, updates };
    instance.handle.rpc::<job_manager::Update>(&request).await.unwrap();
}

async fn urgency(instance: &Instance, id: JobId, urgency: i64) {
    let request = job_manager::UrgencyRequest { id, urgency };
    instance.handle.rpc::<job_manager::Urgency>(&request).await.unwrap();
}

async fn note(instance: &Instance, id: JobId) {
    let memo = Object::from_iter([("a".to_owned(), json!(1)), ("b".to_owned(), json!("foo"))]);
    let request = job_manager::MemoRequest { id, memo, volatile: false };
    instance.handle.rpc::<job_manager::Memo>(&request).await.unwrap();
    let context = Some(Object::from_iter([("x".to_owned(), json!(2))]));
    let post = job_manager::PostEventRequest { id, name: "myevent".to_owned(), context };
    instance.handle.rpc::<job_manager::PostEvent>(&post).await.unwrap();
}

/// A job that waits for another one, which is held: let that one run, or cancel it.
async fn after(instance: &Instance, first: JobId, mut spec: Value, lets_run: bool) -> JobId {
    let after = json!([{ "scheme": "afterok", "value": first.f58() }]);
    spec["attributes"]["system"]["dependencies"] = after;
    let id = instance.submit(&spec).await.unwrap();
    instance.wait_event(id, "validate").await;
    match lets_run {
        true => urgency(instance, first, 16).await,
        false => instance.raise(first, "cancel", 0).await.unwrap(),
    }
    id
}

#[test]
fn a_waitable_job_that_has_ended_is_listed_until_somebody_has_waited_for_it() {
    run(async {
        let instance = Instance::start().await;
        let flags = job_ingest::flags::WAITABLE.into();
        let id = instance.submit_with(&simulated("0.001s"), 16, flags).await.unwrap();
        let plain = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(id, "clean").await;
        instance.wait_event(plain, "clean").await;
        let listed = async || -> Vec<JobId> {
            let request = job_manager::ListRequest { max_entries: 0 };
            let list = instance.handle.rpc::<job_manager::List>(&request).await.unwrap();
            list.jobs.iter().map(|job| job.id).collect()
        };
        // What was written last may still be on its way.
        while listed().await != [id] {
            tokio::task::yield_now().await;
        }
        let request = job_manager::WaitRequest { id: i64::try_from(id.0).unwrap() };
        instance.handle.rpc::<job_manager::Wait>(&request).await.unwrap();
        assert!(listed().await.is_empty());
        instance.stop().await;
    });
}

/// Whoever waits may come at any moment of the job's end, of which plugins hear first.
#[test]
fn a_job_that_was_canceled_can_be_waited_for_at_once() {
    run(async {
        let instance = Instance::start().await;
        let flags = job_ingest::flags::WAITABLE.into();
        for moment in 0..60 {
            let id = instance.submit_with(&simulated("1h"), 16, flags).await.unwrap();
            instance.raise(id, "cancel", 0).await.unwrap();
            tokio::time::sleep(Duration::from_micros(50 * moment)).await;
            let request = job_manager::WaitRequest { id: i64::try_from(id.0).unwrap() };
            let ended = instance.handle.rpc::<job_manager::Wait>(&request).await.unwrap();
            assert!(ended.id == id && !ended.success, "{ended:?}");
        }
        instance.stop().await;
    });
}

#[test]
fn urgency_counts_for_jobs_that_the_scheduler_has_already() {
    run(async {
        let instance = Instance::start().await;
        let exec = json!({ "exec": { "test": { "run_duration": "1h" } } });
        let whole = jobspec_of(&["simulated"], 8, exec);
        let flags = job_ingest::flags::DEBUG.into();
        let submit = async || instance.submit_with(&whole, 16, flags).await.unwrap();
        let running = submit().await;
        instance.wait_event(running, "start").await;
        let [held, second, urgent] = [submit().await, submit().await, submit().await];
        let sent = async |id: JobId, times: usize| {
            loop {
                let names = instance.event_names(id).await;
                let requests = names.iter().filter(|name| *name == "debug.alloc-request");
                if requests.count() >= times {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        sent(urgent, 1).await;
        let urgency = async |id: JobId, urgency: i64| {
            let request = job_manager::UrgencyRequest { id, urgency };
            instance.handle.rpc::<job_manager::Urgency>(&request).await.unwrap();
        };
        urgency(held, 0).await;
        urgency(urgent, 31).await;
        sent(urgent, 2).await;
        instance.raise(running, "cancel", 0).await.unwrap();
        instance.wait_event(urgent, "start").await;
        instance.raise(urgent, "cancel", 0).await.unwrap();
        instance.wait_event(second, "start").await;
        instance.raise(second, "cancel", 0).await.unwrap();
        instance.wait_event(second, "clean").await;
        // All is free, and somebody else may have it.
        let other = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(other, "clean").await;
        let names = instance.event_names(held).await;
        assert!(!names.contains(&"alloc".to_owned()), "{names:?}");
        urgency(held, 16).await;
        instance.wait_event(held, "start").await;
        instance.stop().await;
    });
}
