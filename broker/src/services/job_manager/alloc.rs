//! The scheduler's protocol (RFC 27).
//!
//! The scheduler says hello and is told which jobs hold resources; it says how many requests it
//! takes at a time (`ready`), and is sent the jobs with the highest priority. Requests carry no
//! matchtag: responses are told apart by the job id.

use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::{Kind, Message};
use flux_protocol::payload::{Empty, Payload, text};
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::job_manager as rpc;
use flux_protocol::rpc::sched;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::admission::Match;
use super::job::{Job, State};
use super::queues::queue_of;
use super::waiting::{QueueName, Waiting, lacks, next, recalled};
use super::{Context, JobManager};
use crate::call::{Call, Sender};
use crate::log::Severity;

/// Jobs in SCHED, and what the scheduler was sent.
#[derive(Debug, Default)]
pub struct Alloc {
    /// Waiting here, first come first; held jobs are not in it.
    queue: Waiting,
    sent: Waiting,
    scheduler: Option<Scheduler>,
    had_scheduler: bool,
    /// What a scheduler is to be told when it is ready, because it was freed after its hello had
    /// told it of it.
    freed_since_hello: Option<Vec<sched::FreeRequest>>,
    running: u64,
    /// It will be looked at in a later turn what the scheduler is to have.
    reordered: bool,
    /// Told whenever resources go back.
    pub(super) freed: Rc<Notify>,
}

/// The scheduler that is ready.
#[derive(Debug)]
struct Scheduler {
    sender: Sender,
    /// Requests at a time; nothing is no limit.
    limit: Option<u32>,
}

impl Alloc {
    /// There was one, and it is gone. The first comes when the brokers have told their resources.
    pub(super) fn has_lost_scheduler(&self) -> bool {
        self.scheduler.is_none() && self.had_scheduler
    }
}

impl JobManager {
    // --- from the state machine of a job ---

    pub(super) fn alloc_state_changed(&mut self, _: JobId, before: State, after: State) {
        let running = |state| matches!(state, State::Run | State::Cleanup);
        if !running(before) && running(after) {
            self.alloc.running += 1;
        } else if running(before) && !running(after) {
            self.alloc.running = self.alloc.running.saturating_sub(1);
        }
    }

    /// The job is in SCHED: queue it, unless it is held.
    pub(super) fn alloc_enqueue(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.queue_priority() == super::job::priority::MIN {
            return;
        }
        job.pending.alloc_queued = true;
        self.alloc.queue.insert(id, queue_of(job), job.queue_priority());
        self.alloc_all(context);
    }

    /// The job is not to be scheduled any more: forget it, or ask the scheduler to.
    pub(super) fn alloc_dequeue(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if std::mem::take(&mut job.pending.alloc_queued) {
            self.alloc.queue.remove(id);
            // No answer of the scheduler will come to go on with.
            let after = context.clone();
            context.later(move |manager: &mut JobManager| manager.act(&after, id));
        }
        self.alloc_cancel(context, id);
    }

    fn alloc_cancel(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if self.alloc.sent.contains(id) && !job.pending.alloc_cancel_sent {
            job.pending.alloc_cancel_sent = true;
            let request = sched::CancelRequest { id };
            notify::<sched::Cancel>(context, &request);
        }
    }

    /// Give the resources back.
    pub(super) fn alloc_free(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.alloc_bypass {
            return;
        }
        if let Some(r) = &job.r {
            let r = (**r).to_owned();
            self.send_free(context, sched::FreeRequest { id, r, is_final: true });
        }
    }

    /// Give a part of the resources back.
    pub(super) fn alloc_free_part(
        &mut self,
        context: &Context,
        id: JobId,
        r: Box<serde_json::value::RawValue>,
        is_final: bool,
    ) {
        self.send_free(context, sched::FreeRequest { id, r, is_final });
    }

