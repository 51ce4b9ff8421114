//! Prolog and epilog, by the perilog plugin and the commands that the broker runs for it.

use std::path::Path;

use flux_broker::services::job_exec::JobExec;
use flux_broker::services::job_list::JobList;
use flux_broker::services::job_manager::JobManager;
use flux_broker::services::sched::Sched;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::Object;
use flux_protocol::rpc::job_manager as rpc;
use serde_json::{Value, json};

use crate::instance::{Instance, Options, PATIENCE, jobspec_of, run, simulated};

/// An instance with these tables below `[job-manager]`.
async fn instance(tables: Value) -> Instance {
    let mut tables = tables;
    tables["plugins"] = json!([{ "load": "perilog.wasm" }]);
    let config = json!({ "job-manager": tables });
    Instance::with(Options { config, ..Options::default() }).await.unwrap()
}

fn script(line: &str) -> Value {
    json!(["sh", "-c", line])
}

async fn status_of(instance: &Instance, id: JobId, event: &str) -> i64 {
    let event = instance.wait_event(id, event).await;
    event.context_as::<Object>().unwrap()["status"].as_i64().unwrap()
}

async fn until_exists(path: &Path) {
    let there = async {
        while !path.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap();
}

#[test]
fn a_job_starts_after_its_prolog_and_keeps_its_resources_until_the_epilog_is_over() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let say = |what: &str| {
            let told = told.display();
            script(&format!(
                "echo {what} $FLUX_JOB_ID $FLUX_JOB_USERID >> {told}; echo out; echo >&2 err"
            ))
        };
        let instance = instance(json!({
            "prolog": { "command": say("prolog") },
            "epilog": { "command": say("epilog") },
            "perilog": { "log-ignore": ["^e.r$"] },
        }))
        .await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(id, "clean").await;
        let names = instance.event_names(id).await;
        let at = |name: &str| names.iter().position(|other| other == name).unwrap();
        assert!(at("alloc") < at("prolog-start") && at("prolog-start") < at("prolog-finish"));
        assert!(at("prolog-finish") < at("start") && at("finish") < at("epilog-start"));
        assert!(at("epilog-start") < at("epilog-finish") && at("epilog-finish") < at("release"));
        assert!(at("release") < at("free"));
        let owner = instance.broker.owner().0;
        let expected = format!("prolog {0} {owner}\nepilog {0} {owner}\n", id.f58());
        assert_eq!(std::fs::read_to_string(told).unwrap(), expected);
        let log = instance.log_lines();
        let line = format!("job-manager.info[0]: {}: prolog: stdout: out\n", id.f58());
        assert_eq!(log.iter().filter(|logged| logged.ends_with(&line)).count(), 1, "{log:?}");
        assert!(!log.iter().any(|line| line.contains("stderr: err")), "{log:?}");
        instance.stop().await;
    });
}

#[test]
fn a_prolog_that_fails_ends_the_job_before_its_start_and_the_epilog_runs() {
    run(async {
        let instance = instance(json!({
            "prolog": { "command": script("exit 3") },
            "epilog": { "command": ["true"] },
        }))
        .await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        assert_eq!(status_of(&instance, id, "prolog-finish").await, 768);
        assert_eq!(status_of(&instance, id, "epilog-finish").await, 0);
        instance.wait_event(id, "clean").await;
        let exception = instance.wait_event(id, "exception").await;
        let context: Object = exception.context_as().unwrap();
        assert_eq!(context["type"], json!("prolog"));
        let note = context["note"].as_str().unwrap().to_owned();
        assert!(note.starts_with("prolog exited with code=3"), "{note}");
        assert!(!instance.event_names(id).await.contains(&"start".to_owned()));
        instance.stop().await;
    });
}

