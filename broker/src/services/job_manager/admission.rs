//! Between the scheduler's match and the allocation: plugins may hold a job back (`job.admit`).
//!
//! A job that is held gives its match back, waits, and asks the scheduler again when resources
//! were freed or some time has passed.

use std::time::Duration;

use flux_protocol::fluid::JobId;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::sched;
use serde_json::Value;
use serde_json::value::RawValue;

use super::job::State;
use super::{Context, JobManager};
use crate::plugin::types::{Admission, Event};

/// How soon a job that is held is tried again when nothing else happens.
const RETRY: Duration = Duration::from_secs(5);

/// What the scheduler gave.
#[derive(Debug)]
pub(crate) struct Match {
    pub(super) r: Box<RawValue>,
    pub(super) annotations: Option<Value>,
}

/// What the plugins say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Admit,
    Hold { plugin: String, reason: String },
}

impl JobManager {
    /// True when plugins are asked; [`JobManager::admission_decided`] goes on then.
    pub(super) fn admission_asked(
        &mut self,
        context: &Context,
        id: JobId,
        matched: Match,
    ) -> Option<Match> {
        let Some(record) = self.record(id) else { return Some(matched) };
        let Ok(set) = ResourceSet::decode(matched.r.get()) else { return Some(matched) };
        let cores = u32::try_from(set.ncores()).unwrap_or(u32::MAX);
        let gpus = u32::try_from(set.ngpus()).unwrap_or(u32::MAX);
        let ranks = set.ranks().to_string();
        let event = Event::Admit(Admission { job: record, ranks, cores, gpus });
        if !self.plugins_want(&event) {
            return Some(matched);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.pending.admitting = true;
        }
        self.plugins_admit(context, id, event, matched);
        None
    }

    pub(super) fn admission_decided(
        &mut self,
        context: &Context,
        id: JobId,
        matched: Match,
        decision: Decision,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let waits = job.state == State::Sched;
        let (plugin, reason) = match decision {
            Decision::Admit => {
                job.pending.admitting = false;
                self.allocated(context, id, matched);
                return self.act(context, id);
            }
            Decision::Hold { .. } if !waits => (String::new(), String::new()),
            Decision::Hold { plugin, reason } => (plugin, reason),
        };
        let request = sched::FreeRequest { id, r: matched.r, is_final: true };
        super::alloc::notify::<sched::Free>(context, &request);
        if !waits {
            // It was canceled, or its priority is being decided again.
            job.pending.admitting = false;
            return self.act(context, id);
        }
        self.explain(context, id, &plugin, &reason);
        let after = context.clone();
        let freed = self.alloc.freed.clone();
        context.spawn(
            async move {
                tokio::select! {
                    () = freed.notified() => {}
                    () = tokio::time::sleep(RETRY) => {}
                }
            },
            move |manager: &mut JobManager, ()| {
                if let Some(job) = manager.jobs.get_mut(&id) {
                    job.pending.admitting = false;
                    manager.act(&after, id);
                }
            },
        );
    }
}
