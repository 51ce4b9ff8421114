//! What plugins are told of a job: the jobspec taken apart once.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::job::{EndEvent, Job, JobResult, State};
use crate::plugin::JobFacts;
use crate::plugin::types;

#[derive(Deserialize)]
struct Jobspec<'a> {
    #[serde(borrow, default)]
    attributes: Attributes<'a>,
    #[serde(default)]
    resources: Vec<Value>,
    #[serde(default)]
    tasks: Vec<Value>,
}

#[derive(Deserialize, Default)]
struct Attributes<'a> {
    #[serde(borrow, default)]
    system: System<'a>,
}

#[derive(Deserialize, Default)]
struct System<'a> {
    #[serde(default)]
    duration: f64,
    queue: Option<String>,
    bank: Option<String>,
    project: Option<String>,
    #[serde(default)]
    job: Value,
    #[serde(borrow)]
    constraints: Option<&'a RawValue>,
}

/// Everything about a job that plugins may know.
pub(super) fn facts(job: &Job) -> JobFacts {
    JobFacts {
        job: record(job),
        jobspec: Arc::from(job.jobspec.get()),
        resources: job.r.as_ref().map(|r| Arc::from(r.get())),
        events: BTreeSet::new(),
    }
}

/// The parsed record. What of a jobspec can't be read is left out: validators have seen it.
pub(super) fn record(job: &Job) -> types::Job {
    let spec: Option<Jobspec<'_>> = serde_json::from_str(job.jobspec.get()).ok();
    let mut record = types::Job {
        id: job.id.0,
        userid: job.userid,
        urgency: u8::try_from(job.urgency).unwrap_or(u8::MAX),
        priority: job.priority,
        state: state(job.state),
        flags: job.flags,
        t_submit: job.t_submit,
        duration: 0.0,
        request: None,
        name: String::new(),
        queue: None,
        bank: None,
        project: None,
        constraints: None,
        job_result: job.result().map(result),
        end_event: job.end_event.as_ref().map(end_event_name),
    };
    if let Some(spec) = spec {
        record.name = name(&spec);
        record.request = request(&spec.resources);
        let system = spec.attributes.system;
        record.duration = system.duration;
        record.queue = system.queue;
        record.bank = system.bank;
        record.project = system.project;
        record.constraints = system.constraints.map(|raw| raw.get().to_owned());
    }
    record
}

/// Take over what events change, without reading the jobspec again.
pub(super) fn refresh(record: &mut types::Job, job: &Job) {
    record.urgency = u8::try_from(job.urgency).unwrap_or(u8::MAX);
    record.priority = job.priority;
    record.state = state(job.state);
    record.flags = job.flags;
    record.job_result = job.result().map(result);
    record.end_event = job.end_event.as_ref().map(end_event_name);
}

pub(super) fn state(state: State) -> types::JobState {
    match state {
        State::New => types::JobState::New,
        State::Depend => types::JobState::Depend,
        State::Priority => types::JobState::Priority,
        State::Sched => types::JobState::Sched,
        State::Run => types::JobState::Run,
        State::Cleanup => types::JobState::Cleanup,
        State::Inactive => types::JobState::Inactive,
    }
}

fn result(result: JobResult) -> types::JobResult {
    match result {
        JobResult::Completed => types::JobResult::Completed,
        JobResult::Failed => types::JobResult::Failed,
        JobResult::Canceled => types::JobResult::Canceled,
        JobResult::Timeout => types::JobResult::Timeout,
    }
}

fn end_event_name(event: &EndEvent) -> String {
    match event {
        EndEvent::Finish { .. } => "finish".to_owned(),
        EndEvent::Exception { .. } => "exception".to_owned(),
    }
}

/// `attributes.system.job.name`, else the base name of the command.
fn name(spec: &Jobspec<'_>) -> String {
    if let Some(name) = spec.attributes.system.job.get("name").and_then(Value::as_str) {
        return name.to_owned();
    }
    let command = spec.tasks.first().and_then(|task| task.get("command")?.get(0)?.as_str());
    command.map_or_else(String::new, |path| path.rsplit('/').next().unwrap_or(path).to_owned())
}

/// A V1 request (RFC 25): `node > slot > {core, gpu}`, or `slot > {core, gpu}`.
fn request(resources: &[Value]) -> Option<types::Request> {
    let [top] = resources else { return None };
    let (nodes, exclusive, slot) = match kind(top)? {
        "node" => {
            let [slot] = top.get("with")?.as_array()?.as_slice() else { return None };
            let exclusive = top.get("exclusive").and_then(Value::as_bool).unwrap_or(false);
            (Some(count(top.get("count")?)?), exclusive, slot)
        }
        "slot" => (None, false, top),
        _ => return None,
    };
    if kind(slot)? != "slot" {
        return None;
    }
    let per_slot = |wanted: &str| -> Option<u32> {
        let with = slot.get("with")?.as_array()?;
        let found = with.iter().find(|resource| kind(resource) == Some(wanted));
        match found {
            None => Some(0),
            Some(resource) => u32::try_from(resource.get("count")?.as_u64()?).ok(),
        }
    };
    Some(types::Request {
        nodes,
        slots: count(slot.get("count")?)?,
        cores_per_slot: per_slot("core")?,
        gpus_per_slot: per_slot("gpu")?,
        exclusive,
    })
}

fn kind(resource: &Value) -> Option<&str> {
    resource.get("type")?.as_str()
}

/// A number, or a range with an operator (RFC 14).
fn count(value: &Value) -> Option<types::Count> {
    let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
    if let Some(exact) = number(value) {
        return Some(types::Count { min: exact, max: Some(exact), step: None });
    }
    let operator = match value.get("operator").and_then(Value::as_str).unwrap_or("+") {
        "+" => types::CountOperator::Add,
        "*" => types::CountOperator::Multiply,
        "^" => types::CountOperator::Power,
        _ => return None,
    };
    let operand = value.get("operand").and_then(number).unwrap_or(1);
    Some(types::Count {
        min: number(value.get("min")?)?,
        max: value.get("max").and_then(number),
        step: Some(types::CountStep { operator, operand }),
    })
}
