//! Why a job is not running yet, or how it came to its end: why.
//!
//! What the parts of Flux know is put together: states and dependencies from `job-list`, queues
//! from `job-manager`, the scheduler's word from the job's annotations, prologs and exceptions from
//! its eventlog.

use std::cmp::Reverse;

use clap::Args;
use flux_client::{Client, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::job_list::{self, ListIdRequest, ListRequest};
use flux_protocol::rpc::job_manager::{self, QueueStatusRequest, QueueStatusResponse};
use flux_protocol::rpc::resource;
use serde::Deserialize;
use serde_json::{Value, json};

use super::info::lookup;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::joblist::{JobInfo, State};
use crate::listing::{Row, local_time};
use crate::{jobid, outln, when};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job why id...")]
pub(crate) struct Why {
    #[arg(required = true, value_name = "id")]
    ids: Vec<String>,
}

/// What there is to know about a job that waits for resources.
#[derive(Debug, Default)]
struct Surroundings {
    queue: Option<QueueStatusResponse>,
    /// No scheduler has answered.
    no_scheduler: bool,
    /// Cores that are up, and those of them that are in use.
    cores: Option<(u64, u64)>,
    /// Jobs that the scheduler looks at before this one.
    ahead: usize,
}

impl Why {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        for text in &self.ids {
            let id = jobid::parse(text)?;
            for line in explain(&flux, id, text).await? {
                outln!("{text}: {line}");
            }
        }
        Ok(0)
    }
}

async fn explain(flux: &Client, id: JobId, text: &str) -> Result<Vec<String>, Failure> {
    let request = ListIdRequest { id, attrs: vec!["all".to_owned()], state: None };
    let response =
        flux.rpc::<job_list::ListId>(Nodeid::ANY, &request).await.map_err(|e| match e.errno() {
            Errno::ENOENT => Failure::new(format_args!("{text}: No such job")),
            _ => Failure::of(text, e),
        })?;
    let job = JobInfo::new(Value::Object(response.job))
        .ok_or_else(|| Failure::of(text, "job-list does not tell the job's id"))?;
    let mut lines = match job.state() {
        Some(State::Sched) => waiting_for_resources(&job, &surroundings(flux, &job).await),
        Some(State::Run) => {
            // A guest's log of another guest's job is none of his business: then it just runs.
            let log = lookup(flux, id, "eventlog", 0).await.unwrap_or_default();
            vec![running(&job, &log)]
        }
        _ => vec![elsewhere(&job)],
    };
    lines.extend(plugins(&job));
    Ok(lines)
}

/// What plugins that hold the job have to say, and programs that run for it.
fn plugins(job: &JobInfo) -> Vec<String> {
    let waits = job.state().is_some_and(|state| !matches!(state, State::New | State::Inactive));
    let reasons = job.annotation("why").and_then(Value::as_object);
    reasons
        .into_iter()
        .flatten()
        .filter_map(|(plugin, text)| Some(format!("{plugin}: {}", text.as_str()?)))
        .filter(|_| waits)
        .collect()
}

async fn surroundings(flux: &Client, job: &JobInfo) -> Surroundings {
    let queue = job.str("queue");
    let name = (!queue.is_empty()).then(|| queue.to_owned());
    let request = QueueStatusRequest { name };
    let queue = flux.rpc::<job_manager::QueueStatus>(Nodeid::ANY, &request).await.ok();
    let status = flux.rpc::<resource::SchedStatus>(Nodeid::ANY, &Empty).await;
    // Resources are known without it, too.
    let no_scheduler = match flux.start_raw(Request::new("sched.ping")) {
        Ok(answer) => matches!(answer.await, Err(e) if e.errno() == Errno::ENOSYS),
        Err(_) => false,
    };
    let cores = status.ok().and_then(|status| {
        let set = |r: &Value| {
            use serde::Deserialize as _;
            ResourceSet::deserialize(r).unwrap_or_default()
        };
        up_and_used(&set(&status.all), &set(&status.down), &set(&status.allocated))
    });
    // Where that can't be listed, the rest is told all the same.
    let ahead = ahead(flux, job).await.unwrap_or(0);
    Surroundings { queue, no_scheduler, cores, ahead }
}

/// Cores of nodes that are up, none without one, and those of them that are in use: jobs go on on
/// nodes that were drained meanwhile.
fn up_and_used(
    all: &ResourceSet,
    down: &ResourceSet,
    allocated: &ResourceSet,
) -> Option<(u64, u64)> {
    let up = all.diff(down).ncores();
    (up > 0).then(|| (up, allocated.diff(down).ncores()))
}

