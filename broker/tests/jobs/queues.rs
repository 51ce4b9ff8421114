//! Named queues, and virtual ones that are scheduled as a part of another (RFC 33).

use flux_protocol::fluid::JobId;
use flux_protocol::rpc::job_manager as rpc;
use flux_protocol::rpc::{job_info, job_ingest, job_list, resource};
use serde_json::{Value, json};

use crate::instance::{Instance, Options, jobspec_of, run, simulated};

async fn with_queues() -> Instance {
    let config = json!({ "queues": { "batch": {}, "night": { "parent": "batch" } } });
    Instance::with(Options { config, ..Options::default() }).await.unwrap()
}

async fn start(instance: &Instance, queue: &str, start: bool) {
    let request = rpc::QueueStartRequest {
        start,
        all: false,
        nocheckpoint: false,
        name: Some(queue.to_owned()),
        reason: None,
    };
    instance.handle.rpc::<rpc::QueueStart>(&request).await.unwrap();
}

async fn status(instance: &Instance, queue: &str) -> Value {
    let request = rpc::QueueStatusRequest { name: Some(queue.to_owned()) };
    let status = instance.handle.rpc::<rpc::QueueStatus>(&request).await.unwrap();
    serde_json::to_value(status).unwrap()
}

async fn submit(instance: &Instance, queue: &str) -> JobId {
    let exec = json!({ "test": { "run_duration": "0.001s" } });
    let spec = jobspec_of(&["simulated"], 1, json!({ "exec": exec, "queue": queue }));
    instance.submit(&spec).await.unwrap()
}

async fn listed(instance: &Instance, queue: &str) -> Vec<u64> {
    let request = job_list::ListRequest {
        max_entries: 0,
        attrs: Vec::new(),
        since: 0.0,
        constraint: Some(json!({ "queue": [queue] })),
        legacy: None,
    };
    let response = instance.handle.rpc::<job_list::List>(&request).await.unwrap();
    response.jobs.iter().map(|job| job["id"].as_u64().unwrap()).collect()
}

#[test]
fn a_virtual_queue_is_scheduled_when_its_parent_is_as_well() {
    run(async {
        let instance = with_queues().await;
        start(&instance, "night", true).await;
        let blocked = json!({
            "enable": true,
            "start": false,
            "blocked": "parent",
            "parent": "batch",
            "stop_reason": "parent queue 'batch' is stopped",
        });
        assert_eq!(status(&instance, "night").await, blocked);
        let id = submit(&instance, "night").await;
        instance.wait_event(id, "priority").await;
        let other = submit(&instance, "batch").await;
        instance.wait_event(other, "priority").await;
        // Both were looked at by now: whoever can be scheduled is sent at once.
        let query = instance.handle.rpc::<rpc::AllocQuery>(&flux_protocol::payload::Empty);
        let query = query.await.unwrap();
        assert_eq!((query.queue_length, query.alloc_pending), (0, 0));

        start(&instance, "batch", true).await;
        instance.wait_event(id, "clean").await;
        instance.wait_event(other, "clean").await;
        let started = json!({ "enable": true, "start": true, "parent": "batch" });
        assert_eq!(status(&instance, "night").await, started);

        // Jobs of the virtual queue are the parent's, but not the other way round. Which of the two
        // ended last, and comes first, is not known: they ran side by side.
        let mut of_parent = listed(&instance, "batch").await;
        of_parent.sort_unstable();
        assert_eq!(of_parent, [id.0, other.0]);
        assert_eq!(listed(&instance, "night").await, [id.0]);
        instance.stop().await;
    });
}

#[test]
fn jobs_of_a_virtual_queue_come_back_from_the_scheduler_when_the_parent_is_stopped() {
    run(async {
        let instance = with_queues().await;
        start(&instance, "night", true).await;
        start(&instance, "batch", true).await;
        // The eight cores are taken, and one more job waits at the scheduler.
        let long = jobspec_of(
            &["simulated"],
            8,
            json!({ "exec": { "test": { "run_duration": "1h" } }, "queue": "batch" }),
        );
        let long = instance.submit(&long).await.unwrap();
        instance.wait_event(long, "start").await;
        let waits = submit(&instance, "night").await;
        instance.wait_event(waits, "priority").await;
        start(&instance, "batch", false).await;
        instance.raise(long, "cancel", 0).await.unwrap();
        instance.wait_event(long, "clean").await;
        let names = instance.event_names(waits).await;
        assert_eq!(names.last().map(String::as_str), Some("priority"), "{names:?}");
        start(&instance, "batch", true).await;
        instance.wait_event(waits, "clean").await;
        instance.stop().await;
    });
}

