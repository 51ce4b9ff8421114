//! New jobs, as job-ingest hands them over.
//!
//! A job that is refused leaves no trace here; job-ingest removes what it has stored of it. The
//! others are answered when their submit event can't be lost any more. If it can't be stored, the
//! job has an exception by the time its submitter hears of it, and is purged as soon as it is over:
//! nobody looks after a job that was refused.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::SystemTime;

use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::job_manager as rpc;
use serde::Serialize;

use super::job::{Job, State};
use super::plugins::Introduction;
use super::{Context, JobManager, queues};
use crate::call::Call;

/// Of the submit event, in the order in which it is shown.
#[derive(Serialize)]
struct SubmitContext {
    userid: u32,
    urgency: u32,
    flags: u32,
    version: u32,
}

impl JobManager {
    pub(super) fn submit(
        &mut self,
        context: &Context,
        request: rpc::SubmitRequest,
        call: Call<rpc::SubmitResponse>,
    ) {
        let mut errors = Vec::new();
        let mut accepted = Vec::new();
        let mut signed = HashMap::new();
        for new in request.jobs {
            match self.admit(&new) {
                Ok(job) => {
                    accepted.push(job);
                    signed.extend(new.signed.map(|request| (new.id, request)));
                }
                Err(text) => errors.push((new.id, text)),
            }
        }
        self.plugins_introduce(context, accepted, move |manager, context, introduced| {
            for (job, introduction) in &introduced {
                if let (Introduction::Refused(_), Some(request)) =
                    (introduction, signed.get(&job.id))
                {
                    manager.replay.forget(request);
                }
            }
            manager.introduced(context, introduced, errors, call);
        });
    }

    /// What needs no plugin to be refused.
    fn admit(&mut self, new: &rpc::NewJob) -> Result<Job, String> {
        if self.jobs.contains_key(&new.id) {
            return Err(format!("job id {} is in use", new.id.f58()));
        }
        let mut job = Job::new(new.id, Rc::from(new.jobspec.clone()));
        job.userid = new.userid;
        job.urgency = new.urgency;
        job.flags = new.flags;
        job.t_submit = new.t_submit;
        if let Some(trouble) = self.store.trouble() {
            return Err(format!("jobs can't be stored: {trouble}"));
        }
        self.queues.check_submit(job.userid, queues::queue_of(&job).as_deref())?;
        if let Some(signed) = &new.signed {
            self.replay.take(signed, crate::time::unix_seconds(SystemTime::now()))?;
        }
        Ok(job)
    }

    /// Plugins have had their say: begin the eventlogs.
    fn introduced(
        &mut self,
        context: &Context,
        introduced: Vec<(Job, Introduction)>,
        mut errors: Vec<(JobId, String)>,
        call: Call<rpc::SubmitResponse>,
    ) {
        let mut begun = Vec::new();
        for (job, introduction) in introduced {
            match introduction {
                Introduction::Refused(text) => errors.push((job.id, text)),
                Introduction::Welcome { effects } => {
                    begun.push(job.id);
                    self.begin(context, job, effects);
                }
            }
        }
        let response = rpc::SubmitResponse { errors };
        self.store.then(context, move |manager, context, result: &Result<(), Failure>| {
            if let Err(failure) = result {
                manager.give_up(context, &begun, failure);
            }
            call.finish(result.clone().map(|()| response));
        });
    }

    fn give_up(&mut self, context: &Context, ids: &[JobId], failure: &Failure) {
        let (owner, note) = (context.broker().owner().0, format!("could not be stored: {failure}"));
        for id in ids {
            if let Some(job) = self.jobs.get_mut(id) {
                job.is_refused = true;
                self.raise_exception(context, *id, "submit", 0, owner, &note);
            }
        }
    }

    fn begin(
        &mut self,
        context: &Context,
        job: Job,
        effects: Vec<(usize, crate::plugin::types::Effect)>,
    ) {
        let id = job.id;
        self.max_jobid = self.max_jobid.max(id);
        self.wait.job_new(&job);
        let submit = SubmitContext {
            userid: job.userid,
            urgency: job.urgency,
            flags: job.flags,
            version: 1,
        };
        let event = flux_protocol::eventlog::Event::new(job.t_submit, "submit");
        self.jobs.insert(id, job);
        if let Ok(event) = event.with_context(&submit) {
            self.post_event(context, id, event);
        }
        self.apply_effects(context, effects);
        // Dependencies that plugins added stand before this in the eventlog.
        self.post(context, id, "validate");
        debug_assert!(self.jobs.get(&id).is_none_or(|job| job.state >= State::Depend));
    }
}