/// Jobs in the same queue that have their turn before this one.
async fn ahead(flux: &Client, job: &JobInfo) -> Result<usize, RpcError> {
    let request = ListRequest {
        max_entries: 0,
        attrs: ["priority", "queue"].map(str::to_owned).to_vec(),
        since: 0.0,
        constraint: Some(json!({ "states": ["sched"] })),
        legacy: None,
    };
    let turn = |job: &JobInfo| (Reverse(job.int("priority")), job.id);
    let mut stream = flux.stream::<job_list::List>(Nodeid::ANY, &request)?;
    let mut count = 0;
    while let Some(response) = stream.next().await? {
        let others = response.jobs.into_iter().filter_map(JobInfo::new);
        count += others
            .filter(|other| other.str("queue") == job.str("queue"))
            .filter(|other| other.int("priority") > Some(0) && turn(other) < turn(job))
            .count();
    }
    Ok(count)
}

/// All that keeps a job in the SCHED state.
fn waiting_for_resources(job: &JobInfo, around: &Surroundings) -> Vec<String> {
    let mut lines = Vec::new();
    if job.int("urgency") == Some(0) {
        lines.push("held: its urgency is 0; `flux job urgency ID default' releases it".to_owned());
    } else if job.int("priority") == Some(0) {
        lines.push("held by the priority plugin: its priority is 0".to_owned());
    }
    if let Some(queue) = &around.queue
        && !queue.start
        && queue.blocked.as_deref() != Some("scheduler")
    {
        let name = match job.str("queue") {
            "" => "scheduling is stopped".to_owned(),
            queue => format!("queue {queue} is stopped"),
        };
        let reason = queue.stop_reason.as_deref().map(|reason| format!(": {reason}"));
        let above = queue.parent.as_deref().filter(|_| queue.blocked.is_some());
        let remedy = match above.unwrap_or(job.str("queue")) {
            "" => "; `flux queue start' lets its jobs run".to_owned(),
            queue => format!("; `flux queue start {queue}' lets its jobs run"),
        };
        lines.push(format!("{name}{}{remedy}", reason.unwrap_or_default()));
    }
    if around.no_scheduler {
        lines.push("no scheduler is loaded; `flux module load sched-simple' loads one".to_owned());
    }
    if !lines.is_empty() {
        return lines;
    }
    let mut line = "waits for resources".to_owned();
    let note = |name: &str| job.field(&format!("annotations.sched.{name}")).text();
    let reason = note("reason_pending");
    if !reason.is_empty() {
        line.push_str(&format!(": {reason}"));
    } else if let Some((up, used)) = around.cores {
        line.push_str(&format!(": {used} of {up} cores are in use"));
    }
    // Nobody is in the way of a job that waits for nodes.
    if around.ahead > 0 && !reason.contains("ahead") && !reason.contains("down or drained") {
        line.push_str(&format!("; {} job(s) ahead in the queue", around.ahead));
    }
    if let Some(estimate) = job.annotation("sched.t_estimate").and_then(Value::as_f64) {
        let left = flux_protocol::fsd::python_format((estimate - when::now()).max(0.0));
        line.push_str(&format!("; expected to start in {left}"));
    }
    if let (Some(priority), Some(urgency)) = (job.int("priority"), job.int("urgency")) {
        line.push_str(&format!(" (priority {priority}, urgency {urgency})"));
    }
    vec![line]
}

#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    description: String,
}

/// A job with resources: prologs run before its tasks.
fn running(job: &JobInfo, log: &str) -> String {
    let mut prologs: Vec<String> = Vec::new();
    let mut started = false;
    for event in log.lines().filter_map(|line| Event::decode(line).ok()) {
        let description =
            event.context_as::<Described>().map(|context| context.description).unwrap_or_default();
        match event.name.as_str() {
            "prolog-start" => prologs.push(description),
            "prolog-finish" => prologs.retain(|prolog| *prolog != description),
            "start" => started = true,
            _ => {}
        }
    }
    let place = job.str("nodelist");
    if !prologs.is_empty() {
        return format!("waits for its prolog ({}) on {place}", prologs.join(", "));
    }
    if !started && !log.is_empty() {
        return format!("has resources on {place} and is about to start");
    }
    format!("runs on {place}")
}

