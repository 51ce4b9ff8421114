//! Validators that are written to do harm, in an instance: the broker and the jobs that run are
//! untouched, who submits is told which plugin did what, and the job meets the policy.

use std::time::Duration;

use flux_protocol::payload::Empty;
use flux_protocol::rpc::job_manager as rpc;
use serde_json::{Value, json};

use crate::instance::{Instance, Options, PATIENCE, run, simulated};
use crate::plugin_support::{SUBMISSION_URGENCY, accept_all, validator};

/// The urgency of jobs that such a validator goes wrong on.
const WRONG: i64 = 7;

/// What it does, and what is said of it.
const DEEDS: [(&str, &str, &str); 7] = [
    ("loops", "(loop $l (br $l))", "exceeded its deadline in validate: 100 ms"),
    (
        "allocates",
        "(loop $l (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
           (br $l))",
        "exceeded its memory limit in validate: 8 MiB",
    ),
    ("traps", "unreachable", "trapped in validate"),
    (
        "panics",
        "(call $log (i32.const 2) (i32.const 1024) (i32.const 5)) unreachable",
        "panicked in validate: ouch!",
    ),
    (
        "recurses",
        "(drop (call $validate (local.get 0) (local.get 1)))",
        "overflowed its stack in validate",
    ),
    (
        "answers with a gigabyte",
        "(i32.store (i32.const 16) (i32.const 64)) (i32.store (i32.const 20) (i32.const 0x03333333))
         (return (i32.const 16))",
        "returned garbage in validate",
    ),
    (
        "answers with garbage",
        "(i32.store (i32.const 16) (i32.const 64)) (i32.store (i32.const 20) (i32.const 1))
         (i32.store (i32.const 64) (i32.const 77)) (return (i32.const 16))",
        "returned garbage in validate",
    ),
];

/// An instance with that validator behind the usual one.
async fn instance(folder: &std::path::Path, deed: &str, on_fault: &str) -> Instance {
    let body = format!(
        "(if (i32.eq (i32.const {WRONG}) (i32.load offset={SUBMISSION_URGENCY} (local.get 0)))
           (then {deed}))
         {}",
        accept_all()
    );
    let path = folder.join("harm.wasm");
    std::fs::write(&path, validator("harm", &body)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&path, mode).unwrap();
    let harm = json!({
        "load": path, "on-fault": on_fault, "deadline": "100ms", "memory": "8M", "max-faults": 100,
    });
    let config = json!({ "ingest": { "validator": { "plugins": ["jobspec", harm] } } });
    Instance::with(Options { config, ..Options::default() }).await.unwrap()
}

fn long() -> Value {
    simulated("1000s")
}

#[test]
fn whatever_a_validator_does_only_the_job_that_it_was_asked_about_is_concerned() {
    run(async {
        for (what, deed, said) in DEEDS {
            let folder = tempfile::tempdir().unwrap();
            let instance = instance(folder.path(), deed, "reject").await;
            let running = instance.submit(&long()).await.unwrap();
            instance.wait_event(running, "start").await;
            let spec = simulated("0.001s");
            // One batch, or two: none of the others is to know.
            let submit = |urgency| instance.submit_with(&spec, urgency, 0);
            let (before, wrong, after) = tokio::join!(submit(16), submit(WRONG), submit(17));
            let text = wrong.unwrap_err().text.unwrap();
            assert!(text.contains("plugin harm") && text.contains(said), "{what}: {text}");
            for id in [before.unwrap(), after.unwrap()] {
                instance.wait_event(id, "clean").await;
                assert!(instance.event_names(id).await.contains(&"finish".to_owned()), "{what}");
            }
            let line = format!("plugin harm {said}");
            let told = async {
                while !instance.log_lines().iter().any(|logged| logged.contains(&line)) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(PATIENCE, told).await.unwrap();
            assert!(!instance.event_names(running).await.contains(&"finish".to_owned()));
            let info = instance.handle.rpc::<rpc::AllocQuery>(&Empty).await.unwrap();
            assert_eq!(info.running, 1, "{what}");
            instance.raise(running, "cancel", 0).await.unwrap();
            instance.wait_event(running, "clean").await;
            instance.stop().await;
        }
    });
}

#[test]
fn a_job_that_a_validator_fails_on_is_let_in_where_the_policy_is_to_skip_it() {
    run(async {
        for (what, deed, _) in DEEDS {
            let folder = tempfile::tempdir().unwrap();
            let instance = instance(folder.path(), deed, "skip").await;
            let id = instance.submit_with(&simulated("0.001s"), WRONG, 0).await;
            let id = id.unwrap_or_else(|failure| panic!("{what}: {failure}"));
            instance.wait_event(id, "clean").await;
            assert!(instance.event_names(id).await.contains(&"finish".to_owned()), "{what}");
            instance.stop().await;
        }
    });
}

/// A scheduler that gives away what it must not: core 0 to everybody.
#[test]
fn jobs_that_a_scheduler_has_started_stay_when_it_breaks_the_rules() {
    run(async {
        for (what, deed) in [
            ("plain", "broke the rules in schedule: job"),
            ("twice", "has no open request"),
            ("unknown", "has no open request"),
        ] {
            let load = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../plugins-wasm/dist/fixtures/fixture-scheduler.wasm"
            );
            let plugin = json!({
                "load": load, "conf": { "what": what }, "on-fault": "skip", "max-faults": 1,
            });
            let config = json!({ "sched": { "plugin": plugin } });
            let instance = Instance::with(Options { config, ..Options::default() }).await.unwrap();
            let first = instance.submit(&long()).await.unwrap();
            instance.wait_event(first, "start").await;
            let second = instance.submit(&simulated("0.001s")).await.unwrap();
            instance.wait_event(second, "clean").await;
            let log = instance.log_lines();
            let told = |line: &String| line.contains("plugin rogue") && line.contains(deed);
            assert!(log.iter().any(told), "{what}: {log:?}");
            let names = instance.event_names(first).await;
            assert_eq!(names.iter().filter(|name| *name == "alloc").count(), 1, "{names:?}");
            assert!(!names.contains(&"finish".to_owned()), "{names:?}");
            instance.raise(first, "cancel", 0).await.unwrap();
            instance.wait_event(first, "clean").await;
            instance.stop().await;
        }
    });
}
