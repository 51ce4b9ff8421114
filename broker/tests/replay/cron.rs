//! `cron.*`.

use flux_broker::handle::Handle;
use flux_broker::services::cron::Cron;
use flux_broker::services::rexec::Rexec;
use flux_protocol::rpc::cron as rpc;
use flux_replay::{Replay, Rules, Vector};
use serde_json::{Value, json};

use crate::instance::{Instance, run};

const SYNC: &str = "sync=heartbeat.pulse";

#[test]
fn entries_are_created_listed_stopped_and_deleted_as_captured() {
    run(async {
        let instance = Instance::start().with_args::<Cron>(&[SYNC]).await;
        let vector = Vector::load("cron").unwrap();
        let socket = instance.socket();
        // Times are those of the capture.
        let rules = Rules::default().any("ctime").any("starttime").any("next_wakeup");
        Replay::new(&vector, rules, &socket).play().await.assert_equal();
        instance.stop().await;
    });
}

#[test]
fn requests_without_what_they_need_are_refused_as_captured() {
    run(async {
        let instance = Instance::start().with_args::<Cron>(&[SYNC]).await;
        instance.sweep(|topic| topic.starts_with("cron.")).await;
        instance.stop().await;
    });
}

#[test]
fn commands_run_on_events_until_they_fail_too_often() {
    run(async {
        let instance = Instance::start().with::<Rexec>().await.with::<Cron>().await;
        let mut log = instance.broker.log().subscribe();
        let handle = Handle::new(instance.broker.router().clone());
        let create = |command: &str, more: Value| {
            let mut request = json!({
                "type": "event", "name": "n", "command": command, "args": {"topic": "tick"},
            });
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<rpc::CreateRequest>(request).unwrap()
        };
        let says = create("echo one; echo two >&2", json!({"repeat": 1}));
        let fails = create("exit 3", json!({"stop-on-failure": 2, "task-history-count": 5}));
        let hangs = create("exec sleep 1000", json!({"timeout": 0.01, "repeat": 1}));
        let elsewhere = create("true", json!({"rank": 3, "repeat": 1}));
        for request in [says, fails, hangs, elsewhere] {
            handle.rpc::<rpc::Create>(&request).await.unwrap();
        }
        let entries = async || {
            let list = handle.rpc::<rpc::List>(&rpc::ListRequest).await.unwrap();
            list.entries
                .into_iter()
                .map(|entry| serde_json::from_value::<rpc::Entry>(entry).unwrap())
                .collect::<Vec<_>>()
        };
        for done in 1..=2 {
            handle.publish("tick", None).unwrap();
            let done = async || {
                let entries = entries().await;
                entries[1].stats.failure >= done
                    && entries.iter().all(|e| e.stats.success + e.stats.failure >= 1)
            };
            let wait = async {
                while !done().await {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.unwrap();
        }
        let entries = entries().await;
        let states: Vec<Vec<&str>> = entries
            .iter()
            .map(|e| e.tasks.iter().map(|task| task["state"].as_str().unwrap()).collect())
            .collect();
        let expected: [&[&str]; 4] =
            [&["Exited"], &["Failed", "Failed"], &["Timeout"], &["Rexec Failure"]];
        assert_eq!(states, expected);
        assert_eq!(entries[1].tasks[0]["code"], 3);
        assert!(entries.iter().all(|entry| entry.stopped));
        let mut lines = Vec::new();
        while let Ok(record) = log.try_recv() {
            lines.push(record.line());
        }
        for part in [
            "cron.info[0]: cron-1[n]: rank=0: command=\"echo one; echo two >&2\": \"one\"",
            "cron.err[0]: cron-1[n]: rank=0: command=\"echo one; echo two >&2\": \"two\"",
            "cron.err[0]: cron-2: \"exit 3\": Failed: Exit 3",
            "cron.err[0]: cron-2: exceeded failure limit of 2. stopping",
            "cron.err[0]: cron-3: \"exec sleep 1000\": Failed: Terminated",
            "cron.err[0]: cron-4: failure running true: No route to host",
        ] {
            assert!(lines.iter().any(|line| line.contains(part)), "{part}\n{}", lines.join("\n"));
        }
        instance.stop().await;
    });
}

#[test]
fn commands_wait_for_the_sync_event() {
    run(async {
        let instance =
            Instance::start().with::<Rexec>().await.with_args::<Cron>(&["sync=beat"]).await;
        let handle = Handle::new(instance.broker.router().clone());
        let request = json!({
            "type": "interval", "name": "n", "command": "true", "repeat": 1,
            "args": {"interval": 0.001},
        });
        let request = serde_json::from_value::<rpc::CreateRequest>(request).unwrap();
        handle.rpc::<rpc::Create>(&request).await.unwrap();
        let state = async || {
            let list = handle.rpc::<rpc::List>(&rpc::ListRequest).await.unwrap();
            let entry = serde_json::from_value::<rpc::Entry>(list.entries[0].clone()).unwrap();
            let state = entry.tasks.first().map(|task| task["state"].as_str().unwrap().to_owned());
            state.unwrap_or_default()
        };
        let until = async |wanted: &str| {
            let wait = async {
                while state().await != wanted {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.unwrap();
        };
        until("Deferred").await;
        handle.publish("beat", None).unwrap();
        until("Exited").await;
        instance.stop().await;
    });
}
