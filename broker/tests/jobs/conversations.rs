//! Conversations captured from a real Flux about jobs and queues.
//!
//! Jobs that the captured commands act on were made before; here they are made just before the
//! command, and their ids put in the place of the captured ones.

use std::rc::Rc;

use flux_broker::services::job_manager::JobManager;
use flux_protocol::fluid::JobId;
use flux_replay::{Bindings, Replay, Rules, Vector};
use serde_json::json;

use crate::instance::{Instance, Options, jobspec, jobspec_of, run};

/// A job as a command needs it.
#[derive(Debug, Clone, Copy)]
enum Made {
    Running,
    Held,
    Ended,
    /// Running, with a duration of ten minutes.
    RunningTimed,
}

/// Before this line of the file, make a job in the place of the captured one.
type Making = (usize, u64, Made);

async fn double(config: serde_json::Value) -> Rc<Instance> {
    Rc::new(Instance::with(Options { config, double: true, ..Options::default() }).await.unwrap())
}

async fn make(instance: &Instance, made: Made) -> JobId {
    let timed = |command: &[&str]| jobspec_of(command, 1, json!({ "duration": 600.0 }));
    let (spec, urgency, until) = match made {
        Made::Running => (jobspec(&["sleep", "100"]), 16, "start"),
        Made::RunningTimed => (timed(&["sleep", "30"]), 16, "start"),
        Made::Held => (jobspec(&["true"]), 0, "priority"),
        Made::Ended => (jobspec(&["true"]), 16, "clean"),
    };
    let id = instance.submit_with(&spec, urgency, 0).await.unwrap();
    instance.wait_event(id, until).await;
    id
}

