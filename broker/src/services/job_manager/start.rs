//! The protocol of job execution (RFC 32).
//!
//! An execution service says hello with its name and is sent `NAME.start` requests without
//! matchtag; responses are told apart by the job id. The last one is `release` with `final`.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::{Kind, Message};
use flux_protocol::payload::{Empty, Payload, text};
use flux_protocol::rpc::job_exec as exec;
use flux_protocol::rpc::job_manager as rpc;
use serde_json::json;

use super::job::{ReleaseContext, State};
use super::{Context, JobManager};
use crate::call::Sender;
use crate::job_record;
use crate::log::Severity;

/// The execution service, and how many of its jobs are not released.
#[derive(Debug, Default)]
pub struct Start {
    service: Option<Service>,
    pending: usize,
}

#[derive(Debug)]
struct Service {
    topic: String,
    sender: Sender,
    simulates: bool,
}

impl JobManager {
    /// The job is in RUN, and no prolog holds it: have it executed once its R is stored, since
    /// the job's shell reads it there.
    pub(super) fn start_job(&mut self, context: &Context, id: JobId) {
        let Some(Service { simulates, .. }) = self.start.service else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.pending.start_sent = true;
        self.start.pending += 1;
        // A simulated job has no shell, and does nothing that could be done twice.
        if simulates && job_record::is_simulated(job.jobspec.get()) {
            return self.send_start(context, id);
        }
        self.store.then(context, move |manager, context, result| {
            manager.start_once_stored(context, id, result);
        });
    }

    /// What runs and is not known to after a crash would run a second time.
    fn start_once_stored(&mut self, context: &Context, id: JobId, result: &Result<(), Failure>) {
        match result {
            Ok(()) => self.send_start(context, id),
            Err(_) => self.store.then_next_time(move |manager, context, result| {
                manager.start_once_stored(context, id, result);
            }),
        }
    }

    fn send_start(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.state != State::Run {
            // A fatal exception came meanwhile. Execution would never hear of it.
            job.pending.start_sent = false;
            self.start.pending = self.start.pending.saturating_sub(1);
            return self.act(context, id);
        }
        let Some(service) = &self.start.service else { return };
        let Some(r) = &job.r else {
            context.log(Severity::Err, format!("start: {id} has no R"));
            return;
        };
        let request = exec::StartRequest {
            id,
            userid: job.userid,
            jobspec: (*job.jobspec).to_owned(),
            reattach: std::mem::take(&mut job.pending.reattach),
            r: (**r).to_owned(),
        };
        let reattach = request.reattach;
        match request.encode() {
            Ok(payload) => context.send_untagged(service.topic.clone(), payload),
            Err(error) => context.log(Severity::Err, format!("start of {id}: {error}")),
        }
        self.debug_event(context, id, "debug.start-request");
        if reattach {
            self.debug_event(context, id, "debug.exec-reattach-start");
        }
    }

    pub(super) fn start_response(&mut self, context: &Context, response: &Message) {
        if let Kind::Response { errnum, .. } = response.kind
            && errnum != 0
        {
            let reason = text(response.payload.as_ref())
                .map_or_else(|_| Errno(errnum).to_string(), str::to_owned);
            self.execution_lost(context, "start response error", &format!(": {reason}"));
            return;
        }
        match exec::StartResponse::decode(response.payload.as_ref()) {
            Ok(response) => self.take_start(context, response),
            Err(error) => {
                self.execution_lost(context, "start response error", &format!(": {error}"));
            }
        }
    }

    fn take_start(&mut self, context: &Context, response: exec::StartResponse) {
        let id = response.id;
        if !self.jobs.get(&id).is_some_and(|job| job.pending.start_sent) {
            context.log(Severity::Err, format!("start: unexpected response for {id}"));
            return;
        }
        match response.event {
            exec::StartEvent::Start {} => self.post(context, id, "start"),
            exec::StartEvent::Reattached {} => {
                self.debug_event(context, id, "debug.exec-reattach-finish");
            }
            exec::StartEvent::Finish { status } => {
                self.post_with(context, id, "finish", &json!({ "status": status }));
            }
            exec::StartEvent::Exception { severity, kind, note } => {
                let owner = context.broker().owner().0;
                self.raise_exception(context, id, &kind, severity, owner, &note);
            }
            exec::StartEvent::Release { ranks, is_final } => {
                if is_final {
                    self.start.pending = self.start.pending.saturating_sub(1);
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.pending.start_sent = false;
                    }
                }
                let release = ReleaseContext { ranks, is_final };
                match self.jobs.get_mut(&id) {
                    Some(job) if is_final => {
                        job.pending.release = Some(release);
                        self.process(context, id);
                    }
                    _ => self.post_with(context, id, "release", &release),
                }
            }
        }
    }

    /// The service is gone. What it was running is given to the next one, which says whether it
    /// can go on with it.
    fn execution_lost(&mut self, context: &Context, note: &str, detail: &str) {
        if self.start.service.take().is_none() {
            return;
        }
        context.log(Severity::Debug, format!("start: stop due to {note}{detail}"));
        self.start.pending = 0;
        let mut lost = Vec::new();
        for job in self.jobs.values_mut().filter(|job| job.pending.start_sent) {
            job.pending.start_sent = false;
            job.pending.reattach = job.started;
            lost.push((job.id, job.state != State::Run));
        }
        for (id, is_over) in lost {
            self.debug_event_with(context, id, "debug.start-lost", &json!({ "note": note }));
            if is_over {
                self.act(context, id);
            }
        }
    }

    pub(super) fn start_disconnect(&mut self, context: &Context, sender: &Sender) {
        if self.start.service.as_ref().is_some_and(|s| s.sender.ended_by(sender)) {
            self.execution_lost(context, "disconnect", "");
        }
    }

    pub(super) fn exec_hello(
        &mut self,
        context: &Context,
        request: rpc::ExecHelloRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        if self.start.service.is_some() && self.start.pending > 0 {
            return Err(Failure::new(Errno::EINVAL, "exec service has active jobs"));
        }
        let topic = format!("{}.start", request.service);
        self.start.service =
            Some(Service { topic, sender: sender.clone(), simulates: request.simulates });
        let waiting: Vec<JobId> =
            self.jobs.values().filter(|job| job.is_active()).map(|job| job.id).collect();
        for id in waiting {
            self.act(context, id);
        }
        Ok(Empty)
    }
}