#[test]
fn a_job_that_is_canceled_during_its_prolog_ends_even_where_sigterm_is_ignored() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let begun = dir.path().join("begun");
        let stubborn =
            format!("trap '' TERM; touch {}; while :; do sleep 0.1; done", begun.display());
        let prolog = json!({ "command": script(&stubborn), "kill-timeout": 0.2 });
        let instance = instance(json!({ "prolog": prolog })).await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        until_exists(&begun).await;
        instance.raise(id, "cancel", 0).await.unwrap();
        assert_eq!(status_of(&instance, id, "prolog-finish").await, 9);
        instance.wait_event(id, "clean").await;
        let names = instance.event_names(id).await;
        assert_eq!(names.iter().filter(|name| *name == "exception").count(), 1, "{names:?}");
        assert!(!names.contains(&"start".to_owned()), "{names:?}");
        instance.stop().await;
    });
}

#[test]
fn a_node_where_a_canceled_prolog_had_to_be_killed_is_drained() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let begun = dir.path().join("begun");
        let stubborn =
            format!("trap '' TERM; touch {}; while :; do sleep 0.1; done", begun.display());
        let prolog = json!({ "command": script(&stubborn), "kill-timeout": 0.2, "per-rank": true });
        let instance = instance(json!({ "prolog": prolog })).await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        until_exists(&begun).await;
        let name = rpc::NameRequest { name: "perilog.so".to_owned() };
        let query = instance.handle.rpc::<rpc::JobtapQuery>(&name).await.unwrap();
        let expected = json!({
            "name": "prolog", "state": "running", "total": 1, "active": 1, "active_ranks": "0",
        });
        assert_eq!(query["procs"][id.f58()], expected);
        instance.raise(id, "cancel", 0).await.unwrap();
        instance.wait_event(id, "clean").await;
        let log = instance.log_lines();
        let reason = format!("prolog canceled then timed out for job {}", id.f58());
        assert!(log.iter().any(|line| line.contains(&reason)), "{log:?}");
        instance.stop().await;
    });
}

/// What has left the process group, and holds the output, is out of reach.
#[test]
fn a_node_where_a_prolog_can_not_be_ended_is_drained_and_not_waited_for() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (begun, go) = (dir.path().join("begun"), dir.path().join("go"));
        let line = format!(
            "setsid sh -c 'touch {}; while [ -d {} ] && [ ! -e {} ]; do sleep 0.05; done' & wait",
            begun.display(),
            dir.path().display(),
            go.display()
        );
        let prolog = json!({ "command": script(&line), "kill-timeout": 0.1 });
        let instance = instance(json!({ "prolog": prolog })).await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        until_exists(&begun).await;
        instance.raise(id, "cancel", 0).await.unwrap();
        assert_eq!(status_of(&instance, id, "prolog-finish").await, 9);
        instance.wait_event(id, "clean").await;
        std::fs::write(&go, "").unwrap();
        let log = instance.log_lines();
        let reason = format!("prolog canceled then timed out for job {}", id.f58());
        for wanted in ["prolog: does not end by SIGKILL, the node is drained", &reason] {
            assert!(log.iter().any(|line| line.contains(wanted)), "{wanted}: {log:?}");
        }
        instance.stop().await;
    });
}

#[test]
fn a_prolog_that_takes_too_long_is_ended() {
    run(async {
        let prolog = json!({ "command": ["sleep", "600"], "timeout": "0.1s" });
        let instance = instance(json!({ "prolog": prolog })).await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        let exception = instance.wait_event(id, "exception").await;
        let note = exception.context_as::<Object>().unwrap()["note"].as_str().unwrap().to_owned();
        assert!(note.starts_with("prolog timed out"), "{note}");
        instance.wait_event(id, "clean").await;
        instance.stop().await;
    });
}

