//! What plugins are told of a job.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::job::{EndEvent, Job, JobResult, State};
use crate::job_record;
use crate::plugin::JobFacts;
use crate::plugin::types;

/// Everything about a job that plugins may know.
pub(super) fn facts(job: &Job) -> JobFacts {
    JobFacts {
        job: record(job),
        jobspec: Arc::from(job.jobspec.get()),
        resources: job.r.as_ref().map(|r| Arc::from(r.get())),
        events: BTreeSet::new(),
    }
}

/// The parsed record. Validators have seen the jobspec, so it can be read.
pub(super) fn record(job: &Job) -> types::Job {
    let mut record = job_record::from_jobspec(job.jobspec.get()).unwrap_or_else(job_record::blank);
    record.id = job.id.0;
    record.userid = job.userid;
    record.t_submit = job.t_submit;
    refresh(&mut record, job);
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
