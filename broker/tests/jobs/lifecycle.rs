//! What happens to a job, event by event.

use flux_protocol::rpc::job_manager;
use serde_json::json;

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