    /// A scheduler that does not know of the resources yet need not hear that they are free.
    fn send_free(&mut self, context: &Context, request: sched::FreeRequest) {
        if self.alloc.scheduler.is_some() {
            notify::<sched::Free>(context, &request);
            self.alloc.freed.notify_waiters();
        } else if let Some(freed) = &mut self.alloc.freed_since_hello {
            freed.push(request);
        }
    }

    /// The priority of a job changed while it was queued, or sent.
    pub(super) fn alloc_reorder(&mut self, context: &Context, id: JobId, priority: u32) {
        if priority == super::job::priority::MIN {
            return self.alloc_dequeue(context, id);
        }
        if self.alloc.sent.reorder(id, priority) {
            let jobs = vec![(id, i64::from(priority))];
            notify::<sched::Prioritize>(context, &sched::PrioritizeRequest { jobs });
        } else {
            self.alloc.queue.reorder(id, priority);
        }
        // Many are reordered at a time.
        if !std::mem::replace(&mut self.alloc.reordered, true) {
            let after = context.clone();
            context.later(move |manager: &mut JobManager| {
                manager.alloc.reordered = false;
                manager.alloc_all(&after);
            });
        }
    }

    // --- requests ---

    /// Send what the scheduler takes.
    pub(super) fn alloc_all(&mut self, context: &Context) {
        let Some(scheduler) = &self.alloc.scheduler else { return };
        let limit = scheduler.limit.map_or(usize::MAX, |limit| limit as usize);
        loop {
            let queues = &self.queues;
            let is_started = |name: &QueueName| queues.is_started(name);
            let Some(id) = next(&self.alloc.queue, &self.alloc.sent, limit, is_started) else {
                break;
            };
            self.alloc.queue.remove(id);
            self.send_alloc(context, id);
        }
        let queues = &self.queues;
        let is_started = |name: &QueueName| queues.is_started(name);
        if !lacks(&self.alloc.queue, &self.alloc.sent, limit, is_started) {
            return;
        }
        // Room for others is there when these have come back.
        for id in recalled(&self.alloc.queue, &self.alloc.sent, limit, is_started) {
            self.alloc_cancel(context, id);
        }
    }

    fn send_alloc(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.pending.alloc_queued = false;
        job.pending.alloc_sent = true;
        self.alloc.sent.insert(id, queue_of(job), job.queue_priority());
        let request = sched::AllocRequest {
            id,
            priority: i64::from(job.queue_priority()),
            userid: job.userid,
            t_submit: job.t_submit,
            jobspec: (*job.jobspec).to_owned(),
        };
        match request.encode() {
            Ok(payload) => context.send_untagged("sched.alloc", payload),
            Err(error) => context.log(Severity::Err, format!("alloc of {id}: {error}")),
        }
        self.debug_event(context, id, "debug.alloc-request");
    }

    /// Jobs that were submitted with the debug flag tell more in their eventlog.
    pub(super) fn debug_event(&mut self, context: &Context, id: JobId, name: &str) {
        if self.is_debugged(id) {
            self.post(context, id, name);
        }
    }

    pub(super) fn debug_event_with(
        &mut self,
        context: &Context,
        id: JobId,
        name: &str,
        details: &Value,
    ) {
        if self.is_debugged(id) {
            self.post_with(context, id, name, details);
        }
    }

    fn is_debugged(&self, id: JobId) -> bool {
        use flux_protocol::rpc::job_ingest::flags;
        self.jobs.get(&id).is_some_and(|job| job.flags & flags::DEBUG != 0)
    }

    /// Queues were stopped: what they have at the scheduler comes back.
    pub(super) fn alloc_recall(&mut self, context: &Context) {
        let stopped: Vec<JobId> = self
            .alloc
            .sent
            .ids()
            .filter(|id| self.jobs.get(id).is_some_and(|job| !self.queues.is_started_for(job)))
            .collect();
        for id in stopped {
            self.alloc_dequeue(context, id);
        }
    }

    // --- responses ---

