//! `events-journal`: a stream of the events of all jobs, with those of the past first.

use std::collections::HashMap;

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::{Empty, Payload};
use flux_protocol::rpc::job_manager as rpc;
use serde_json::value::RawValue;

use super::job::Job;
use super::{Context, JobManager};
use crate::call::{Call, Calls, Sender};
use crate::config::Config;

/// Events that are kept of each job for those who come later.
#[derive(Debug, Default)]
pub struct Journal {
    streams: Calls<rpc::JournalResponse, Filter>,
    /// The eventlogs of all jobs that are known.
    logs: HashMap<JobId, Vec<Box<RawValue>>>,
    events: u64,
}

/// Which events a stream has.
#[derive(Debug, Default)]
struct Filter {
    allow: Option<Vec<String>>,
    deny: Vec<String>,
}

impl Filter {
    fn passes(&self, name: &str) -> bool {
        let named = |names: &Vec<String>| names.iter().any(|other| other == name);
        self.allow.as_ref().is_none_or(named) && !named(&self.deny)
    }

    fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }
}

impl Journal {
    pub(super) fn new(_: &Config) -> Journal {
        Journal::default()
    }

    pub(super) fn stats(&self) -> serde_json::Value {
        serde_json::json!({ "listeners": self.streams.len(), "events": self.events })
    }

    pub(super) fn disconnect(&mut self, sender: &Sender) {
        self.streams.disconnect(sender);
    }

    /// An event of a job: tell, and keep.
    pub(super) fn event(&mut self, jobs: &HashMap<JobId, Job>, id: JobId, event: &Event) {
        let Ok(entry) = entry(event) else { return };
        self.events += 1;
        if !self.streams.is_empty() {
            let mut response = response(id, vec![entry.clone()]);
            add_objects(&mut response, jobs.get(&id), &event.name);
            self.send(&response, &event.name);
        }
        if event.name != "annotations" {
            self.logs.entry(id).or_default().push(entry);
        }
    }

    /// An event that was read back from the KVS: keep it.
    pub(super) fn restore(&mut self, id: JobId, events: &[Event]) {
        let entries = events.iter().filter_map(|event| entry(event).ok()).collect();
        self.logs.insert(id, entries);
    }

    /// Names of the events of a job.
    pub(super) fn names(&self, id: JobId) -> Vec<String> {
        let log = self.logs.get(&id).into_iter().flatten();
        log.map(|entry| name_of(entry)).collect()
    }

    /// The job is purged.
    pub(super) fn forget(&mut self, id: JobId) {
        self.logs.remove(&id);
    }

    /// Encoded once for all streams.
    fn send(&self, response: &rpc::JournalResponse, name: &str) {
        let Ok(payload) = response.encode() else { return };
        for (call, filter) in self.streams.iter() {
            if filter.passes(name) {
                call.send_raw(payload.clone());
            }
        }
    }
}

impl JobManager {
    pub(super) fn journal(
        &mut self,
        _: &Context,
        request: rpc::JournalRequest,
        call: Call<rpc::JournalResponse>,
    ) {
        let names = |object: Option<flux_protocol::payload::Object>| {
            object.map(|object| object.keys().cloned().collect::<Vec<_>>())
        };
        let filter =
            Filter { allow: names(request.allow), deny: names(request.deny).unwrap_or_default() };
        let mut ids: Vec<JobId> = self
            .jobs
            .values()
            .filter(|job| request.full || job.is_active())
            .map(|job| job.id)
            .collect();
        ids.sort_unstable();
        for id in ids {
            self.send_backlog(id, &filter, &call);
        }
        call.send(&rpc::JournalResponse { id: -1, events: Vec::new(), jobspec: None, r: None });
        self.journal.streams.insert(call, filter);
    }

    fn send_backlog(&self, id: JobId, filter: &Filter, call: &Call<rpc::JournalResponse>) {
        let (Some(job), Some(log)) = (self.jobs.get(&id), self.journal.logs.get(&id)) else {
            return;
        };
        let events: Vec<Box<RawValue>> = log
            .iter()
            .filter(|entry| filter.is_open() || filter.passes(&name_of(entry)))
            .cloned()
            .collect();
        if events.is_empty() {
            return;
        }
        let mut response = response(id, events);
        response.jobspec = Some((*job.jobspec).to_owned());
        response.r = job.r.as_ref().map(|r| (**r).to_owned());
        call.send(&response);
    }

    pub(super) fn journal_cancel(
        &mut self,
        _: &Context,
        request: rpc::CancelRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        if let Some((call, _)) = self.journal.streams.cancel(sender, request.matchtag) {
            call.end();
        }
        Ok(Empty)
    }
}

fn response(id: JobId, events: Vec<Box<RawValue>>) -> rpc::JournalResponse {
    let id = i64::try_from(id.0).unwrap_or(-1);
    rpc::JournalResponse { id, events, jobspec: None, r: None }
}

/// The jobspec goes with the event that begins a job, R with the one that gives it.
fn add_objects(response: &mut rpc::JournalResponse, job: Option<&Job>, name: &str) {
    let Some(job) = job else { return };
    match name {
        "submit" => response.jobspec = Some((*job.jobspec).to_owned()),
        "alloc" => response.r = job.r.as_ref().map(|r| (**r).to_owned()),
        _ => {}
    }
}

fn entry(event: &Event) -> Result<Box<RawValue>, Failure> {
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let line = event.encode().map_err(|error| invalid(error.to_string()))?;
    RawValue::from_string(line.trim_end().to_owned()).map_err(|error| invalid(error.to_string()))
}

fn name_of(entry: &RawValue) -> String {
    Event::decode(entry.get()).map(|event| event.name).unwrap_or_default()
}