/// A job that holds these ranks or waits for them.
async fn bound(instance: &Instance, queue: &str, ranks: &str, urgency: i64) -> JobId {
    let system = json!({
        "exec": { "test": { "run_duration": "1h" } },
        "queue": queue,
        "constraints": { "ranks": [ranks] },
    });
    let spec = jobspec_of(&["simulated"], 2, system);
    let id = instance.submit_with(&spec, urgency, job_ingest::flags::DEBUG.into()).await.unwrap();
    instance.wait_event(id, "priority").await;
    id
}

#[test]
fn queues_share_the_few_requests_that_the_table_lets_the_scheduler_have() {
    run(async {
        let config = json!({
            "queues": { "batch": {}, "debug": {}, "night": {} },
            "sched-simple": { "mode": "limited=3" },
        });
        let instance = Instance::with(Options { config, ..Options::default() }).await.unwrap();
        for queue in ["batch", "debug", "night"] {
            start(&instance, queue, true).await;
        }
        let holds = bound(&instance, "batch", "0", 16).await;
        instance.wait_event(holds, "start").await;
        let mut firsts = Vec::new();
        for queue in ["batch", "debug", "night"] {
            for place in 0..4 {
                let id = bound(&instance, queue, "0", 16).await;
                if place == 0 {
                    firsts.push(id);
                }
            }
        }
        for id in firsts {
            instance.wait_event(id, "debug.alloc-request").await;
        }
        let query = instance.handle.rpc::<rpc::AllocQuery>(&flux_protocol::payload::Empty);
        let query = query.await.unwrap();
        assert_eq!((query.queue_length, query.alloc_pending, query.running), (9, 3, 1));
        instance.stop().await;
    });
}

#[test]
fn jobs_of_a_queue_whose_nodes_are_taken_do_not_keep_back_those_of_another() {
    run(async {
        let config = json!({ "queues": { "batch": {}, "debug": {} } });
        let instance = Instance::with(Options { config, ..Options::default() }).await.unwrap();
        start(&instance, "batch", true).await;
        start(&instance, "debug", true).await;
        let holds = bound(&instance, "batch", "0", 16).await;
        instance.wait_event(holds, "start").await;
        // As many as the scheduler takes at a time, and more.
        let mut waiting = Vec::new();
        for _ in 0..10 {
            waiting.push(bound(&instance, "batch", "0", 16).await);
        }
        let other = bound(&instance, "debug", "1", 8).await;
        instance.wait_event(other, "start").await;
        // The urgent one goes before those that came first, which are all at the scheduler.
        let urgent = bound(&instance, "batch", "0", 20).await;
        instance.wait_event(urgent, "debug.alloc-request").await;
        instance.raise(holds, "cancel", 0).await.unwrap();
        instance.wait_event(urgent, "start").await;
        for id in waiting {
            let names = instance.event_names(id).await;
            assert!(!names.contains(&"alloc".to_owned()), "{names:?}");
        }
        instance.stop().await;
    });
}

#[test]
fn jobs_that_wait_for_a_node_that_is_drained_do_not_keep_back_others() {
    run(async {
        let instance = Instance::start().await;
        let drain = resource::DrainRequest { targets: "3".to_owned(), reason: None, mode: None };
        instance.handle.rpc::<resource::Drain>(&drain).await.unwrap();
        let on_drained = json!({
            "exec": { "test": { "run_duration": "0.001s" } },
            "constraints": { "ranks": ["3"] },
        });
        let mut waiting = Vec::new();
        for _ in 0..20 {
            let spec = jobspec_of(&["simulated"], 1, on_drained.clone());
            waiting.push(instance.submit(&spec).await.unwrap());
        }
        let free = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(free, "clean").await;
        let undrain =
            resource::UndrainRequest { targets: "3".to_owned(), mode: None, reason: None };
        instance.handle.rpc::<resource::Undrain>(&undrain).await.unwrap();
        for id in waiting {
            instance.wait_event(id, "clean").await;
        }
        instance.stop().await;
    });
}

#[test]
fn disabled_parent_leaves_its_virtual_queue_open() {
    run(async {
        let instance = with_queues().await;
        let request = rpc::QueueEnableRequest {
            enable: false,
            all: false,
            name: Some("batch".to_owned()),
            reason: Some("closed".to_owned()),
        };
        instance.handle.rpc::<rpc::QueueEnable>(&request).await.unwrap();
        let spec = jobspec_of(&["simulated"], 1, json!({ "queue": "batch" }));
        let refused = instance.submit(&spec).await.unwrap_err();
        assert_eq!(refused.text.unwrap(), "job submission to batch is disabled: closed");
        let id = submit(&instance, "night").await;
        let keys = vec!["jobspec".to_owned()];
        let lookup = job_info::LookupRequest { id, keys, flags: 0 };
        let object = instance.handle.rpc::<job_info::Lookup>(&lookup).await.unwrap();
        // The name of the queue stays as it was asked for.
        assert!(object["jobspec"].as_str().unwrap().contains(r#""queue":"night""#));
        instance.stop().await;
    });
}