#[test]
fn a_prolog_that_was_under_way_at_a_restart_is_run_again_and_the_job_starts_once() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (begun, go) = (dir.path().join("begun"), dir.path().join("go"));
        let wait = format!(
            "touch {}; while [ -d {} ] && [ ! -e {} ]; do sleep 0.05; done",
            begun.display(),
            dir.path().display(),
            go.display()
        );
        let mut instance = instance(json!({ "prolog": { "command": script(&wait) } })).await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        until_exists(&begun).await;
        instance.wait_event(id, "prolog-start").await;
        for name in ["sched-simple", "job-exec", "job-list", "job-manager"] {
            instance.unload(name).await;
        }
        std::fs::remove_file(&begun).unwrap();
        instance.load::<JobManager>().await.unwrap();
        instance.load::<JobList>().await.unwrap();
        instance.load::<JobExec>().await.unwrap();
        instance.load::<Sched>().await.unwrap();
        until_exists(&begun).await;
        std::fs::write(go, "").unwrap();
        instance.wait_event(id, "clean").await;
        let names = instance.event_names(id).await;
        for once in ["prolog-start", "prolog-finish", "start", "finish"] {
            assert_eq!(names.iter().filter(|name| *name == once).count(), 1, "{names:?}");
        }
        instance.stop().await;
    });
}

const TAMPERED: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist/fixtures/fixture-tampered.wasm");

/// A perilog plugin that somebody has changed: its manifest is the old one.
#[test]
fn a_tampered_plugin_runs_nothing_but_what_is_configured_and_the_log_says_what_it_wanted() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let load = dir.path().join("perilog.wasm");
        let mut copy = std::process::Command::new("install");
        copy.arg("-m644").arg(TAMPERED).arg(&load);
        assert!(copy.status().unwrap().success());
        let (trace, told) = (dir.path().join("trace"), dir.path().join("told"));

        // It is none of ours any more, so that nothing is granted to it unless somebody does.
        let plugins =
            |caps: &[&str]| json!([{ "load": load, "caps": caps, "conf": { "trace": trace } }]);
        let config = json!({ "job-manager": { "plugins": plugins(&[]) } });
        let Err(failure) = Instance::with(Options { config, ..Options::default() }).await else {
            panic!("a module that was changed is loaded with the grants of the original");
        };
        let text = failure.to_string();
        assert!(text.contains("perilog.wasm") && text.contains("config:job-manager"), "{text}");

        // An administrator who does not look grants it all that perilog has.
        let caps =
            ["config:*", "exec:prolog", "exec:epilog", "rpc:resource.drain", "exec:housekeeping"];
        for (name, status, said) in [
            (
                "program",
                None,
                "perilog.err[0]: effect refused (EPERM): capability exec:/bin/sh is not granted",
            ),
            (
                "table",
                None,
                "perilog.err[0]: effect refused (EPERM): capability exec:housekeeping is not granted",
            ),
            (
                "command",
                Some(127 << 8),
                "plugin perilog: prolog: refused: a plugin does not choose the command line",
            ),
            ("node", Some(127 << 8), "plugin perilog: prolog: refused: rank 3 is not of job"),
        ] {
            let granted = if name == "table" { &caps[..4] } else { &caps[..] };
            let say = format!("echo $FLUX_JOB_ID >> {}", told.display());
            let config = json!({
                "job-manager": {
                    "plugins": plugins(granted),
                    "prolog": { "command": script(&say) },
                },
            });
            let instance = Instance::with(Options { config, ..Options::default() }).await.unwrap();
            let job = json!({ "name": name });
            let exec = json!({ "test": { "run_duration": "0.001s" } });
            let spec = jobspec_of(&["simulated"], 1, json!({ "exec": exec, "job": job }));
            let id = instance.submit(&spec).await.unwrap();
            if let Some(status) = status {
                assert_eq!(status_of(&instance, id, "told").await, status, "{name}");
            }
            instance.wait_event(id, "clean").await;
            let log = instance.log_lines();
            let lines = log.iter().filter(|line| line.contains(said)).count();
            assert_eq!(lines, 1, "{name}: {log:?}");
            assert!(!trace.exists() && !told.exists(), "{name}: something was run");
            instance.stop().await;
        }
    });
}
