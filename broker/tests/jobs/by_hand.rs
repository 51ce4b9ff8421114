//! Simulated jobs that go by hand, and what the scheduler has to say on when a job ends.

use flux_broker::context::Context;
use flux_broker::methods::Methods;
use flux_broker::service::Service;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::{job_exec, job_info, job_manager, sched};
use serde_json::{Value, json};

use crate::instance::{Instance, jobspec_of, run, simulated};

async fn tell(instance: &Instance, id: JobId, event: &str, status: i32) -> Result<(), Failure> {
    let request =
        job_exec::OverrideRequest { event: event.to_owned(), jobid: id, status: Some(status) };
    instance.handle.rpc::<job_exec::Override>(&request).await.map(drop)
}

async fn refused(instance: &Instance, id: JobId, event: &str) -> (Errno, String) {
    let failure = tell(instance, id, event, 0).await.unwrap_err();
    (failure.errno, failure.text.unwrap_or_default())
}

fn by_hand(more: Value) -> Value {
    let mut test = json!({ "override": 1 });
    test.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jobspec_of(&["simulated"], 1, json!({ "exec": { "test": test } }))
}

#[test]
fn a_job_that_goes_by_hand_starts_and_ends_when_it_is_told_to() {
    run(async {
        let instance = Instance::start().await;
        let id = instance.submit(&by_hand(json!({}))).await.unwrap();
        instance.wait_event(id, "alloc").await;
        let einval = |text: &str| (Errno::EINVAL, text.to_owned());
        // The scheduler has answered; the job may still be on its way to the execution system.
        let not_yet = loop {
            let refusal = refused(&instance, id, "finish").await;
            if refusal.0 != Errno::ENOENT {
                break refusal;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(not_yet, einval("Job not running"));
        assert_eq!(refused(&instance, id, "pause").await, einval("Invalid event"));
        assert!(!instance.event_names(id).await.contains(&"start".to_owned()));
        tell(&instance, id, "start", 0).await.unwrap();
        instance.wait_event(id, "start").await;
        assert_eq!(refused(&instance, id, "start").await, einval("Job already running"));
        assert!(!instance.event_names(id).await.contains(&"finish".to_owned()));
        tell(&instance, id, "finish", 256).await.unwrap();
        let finish: Value = instance.wait_event(id, "finish").await.context_as().unwrap();
        assert_eq!(finish["status"], 256);
        instance.wait_event(id, "clean").await;
        assert_eq!(refused(&instance, id, "finish").await.0, Errno::ENOENT);
        instance.stop().await;
    });
}

#[test]
fn a_duration_or_an_exception_ends_a_job_that_was_started_by_hand_or_not_yet() {
    run(async {
        let instance = Instance::start().await;
        let timed = instance.submit(&by_hand(json!({ "run_duration": "0.001s" }))).await.unwrap();
        let waits = instance.submit(&by_hand(json!({}))).await.unwrap();
        instance.wait_event(timed, "alloc").await;
        while let Err(failure) = tell(&instance, timed, "start", 0).await {
            assert_eq!(failure.errno, Errno::ENOENT);
            tokio::task::yield_now().await;
        }
        instance.wait_event(timed, "clean").await;
        instance.wait_event(waits, "alloc").await;
        instance.raise(waits, "cancel", 0).await.unwrap();
        instance.wait_event(waits, "clean").await;
        let names = instance.event_names(waits).await;
        assert!(!names.contains(&"start".to_owned()), "{names:?}");

        // One that goes by itself can't be told anything.
        let itself = instance.submit(&simulated("1h")).await.unwrap();
        instance.wait_event(itself, "start").await;
        let (errno, text) = refused(&instance, itself, "finish").await;
        assert_eq!((errno, text.as_str()), (Errno::EINVAL, "Job not in exec override mode"));
        instance.stop().await;
    });
}

/// A scheduler that lets no job run longer.
struct Strict;

impl Service for Strict {
    const NAME: &'static str = "sched-strict";
    const SERVICES: &'static [&'static str] = &["sched"];

    async fn start(_: &Context<Strict>, _: &[String]) -> Result<Strict, Failure> {
        Ok(Strict)
    }

    fn methods() -> Methods<Strict> {
        Methods::default().reply::<sched::Expiration>(|_, _, request, _| {
            match request.expiration > 0.0 {
                true => Err(Failure::new(Errno::EPERM, "others have been promised the nodes")),
                false => Ok(Empty),
            }
        })
    }
}

async fn update(instance: &Instance, id: JobId, duration: f64) -> Result<(), Failure> {
    let updates = json!({ "attributes.system.duration": duration });
    let updates = updates.as_object().unwrap().clone();
    let request = job_manager::UpdateRequest { id, updates };
    instance.handle.rpc::<job_manager::Update>(&request).await.map(drop)
}

#[test]
fn the_scheduler_is_asked_when_a_job_that_runs_is_to_end_at_another_time() {
    run(async {
        let mut instance = Instance::start().await;
        let id = instance.submit(&simulated("1h")).await.unwrap();
        instance.wait_event(id, "start").await;
        update(&instance, id, 3600.0).await.unwrap();
        let moved: Value = instance.wait_event(id, "resource-update").await.context_as().unwrap();
        assert!(moved["expiration"].as_f64().unwrap() > instance.now() + 1800.0);

        // Nobody is there to object.
        instance.unload("sched-simple").await;
        update(&instance, id, 7200.0).await.unwrap();
        instance.load::<Strict>().await.unwrap();
        let refusal = update(&instance, id, 9000.0).await.unwrap_err();
        assert_eq!(refusal.errno, Errno::EPERM);
        let text = "scheduler refused expiration update: others have been promised the nodes";
        assert_eq!(refusal.text.as_deref(), Some(text));
        update(&instance, id, 0.0).await.unwrap();
        let durations: Vec<f64> = instance
            .events(id)
            .await
            .iter()
            .filter(|event| event.name == "jobspec-update")
            .map(|event| {
                let updates: Value = event.context_as().unwrap();
                updates["attributes.system.duration"].as_f64().unwrap()
            })
            .collect();
        assert_eq!(durations, [3600.0, 7200.0, 0.0]);
        instance.stop().await;
    });
}

#[test]
fn a_simulated_job_that_cannot_be_set_up_never_starts() {
    run(async {
        let instance = Instance::start().await;
        let cases = [
            (json!({ "run_duration": 0.01 }), "failed to initialize testconf"),
            (json!({ "mock_exception": "init" }), "mock initialization exception generated"),
        ];
        for (test, note) in cases {
            let spec = jobspec_of(&["simulated"], 1, json!({ "exec": { "test": test } }));
            let id = instance.submit(&spec).await.unwrap();
            let exception: Value = instance.wait_event(id, "exception").await.context_as().unwrap();
            assert!(exception["note"].as_str().unwrap().starts_with(note), "{exception}");
            instance.wait_event(id, "clean").await;
            let names = instance.event_names(id).await;
            let began = |name: &String| ["start", "finish"].contains(&name.as_str());
            assert!(!names.iter().any(began), "{names:?}");
        }
        instance.stop().await;
    });
}

#[test]
fn an_exception_may_say_what_the_job_ends_with() {
    run(async {
        let instance = Instance::start().await;
        let id = instance.submit(&simulated("1h")).await.unwrap();
        instance.wait_event(id, "start").await;
        let request = job_manager::RaiseRequest {
            id,
            severity: 0,
            kind: "test".to_owned(),
            note: None,
            wait_status: Some(i64::from(libc::SIGSEGV)),
        };
        instance.handle.rpc::<job_manager::Raise>(&request).await.unwrap();
        let finish: Value = instance.wait_event(id, "finish").await.context_as().unwrap();
        assert_eq!(finish["status"], (128 + libc::SIGSEGV) << 8);
        instance.stop().await;
    });
}

#[test]
fn who_watches_for_updates_gets_what_is_there_and_each_update() {
    run(async {
        let instance = Instance::start().await;
        let id = instance.submit(&simulated("1h")).await.unwrap();
        instance.wait_event(id, "start").await;
        let request = job_info::UpdateRequest { id, key: "R".to_owned(), flags: 0 };
        let expiration = |object: &Object| object["R"]["execution"]["expiration"].as_f64();
        let watch = || instance.handle.stream::<job_info::UpdateWatch>(Nodeid::ANY, &request);
        let mut first = watch().unwrap();
        assert_eq!(expiration(&first.next().await.unwrap()), Some(0.0));
        let update = async |duration: f64| {
            let updates = json!({ "attributes.system.duration": duration });
            let updates = updates.as_object().unwrap().clone();
            let request = job_manager::UpdateRequest { id, updates };
            instance.handle.rpc::<job_manager::Update>(&request).await.unwrap();
        };
        update(1000.0).await;
        let once = expiration(&first.next().await.unwrap()).unwrap();
        assert!(once > 0.0);
        // Who comes later is told once of all that has been.
        let mut second = watch().unwrap();
        assert_eq!(expiration(&second.next().await.unwrap()), Some(once));
        update(2000.0).await;
        let twice = expiration(&first.next().await.unwrap()).unwrap();
        assert!((twice - once - 1000.0).abs() < 1.0, "{once} {twice}");
        assert_eq!(expiration(&second.next().await.unwrap()), Some(twice));
        instance.stop().await;
    });
}
