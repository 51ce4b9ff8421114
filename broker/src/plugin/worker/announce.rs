//! What a jobtap plugin that starts is told of the jobs that are there.

use super::Worker;
use super::batch::BATCH;
use crate::plugin::fault::CallError;
use crate::plugin::manifest::LoadOrder;
use crate::plugin::request::{Answers, NoticeKind};
use crate::plugin::topic::{label, topic};
use crate::plugin::v1::types::{
    Answer, DependencyRequest, Entry, Event, Job, JobNew, JobState, Origin, StateChange,
};
use crate::plugin::v1::{Exports, OfKind};

impl Worker {
    pub(super) fn announce(&mut self) -> Result<(), CallError> {
        let mut jobs = self.program.jobs.active();
        let state = |job: &Job| job.state as u8;
        jobs.sort_by_key(|job| match self.manifest.order {
            LoadOrder::None => (0, job.id),
            LoadOrder::State => (state(job), job.id),
            LoadOrder::StateReversed => (u8::MAX - state(job), job.id),
        });
        let mut events: Vec<Event> = jobs.into_iter().flat_map(|job| self.news_of(job)).collect();
        events.retain(|event| topic(event).is_none_or(|topic| self.manifest.wants(&topic)));
        let mut effects = Vec::new();
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(BATCH));
            for answer in self.announce_chunk(std::mem::replace(&mut events, rest)) {
                effects.extend(answer?.effects);
            }
        }
        self.accept_effects(&mut effects);
        if !effects.is_empty() {
            self.notice(NoticeKind::Effects(effects));
        }
        Ok(())
    }

    fn announce_chunk(&mut self, events: Vec<Event>) -> Answers<Answer> {
        let func = |exports: &Exports| match &exports.of_kind {
            OfKind::Jobtap { handle } => Some(*handle),
            _ => None,
        };
        self.chunk(events, label, func)
    }

    /// What a plugin that starts is told of a job: create, new and, where it waits for
    /// dependencies, those.
    fn news_of(&self, job: Job) -> Vec<Event> {
        let news = JobNew { job: job.clone(), origin: Origin::Loaded };
        let mut events = vec![Event::Create(news.clone()), Event::New(news)];
        if job.state == JobState::Depend {
            let facts = self.program.jobs.read(job.id, |facts| facts.jobspec.clone());
            let dependencies = facts.map(|jobspec| dependencies(&jobspec)).unwrap_or_default();
            for (scheme, value, dependency) in dependencies {
                let job = job.clone();
                events.push(Event::Dependency(DependencyRequest {
                    job,
                    scheme,
                    value,
                    dependency,
                }));
            }
            let entry = Entry {
                timestamp: job.t_submit,
                name: "depend".to_owned(),
                context: "{}".to_owned(),
            };
            events.push(Event::State(StateChange { job, previous: JobState::New, entry }));
        }
        events
    }
}

/// Scheme, value and the whole of each dependency in a jobspec (RFC 26).
pub fn dependencies(jobspec: &str) -> Vec<(String, String, String)> {
    let jobspec: serde_json::Value = serde_json::from_str(jobspec).unwrap_or_default();
    let list = jobspec.pointer("/attributes/system/dependencies").and_then(|list| list.as_array());
    let text = |dependency: &serde_json::Value, key: &str| {
        dependency.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let parse = |dependency: &serde_json::Value| {
        (text(dependency, "scheme"), text(dependency, "value"), dependency.to_string())
    };
    list.into_iter().flatten().map(parse).collect()
}