    pub(super) fn alloc_response(&mut self, context: &Context, response: &Message) {
        if let Kind::Response { errnum, .. } = response.kind
            && errnum != 0
        {
            let reason = text(response.payload.as_ref())
                .map_or_else(|_| Errno(errnum).to_string(), str::to_owned);
            self.scheduler_lost(
                context,
                &format!("alloc: stop due to alloc response error: {reason}"),
            );
            return;
        }
        match sched::AllocResponse::decode(response.payload.as_ref()) {
            Ok(response) => self.take_alloc(context, response),
            Err(error) => {
                self.scheduler_lost(context, &format!("alloc: malformed response: {error}"));
            }
        }
    }

    fn take_alloc(&mut self, context: &Context, response: sched::AllocResponse) {
        let id = response.id;
        match response.kind {
            sched::AllocType::Annotate => {
                if let Some(annotations) = response.annotations {
                    self.annotate(context, id, &annotations);
                }
                return;
            }
            _ if !self.alloc.sent.remove(id) => {
                context.log(Severity::Err, format!("alloc: unexpected response for {id}"));
                return;
            }
            _ => {}
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.pending.alloc_sent = false;
        let canceled = std::mem::take(&mut job.pending.alloc_cancel_sent);
        match response.kind {
            sched::AllocType::Success => {
                let Some(r) = response.r else {
                    context.log(Severity::Err, format!("alloc: response for {id} has no R"));
                    return;
                };
                let matched = Match { r, annotations: response.annotations };
                if let Some(matched) = self.admission_asked(context, id, matched) {
                    self.allocated(context, id, matched);
                }
            }
            sched::AllocType::Deny => {
                let note = response.note.unwrap_or_default();
                self.clear_sched_annotations(context, id);
                self.raise_exception(context, id, "alloc", 0, context.broker().owner().0, &note);
            }
            _ => {
                self.clear_sched_annotations(context, id);
                if !canceled {
                    context.log(Severity::Err, format!("alloc: {id} canceled without a request"));
                }
            }
        }
        self.act(context, id);
        self.alloc_all(context);
    }

    pub(super) fn allocated(&mut self, context: &Context, id: JobId, matched: Match) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Match { r, annotations } = matched;
        self.store.put(context, id, "R", r.get());
        job.r = Some(r.into());
        // A job that was canceled meanwhile has the resources all the same, and frees them.
        job.pending.free_posted = false;
        match annotations {
            Some(annotations) => {
                self.annotate(context, id, &annotations);
                let annotations = without_nulls(annotations);
                self.post_with(context, id, "alloc", &json!({ "annotations": annotations }));
            }
            None => self.post(context, id, "alloc"),
        }
    }

    fn clear_sched_annotations(&mut self, context: &Context, id: JobId) {
        let has = |job: &Job| job.annotations.as_ref().is_some_and(|a| a.get("sched").is_some());
        if self.jobs.get(&id).is_some_and(has) {
            self.annotate(context, id, &json!({ "sched": null }));
        }
    }

