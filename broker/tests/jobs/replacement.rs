//! Plugins that are put in each other's place, or that are slow, while jobs wait and run.

use std::collections::BTreeMap;
use std::time::Duration;

use flux_broker::services::sched::Sched;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{job_info, job_manager as rpc};
use serde_json::json;

use crate::instance::{Instance, Options, PATIENCE, jobspec_of, run, simulated};

const JOBS: usize = 1000;
/// Loads as `fixture-jobtap.wasm`, and is called for every job.
const TRACER: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist/fixtures/fixture-jobtap.wasm");

async fn jobtap(instance: &Instance, load: Option<&str>, remove: Option<&str>) {
    let request = rpc::JobtapRequest {
        query_only: None,
        load: load.map(str::to_owned),
        conf: None,
        remove: remove.map(str::to_owned),
    };
    // An answer without a payload, unless the list was asked for.
    let payload = flux_protocol::payload::encode_json(&request).unwrap();
    let topic = "job-manager.jobtap".to_owned();
    let nodeid = flux_protocol::message::Nodeid::ANY;
    let mut answer = instance.handle.send_raw::<()>(topic, nodeid, Default::default(), payload);
    answer.next_raw().await.unwrap();
}

#[test]
fn a_scheduler_and_a_plugin_are_replaced_under_a_thousand_jobs_and_none_is_lost_or_run_twice() {
    run(async {
        let config = json!({ "fake-resources": { "nnodes": 50, "cores-per-node": 4 } });
        let options = Options { config, ..Options::default() };
        let mut instance = Instance::with(options).await.unwrap();
        let spec = simulated("0.05s");
        let mut ids = Vec::new();
        for round in 0..4 {
            let some = (0..JOBS / 4).map(|_| instance.submit(&spec));
            for id in join_all(some).await {
                ids.push(id.unwrap());
            }
            match round {
                0 => jobtap(&instance, Some(TRACER), None).await,
                1 => {
                    instance.unload("sched-simple").await;
                    instance.load::<Sched>().await.unwrap();
                }
                2 => jobtap(&instance, Some(TRACER), Some("fixture-jobtap.wasm")).await,
                _ => replace_scheduler(&instance).await,
            }
        }
        jobtap(&instance, None, Some("fixture-jobtap.wasm")).await;
        let drained = instance.handle.rpc::<rpc::Drain>(&Empty);
        if tokio::time::timeout(2 * PATIENCE, drained).await.is_err() {
            let request = rpc::ListRequest { max_entries: 10 };
            let left = instance.handle.rpc::<rpc::List>(&request).await.unwrap();
            let queue = instance.handle.rpc::<rpc::AllocQuery>(&Empty).await.unwrap();
            panic!("jobs are left: {queue:?} {:?}", left.jobs);
        }
        assert_eq!(ids.len(), JOBS);
        let mut held: BTreeMap<(u32, u32), Vec<(f64, f64)>> = BTreeMap::new();
        for id in ids {
            book(&instance, id, &mut held).await;
        }
        for (core, mut times) in held {
            times.sort_by(|a, b| a.0.total_cmp(&b.0));
            let apart = times.windows(2).all(|pair| pair[0].1 <= pair[1].0);
            assert!(apart, "{core:?} was given to two jobs at a time: {times:?}");
        }
        instance.stop().await;
    });
}