/// The other states.
fn elsewhere(job: &JobInfo) -> String {
    match job.state() {
        Some(State::New) => "has just been submitted".to_owned(),
        Some(State::Depend) => match job.dependencies().join(", ").as_str() {
            "" => "waits for the check of its dependencies".to_owned(),
            dependencies => format!("waits for dependencies: {dependencies}"),
        },
        Some(State::Priority) => {
            let info = job.field("annotations.user.reason_pending").text();
            let info = if info.is_empty() { info } else { format!(": {info}") };
            format!("waits for a priority from the priority plugin{info}")
        }
        Some(State::Cleanup) => {
            "has finished and cleans up: epilog, release of resources".to_owned()
        }
        Some(State::Inactive) => {
            let end = job.float("t_inactive");
            let time = local_time(end, "%F %T").unwrap_or_default();
            format!("is inactive since {time}: {}", job.field("inactive_reason").text())
        }
        Some(State::Sched | State::Run) | None => "is in an unknown state".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(json: Value) -> JobInfo {
        JobInfo::new(json).unwrap()
    }

    fn queue(start: bool, reason: Option<&str>) -> QueueStatusResponse {
        QueueStatusResponse {
            enable: true,
            start,
            disable_reason: None,
            stop_reason: reason.map(str::to_owned),
            blocked: None,
            parent: None,
        }
    }

    #[test]
    fn cores_of_a_drained_node_are_neither_up_nor_in_use() {
        let set = |ranks: &str| {
            ResourceSet::decode(&format!(
                r#"{{"version":1,"execution":{{"R_lite":[{{"rank":"{ranks}","children":{{"core":"0-3"}}}}],
                "starttime":0,"expiration":0,"nodelist":["n[{ranks}]"]}}}}"#
            ))
            .unwrap()
        };
        let none = ResourceSet::default();
        assert_eq!(up_and_used(&set("0-2"), &set("1"), &set("0-1")), Some((8, 4)));
        assert_eq!(up_and_used(&set("0-2"), &none, &set("0-1")), Some((12, 8)));
        assert_eq!(up_and_used(&set("0"), &set("0"), &none), None);
    }

    #[test]
    fn a_held_job_in_a_stopped_queue_has_two_reasons() {
        let job =
            job(json!({ "id": 1, "state": 8, "urgency": 0, "priority": 0, "queue": "batch" }));
        let around = Surroundings {
            queue: Some(queue(false, Some("maintenance"))),
            ..Surroundings::default()
        };
        let lines = waiting_for_resources(&job, &around);
        assert!(lines[0].starts_with("held: its urgency is 0"), "{lines:?}");
        assert!(lines[1].starts_with("queue batch is stopped: maintenance; "), "{lines:?}");
    }

    #[test]
    fn a_job_learns_that_there_is_no_scheduler() {
        let job = job(json!({ "id": 1, "state": 8, "urgency": 16, "priority": 16 }));
        let blocked = QueueStatusResponse {
            blocked: Some("scheduler".to_owned()),
            ..queue(false, Some("Scheduler is offline"))
        };
        let around = Surroundings {
            queue: Some(blocked),
            no_scheduler: true,
            cores: Some((8, 0)),
            ..Surroundings::default()
        };
        let lines = waiting_for_resources(&job, &around);
        assert_eq!(lines, ["no scheduler is loaded; `flux module load sched-simple' loads one"]);
    }

    #[test]
    fn a_job_that_waits_tells_what_the_scheduler_says() {
        let mut attrs = json!({ "id": 1, "state": 8, "urgency": 16, "priority": 20 });
        let around = Surroundings { cores: Some((8, 6)), ..Surroundings::default() };
        assert_eq!(
            waiting_for_resources(&job(attrs.clone()), &around),
            ["waits for resources: 6 of 8 cores are in use (priority 20, urgency 16)"]
        );
        attrs["annotations"] = json!({ "sched": { "reason_pending": "no node has 9 cores" } });
        assert_eq!(
            waiting_for_resources(&job(attrs), &around),
            ["waits for resources: no node has 9 cores (priority 20, urgency 16)"]
        );
    }

    #[test]
    fn jobs_wait_for_their_prologs() {
        let job = job(json!({ "id": 1, "state": 16, "nodelist": "n1" }));
        let start =
            "{\"timestamp\":1.0,\"name\":\"prolog-start\",\"context\":{\"description\":\"p\"}}\n";
        assert_eq!(running(&job, start), "waits for its prolog (p) on n1");
        let finish = start.replace("start", "finish");
        assert_eq!(
            running(&job, &format!("{start}{finish}")),
            "has resources on n1 and is about to start"
        );
        assert_eq!(running(&job, ""), "runs on n1");
    }

    #[test]
    fn plugins_have_their_say_while_the_job_waits() {
        let annotations = json!({ "why": { "begin_time": "until noon" } });
        let waits = job(json!({ "id": 1, "state": 2, "annotations": annotations }));
        assert_eq!(plugins(&waits), ["begin_time: until noon"]);
        let gone = job(json!({ "id": 1, "state": 64, "annotations": annotations }));
        assert!(plugins(&gone).is_empty());
    }

    #[test]
    fn dependencies_are_named() {
        let job = job(json!({ "id": 1, "state": 2, "dependencies": ["after-start=7"] }));
        assert_eq!(elsewhere(&job), "waits for dependencies: after-start=7");
    }
}