    /// Change annotations, and tell the journal; they are not in the eventlog.
    pub(super) fn annotate(&mut self, _: &Context, id: JobId, annotations: &Value) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.annotate(annotations);
        let shown = job.annotations.clone().unwrap_or(Value::Null);
        let event = super::new_event("annotations").with_context(&json!({ "annotations": shown }));
        if let Ok(event) = event {
            self.journal.event(&self.jobs, id, &event);
        }
    }

    fn scheduler_lost(&mut self, context: &Context, reason: &str) {
        context.log(Severity::Debug, reason);
        self.alloc.scheduler = None;
        self.alloc.freed_since_hello = None;
        let sent: Vec<JobId> = self.alloc.sent.drain();
        for id in sent {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.pending.alloc_sent = false;
            job.pending.alloc_cancel_sent = false;
            self.clear_sched_annotations(context, id);
            self.act(context, id);
        }
    }

    pub(super) fn alloc_disconnect(&mut self, context: &Context, sender: &Sender) {
        if self.alloc.scheduler.as_ref().is_some_and(|s| s.sender.ended_by(sender)) {
            self.scheduler_lost(context, "alloc: stop due to disconnect");
        }
    }

    // --- methods ---

    pub(super) fn sched_hello(
        &mut self,
        context: &Context,
        request: rpc::SchedHelloRequest,
        call: Call<rpc::SchedHelloResponse>,
    ) {
        self.scheduler_lost(context, "scheduler: hello");
        let holds = |job: &&Job| job.has_resources && !job.pending.free_posted && !job.alloc_bypass;
        for job in self.jobs.values().filter(holds) {
            call.send(&rpc::SchedHelloResponse {
                id: job.id,
                priority: i64::from(job.queue_priority()),
                userid: job.userid,
                t_submit: job.t_submit,
                free: None,
            });
        }
        for allocation in self.housekeeping.hello(request.partial_ok) {
            call.send(&allocation);
        }
        self.alloc.freed_since_hello = Some(Vec::new());
        call.end();
    }

    pub(super) fn sched_ready(
        &mut self,
        context: &Context,
        request: rpc::SchedReadyRequest,
        sender: &Sender,
    ) -> Result<rpc::SchedReadyResponse, Failure> {
        let limit = match (request.mode.as_str(), request.limit) {
            ("unlimited", _) => None,
            ("limited", Some(limit @ 1..)) => Some(limit),
            _ => return Err(Errno::EPROTO.into()),
        };
        self.alloc.scheduler = Some(Scheduler { sender: sender.clone(), limit });
        self.alloc.had_scheduler = true;
        for request in self.alloc.freed_since_hello.take().into_iter().flatten() {
            self.send_free(context, request);
        }
        let text = match limit {
            None => "scheduler: ready unlimited".to_owned(),
            Some(limit) => format!("scheduler: ready limited={limit}"),
        };
        context.log(Severity::Debug, text);
        self.alloc_all(context);
        let count = self.alloc.queue.len() + self.alloc.sent.len();
        Ok(rpc::SchedReadyResponse { count: count as u64 })
    }

    pub(super) fn alloc_query(
        &mut self,
        _: &Context,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::AllocQueryResponse, Failure> {
        let queued = self.alloc.queue.count(|name| self.queues.is_started(name));
        Ok(rpc::AllocQueryResponse {
            queue_length: queued as u64,
            alloc_pending: self.alloc.sent.len() as u64,
            running: self.alloc.running,
        })
    }

    pub(super) fn resource_status(
        &mut self,
        _: &Context,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::ResourceStatusResponse, Failure> {
        let mut allocated = ResourceSet::default();
        for held in self.housekeeping.held() {
            allocated = allocated.union(held);
        }
        for r in self.jobs.values().filter(|job| job.has_resources).filter_map(|job| job.r.as_ref())
        {
            if let Ok(r) = ResourceSet::decode(r.get()) {
                // Two jobs may share a node, but never a core.
                allocated = allocated.union(&r);
            }
        }
        let invalid = |text: String| Failure::new(Errno::EINVAL, text);
        let value = match allocated.is_empty() {
            true => Value::Null,
            false => {
                let text = allocated.encode().map_err(|error| invalid(error.to_string()))?;
                serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?
            }
        };
        Ok(rpc::ResourceStatusResponse { allocated: value })
    }
}

pub(super) fn notify<M: flux_protocol::rpc::Method>(context: &Context, request: &M::Request) {
    use flux_protocol::message::{Flags, Nodeid};
    let sent = context.handle().notify::<M>(Nodeid::ANY, Flags::default(), request);
    if let Err(failure) = sent {
        context.log(Severity::Err, format!("{}: {failure}", M::TOPIC));
    }
}

/// Null in an annotation removes; there is nothing to remove in an event.
fn without_nulls(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        if let Value::Object(object) = value {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(strip);
        }
    }
    strip(&mut value);
    value
}