async fn play(
    instance: &Rc<Instance>,
    name: &str,
    rules: Rules,
    makings: &'static [Making],
    adapt: impl FnOnce(Replay<'_>) -> Replay<'_>,
) {
    let vector = Vector::load(name).unwrap();
    let socket = instance.socket();
    let replay = Replay::new(&vector, rules.bind("id"), &socket);
    let bindings: Bindings = replay.bindings();
    let replay = replay.ignore_topic("log.append").before(move |line| {
        let (instance, bindings) = (instance.clone(), bindings.clone());
        async move {
            for (_, captured, made) in makings.iter().filter(|(at, ..)| *at == line) {
                let id = make(&instance, *made).await;
                bindings.set(*captured, id.0);
            }
        }
    });
    adapt(replay).play().await.assert_equal();
}

async fn stop(instance: Rc<Instance>) {
    Rc::into_inner(instance).unwrap().stop().await;
}

#[test]
fn jobs_are_canceled_killed_raised_and_reprioritized_as_captured() {
    const MAKINGS: &[Making] = &[
        (3, 745730473984, Made::Running),
        (15, 766450335744, Made::Ended),
        (21, 779553341440, Made::Running),
        (32, 792052367360, Made::Running),
        (38, 807336411136, Made::Held),
        (44, 816781983744, Made::Running),
        (50, 830807736320, Made::Held),
        (72, 844397281280, Made::Running),
        (147, 893017653248, Made::Running),
        (153, 907127291904, Made::Running),
    ];
    run(async {
        let instance = double(json!({})).await;
        // How many jobs there are depends on what was done before.
        let rules = Rules::default()
            .any("count")
            .any("journal.events")
            .any("active_jobs")
            .any("inactive_jobs")
            .any("max_jobid")
            .optional("commits")
            .optional("t_run")
            .any("nodelist");
        play(&instance, "job-cancel-kill-raise-urgency", rules, MAKINGS, |replay| {
            replay
                .skip_run("flux pkill", "lists the jobs of all commands before")
                .skip_run("flux jobs", "which node it runs on is up to the scheduler")
        })
        .await;
        stop(instance).await;
    });
}

#[test]
fn all_jobs_are_canceled_as_captured() {
    run(async {
        let instance = double(json!({})).await;
        for made in [Made::Held, Made::Held].into_iter().chain([Made::Running; 6]) {
            make(&instance, made).await;
        }
        play(&instance, "cancelall", Rules::default(), &[], |replay| replay).await;
        stop(instance).await;
    });
}

#[test]
fn the_anonymous_queue_is_managed_as_captured() {
    run(async {
        let instance = double(json!({})).await;
        play(&instance, "queue", Rules::default(), &[], |replay| {
            replay.ignore(|_, message| {
                ["config.", "resource."].iter().any(|topic| message.topic.starts_with(topic))
            })
        })
        .await;
        stop(instance).await;
    });
}

#[test]
fn plugins_are_managed_as_captured() {
    run(async {
        let instance = double(json!({})).await;
        // We have more to tell of a plugin, and it is found elsewhere.
        let rules = Rules::default().any("path").text(|text| text.replace(".wasm", ".so"));
        let rules = ["kind", "abi", "version", "description", "sha256", "stats"]
            .into_iter()
            .fold(rules, Rules::optional);
        play(&instance, "jobtap", rules, &[], |replay| {
            replay
                .skip_run("flux jobtap list", "other plugins are builtin")
                .skip_run("flux jobtap query .validate-duration", "other plugins are builtin")
                .skip_run("flux jobtap load perilog.so", "has a test of its own")
                .skip_run("flux jobtap query perilog.so", "has a test of its own")
        })
        .await;
        stop(instance).await;
    });
}

#[test]
fn a_manager_without_jobs_can_be_loaded_again() {
    run(async {
        let mut instance = Instance::start().await;
        instance.unload("job-manager").await;
        instance.load::<JobManager>().await.unwrap();
        instance.stop().await;
    });
}

#[test]
fn jobs_are_looked_up_and_their_logs_followed_as_captured() {
    run(async {
        let instance = double(json!({})).await;
        let ended = make(&instance, Made::Ended).await;
        let running = make(&instance, Made::RunningTimed).await;
        let vector = Vector::load("job-info-stream").unwrap();
        let socket = instance.socket();
        // The double has no shells that write logs, and other commands.
        let unsaid = |topic: &str, payload: &str| {
            payload.contains("guest.")
                || payload.contains("\"J\"")
                || topic.starts_with("job-manager.")
                || topic.starts_with("resource.")
                || (topic == "job-info.update-watch")
        };
        let rules = ["timestamp", "starttime", "expiration", "jobspec", "eventlog", "R", "event"]
            .into_iter()
            .fold(Rules::default().bind("id"), Rules::any);
        let replay = Replay::new(&vector, rules, &socket).ignore(move |_, message| {
            let payload = flux_protocol::payload::text(message.payload.as_ref());
            unsaid(&message.topic, payload.unwrap_or_default())
                // Refused in other words.
                || (message.matchtag().0 == 7)
        });
        let bindings = replay.bindings();
        bindings.set(1_682_637_324_288_u64, ended.0);
        bindings.set(1_689_029_443_584_u64, running.0);
        let report = replay.timeout(std::time::Duration::from_secs(5)).play().await;
        report.assert_equal();
        stop(instance).await;
    });
}

#[test]
fn named_queues_are_managed_and_bind_jobs_as_captured() {
    run(async {
        let instance = double(json!({
            "queues": {
                "batch": {},
                "debug": { "policy": { "limits": {
                    "duration": "30m", "job-size": { "max": { "nnodes": 2 } },
                } } },
            },
            "policy": {
                "limits": { "duration": "2h" },
                "jobspec": { "defaults": { "system": { "duration": "10m", "queue": "batch" } } },
            },
        }))
        .await;
        let start = flux_protocol::rpc::job_manager::QueueStartRequest {
            start: true,
            all: true,
            nocheckpoint: false,
            name: None,
            reason: None,
        };
        let handle = &instance.handle;
        handle.rpc::<flux_protocol::rpc::job_manager::QueueStart>(&start).await.unwrap();
        let rules = Rules::default().any("t_run").any("t_cleanup").any("nodelist");
        play(&instance, "queue-named", rules, &[], |replay| {
            replay
                .skip_run("flux jobs", "counts the jobs of all commands before")
                .skip_run("J=$(flux submit", "which node it runs on is up to the scheduler")
                .skip_run("flux job wait-event", "updates have a test of their own")
                .ignore(|_, message| {
                    ["config.", "resource."].iter().any(|topic| message.topic.starts_with(topic))
                })
        })
        .await;
        stop(instance).await;
    });
}

#[test]
fn what_is_wrong_with_a_submission_is_said_as_captured() {
    run(async {
        let instance = double(json!({})).await;
        play(&instance, "ingest-errors", Rules::default(), &[], |replay| {
            replay
                .skip_run("flux submit --cwd=/nonexistent", "runs a shell")
                .skip_run("flux run nosuchcommand", "runs a shell")
                .ignore(|_, message| message.topic == "job-ingest.stats-get".into())
        })
        .await;
        stop(instance).await;
    });
}