/// The same plugin with another memory limit is another scheduler.
async fn replace_scheduler(instance: &Instance) {
    let mut config = instance.broker.config().object().clone();
    let plugin = json!({ "load": "sched-fifo.wasm", "memory": "32M" });
    config.insert("sched".to_owned(), json!({ "plugin": plugin }));
    let topic = "sched-simple.config-reload".to_owned();
    let payload = flux_protocol::payload::encode_json(&config).unwrap();
    let nodeid = flux_protocol::message::Nodeid::ANY;
    let mut answer = instance.handle.send_raw::<()>(topic, nodeid, Default::default(), payload);
    answer.next_raw().await.unwrap();
    let taken_over = async {
        while !instance.log_lines().iter().any(|line| line.contains("has taken over")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken_over).await.unwrap();
}

/// The job had each event once; note when it held which cores.
async fn book(instance: &Instance, id: JobId, held: &mut BTreeMap<(u32, u32), Vec<(f64, f64)>>) {
    let events = instance.events(id).await;
    let mut times = BTreeMap::new();
    for event in &events {
        let name = event.name.as_str();
        if name == "priority" {
            continue;
        }
        let again = times.insert(name, event.timestamp);
        assert!(again.is_none(), "{}: {name} twice: {events:?}", id.f58());
    }
    let all = ["submit", "validate", "depend", "alloc", "start", "finish", "release", "free"];
    assert!(all.iter().all(|name| times.contains_key(name)), "{}: {events:?}", id.f58());
    let lookup = job_info::LookupRequest { id, keys: vec!["R".to_owned()], flags: 0 };
    let object = instance.handle.rpc::<job_info::Lookup>(&lookup).await.unwrap();
    let r = ResourceSet::decode(object["R"].as_str().unwrap()).unwrap();
    for (rank, node) in r.nodes() {
        for core in node.resources.cores.iter() {
            held.entry((rank, core)).or_default().push((times["alloc"], times["free"]));
        }
    }
}

async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    std::future::poll_fn(|cx| {
        let mut ready = true;
        for (future, output) in &mut futures {
            if let Some(running) = future {
                match running.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => {
                        *output = Some(value);
                        *future = None;
                    }
                    std::task::Poll::Pending => ready = false,
                }
            }
        }
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    futures.into_iter().map(|(_, output)| output.unwrap()).collect()
}

#[test]
fn a_plugin_whose_successor_is_refused_keeps_its_place_in_the_stack() {
    run(async {
        let instance = Instance::start().await;
        for load in [TRACER, "submit-hold.wasm"] {
            jobtap(&instance, Some(load), None).await;
        }
        let list = async || {
            let request =
                rpc::JobtapRequest { query_only: Some(true), load: None, conf: None, remove: None };
            instance.handle.rpc::<rpc::Jobtap>(&request).await.unwrap().plugins
        };
        let before = list().await;
        assert!(before.ends_with(&[json!("fixture-jobtap.wasm"), json!("submit-hold.wasm")]));
        for refused in ["nonexistent.wasm", "submit-hold.wasm"] {
            let request = rpc::JobtapRequest {
                query_only: None,
                load: Some(refused.to_owned()),
                conf: None,
                remove: Some("fixture-jobtap.wasm".to_owned()),
            };
            let answer = instance.handle.rpc::<rpc::Jobtap>(&request).await;
            assert!(answer.is_err(), "{refused}: {answer:?}");
            assert_eq!(list().await, before, "{refused}");
        }
        instance.stop().await;
    });
}

#[test]
fn a_plugin_that_never_returns_keeps_nobody_else_waiting() {
    run(async {
        let plugin = json!({ "load": TRACER, "deadline": "10m" });
        let config = json!({ "job-manager": { "plugins": [plugin] } });
        let options = Options { config, ..Options::default() };
        let instance = Instance::with(options).await.unwrap();
        let spec = jobspec_of(&["loop"], 1, json!({}));
        let stuck = instance.submit(&spec);
        let others = async {
            // Give the plugin time to be called.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let info = instance.handle.rpc::<rpc::Getinfo>(&Empty).await.unwrap();
            let request = rpc::QueueStatusRequest::default();
            instance.handle.rpc::<rpc::QueueStatus>(&request).await.unwrap();
            info
        };
        tokio::select! {
            stuck = stuck => panic!("the plugin returned: {stuck:?}"),
            info = others => assert_eq!(info.max_jobid, 0),
        }
        // The plugin's thread ends with the process.
    });
}

#[test]
fn what_a_plugin_keeps_is_there_for_the_next_one_of_its_name() {
    run(async {
        let instance = Instance::start().await;
        jobtap(&instance, Some(TRACER), None).await;
        // Its priority is how often it was asked before, as far as it remembers.
        let exec = json!({ "exec": { "test": { "run_duration": "0.001s" } } });
        let keep = jobspec_of(&["keep"], 1, exec);
        let priority = async || {
            let id = instance.submit(&keep).await.unwrap();
            let event = instance.wait_event(id, "priority").await;
            instance.wait_event(id, "clean").await;
            event.context_as::<Object>().unwrap()["priority"].as_u64().unwrap()
        };
        let first = priority().await;
        jobtap(&instance, None, Some("fixture-jobtap.wasm")).await;
        jobtap(&instance, Some(TRACER), None).await;
        assert!(priority().await > first);
        instance.stop().await;
    });
}

/// A scheduler that panics whenever it is to schedule, and is given up at once.
async fn with_bad_scheduler(on_fault: &str) -> Instance {
    let load = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../plugins-wasm/dist/fixtures/fixture-scheduler.wasm"
    );
    let conf = json!({ "what": "panic" });
    let plugin = json!({ "load": load, "conf": conf, "on-fault": on_fault, "max-faults": 1 });
    let config = json!({ "sched": { "plugin": plugin } });
    Instance::with(Options { config, ..Options::default() }).await.unwrap()
}

#[test]
fn the_bundled_scheduler_takes_over_from_one_that_is_given_up_where_it_may_be_skipped() {
    run(async {
        let instance = with_bad_scheduler("skip").await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(id, "clean").await;
        assert!(instance.event_names(id).await.contains(&"finish".to_owned()));
        instance.stop().await;
    });
}

#[test]
fn jobs_are_denied_where_a_scheduler_is_given_up_and_nobody_may_take_its_place() {
    run(async {
        let instance = with_bad_scheduler("reject").await;
        for _ in 0..2 {
            let id = instance.submit(&simulated("0.001s")).await.unwrap();
            let exception = instance.wait_event(id, "exception").await;
            let context: Object = exception.context_as().unwrap();
            assert_eq!(context["type"], json!("alloc"));
            assert!(context["note"].as_str().unwrap().ends_with("is quarantined"), "{context:?}");
            instance.wait_event(id, "clean").await;
        }
        instance.stop().await;
    });
}

#[test]
fn jobs_wait_for_another_scheduler_where_one_is_given_up_and_they_are_to_be_held() {
    run(async {
        let instance = with_bad_scheduler("hold").await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(id, "priority").await;
        replace_scheduler(&instance).await;
        instance.wait_event(id, "clean").await;
        assert!(instance.event_names(id).await.contains(&"finish".to_owned()));
        instance.stop().await;
    });
}
