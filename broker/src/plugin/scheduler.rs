//! Talking to a scheduler plugin: changes go in, decisions that the ledger accepts come out.
//!
//! The plugin's thread takes what is in its mailbox, tells the plugin, and lets it schedule in
//! slices until it has nothing left to decide; between slices it looks into the mailbox again.
//! After a fault, and when the plugin is replaced, the new instance is told the inventory, what
//! is up, who runs and who waits from the ledger: no request is lost or answered twice.

use super::fault::CallError;
use super::handle::Plugin;
use super::ledger::{Ledger, LedgerError};
use super::recorder::{Step, ready};
use super::request::Request;
use super::v1::types::{
    Change, Decision, Depth, Effect, ExpirationRequest, FeasibilityRequest, Job, JobId, Pass,
    Refusal,
};
use super::worker::Worker;
use flux_protocol::r::ResourceSet as R;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Seconds of one slice.
const SLICE: f64 = 0.02;
/// How often a scheduler that is down is tried again, within what its breaker allows.
const PAUSE: Duration = Duration::from_millis(10);
/// Most changes that are passed on in one call.
const BATCH: usize = 1024;

/// An answer to an open request, or something the scheduler wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum SchedulerEvent {
    /// The job has resources.
    Allocated {
        /// Job.
        id: JobId,
        /// RFC 20, JSON.
        r: String,
        /// For the job's annotations, JSON object ("sched" inside).
        annotations: Option<String>,
    },
    /// The job can never run.
    Denied {
        /// Job.
        id: JobId,
        /// Why.
        note: String,
    },
    /// The request was cancelled, as asked.
    Canceled {
        /// Job.
        id: JobId,
    },
    /// The job still waits, and this is known about it.
    Annotated {
        /// Job.
        id: JobId,
        /// JSON object ("sched" inside).
        annotations: String,
    },
    /// A timer, an explanation, an RPC.
    Effect(Effect),
}

/// What all, what is allocated and what is down, each an R.
#[derive(Debug, Clone)]
pub struct ResourceStatus {
    /// The inventory.
    pub all: R,
    /// Held by jobs.
    pub allocated: R,
    /// Not up.
    pub down: R,
}

/// A loaded scheduler. Clones talk to the same one.
#[derive(Debug, Clone)]
pub struct Scheduler {
    plugin: Plugin,
}

/// What the thread keeps for a scheduler.
pub(super) struct Desk {
    pub(super) ledger: Ledger,
    pub(super) events: mpsc::UnboundedSender<SchedulerEvent>,
    ready: bool,
    work: bool,
    next_token: u64,
    open: HashMap<u64, Question>,
}

/// A question that waits for `accept` or `refuse`.
struct Question {
    reply: oneshot::Sender<Result<(), Refusal>>,
    /// To be entered when it is accepted.
    expiration: Option<(JobId, f64)>,
}

/// What a scheduler's thread is asked.
pub(super) enum DeskRequest {
    Changes(Vec<Change>),
    Ready(oneshot::Sender<Result<Depth, CallError>>),
    Feasibility(Box<Job>, String, oneshot::Sender<Result<(), Refusal>>),
    Expiration(JobId, f64, oneshot::Sender<Result<(), Refusal>>),
    Status(oneshot::Sender<ResourceStatus>),
    /// One call of a recording.
    Step(Box<Step>, oneshot::Sender<Result<Pass, CallError>>),
}

// === impl Scheduler ===

impl Scheduler {
    pub(super) fn new(plugin: Plugin) -> Self {
        Scheduler { plugin }
    }

    /// Name, statistics, query, configuration.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Tells of changes, in order. Answers come as [`SchedulerEvent`]s.
    ///
    /// The first is `Resources`, then `Up`, then `Hello` with the jobs that run; then
    /// [`Scheduler::ready`]. `Feasibility` and `JobExpiration` have functions of their own.
    ///
    /// # Errors
    ///
    /// The plugin is gone.
    pub async fn tell(&self, changes: Vec<Change>) -> Result<(), CallError> {
        self.plugin.send(Request::Desk(DeskRequest::Changes(changes))).await
    }

    /// How many requests it wants to see at once (`job-manager.sched-ready`).
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn ready(&self) -> Result<Depth, CallError> {
        self.plugin.ask(|reply| Request::Desk(DeskRequest::Ready(reply))).await?
    }

    /// Whether a job could ever run. The inner error is the scheduler's text for the user.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn feasibility(
        &self,
        job: Job,
        jobspec: String,
    ) -> Result<Result<(), Refusal>, CallError> {
        let job = Box::new(job);
        self.plugin.ask(|reply| Request::Desk(DeskRequest::Feasibility(job, jobspec, reply))).await
    }

    /// Proposes another end for a running job; 0 for none.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn expiration(
        &self,
        id: JobId,
        expiration: f64,
    ) -> Result<Result<(), Refusal>, CallError> {
        self.plugin.ask(|reply| Request::Desk(DeskRequest::Expiration(id, expiration, reply))).await
    }

    /// Makes one call of a recording; the books have no part in it.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn replay(&self, step: Step) -> Result<Vec<Decision>, CallError> {
        let asked = |reply| Request::Desk(DeskRequest::Step(Box::new(step), reply));
        Ok(self.plugin.ask(asked).await??.decisions)
    }

    /// The books. Answered also while the plugin is down.
    ///
    /// # Errors
    ///
    /// The plugin is gone.
    pub async fn status(&self) -> Result<ResourceStatus, CallError> {
        self.plugin.ask(|reply| Request::Desk(DeskRequest::Status(reply))).await
    }
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(events: mpsc::UnboundedSender<SchedulerEvent>) -> Self {
        Desk {
            ledger: Ledger::default(),
            events,
            ready: false,
            work: false,
            next_token: 1,
            open: HashMap::new(),
        }
    }

    fn emit(&self, event: SchedulerEvent) {
        let _ = self.events.send(event);
    }

    fn token(&mut self, question: Question) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.open.insert(token, question);
        token
    }

    /// Carries one decision out.
    fn accept(&mut self, decision: Decision) -> Result<Option<Effect>, LedgerError> {
        match decision {
            Decision::Allocate(allocation) => {
                let mut r = self.ledger.allocate(&allocation)?;
                let id = allocation.id;
                let text = |text: String| LedgerError::Text { id, text };
                if let Some(scheduling) = allocation.scheduling {
                    let raw = serde_json::value::RawValue::from_string(scheduling);
                    r.scheduling = Some(raw.map_err(|error| text(error.to_string()))?);
                }
                let r = r.encode().map_err(|error| text(error.to_string()))?;
                let annotations = allocation.annotations.map(|inner| below_sched(&inner));
                self.emit(SchedulerEvent::Allocated { id, r, annotations });
            }
            Decision::Deny(denial) => {
                self.ledger.deny(denial.id)?;
                self.emit(SchedulerEvent::Denied { id: denial.id, note: denial.note });
            }
            Decision::Annotate(annotation) => {
                if self.ledger.is_pending(annotation.id) {
                    let annotations = below_sched(&annotation.annotations);
                    self.emit(SchedulerEvent::Annotated { id: annotation.id, annotations });
                }
            }
            // The request was ended when the cancellation was passed on.
            Decision::Canceled(_) | Decision::Other(_) => {}
            Decision::Accept(token) => {
                if let Some(question) = self.open.remove(&token) {
                    if let Some((id, expiration)) = question.expiration {
                        self.ledger.set_expiration(id, expiration);
                    }
                    let _ = question.reply.send(Ok(()));
                }
            }
            Decision::Refuse(refused) => {
                if let Some(question) = self.open.remove(&refused.token) {
                    let _ = question.reply.send(Err(refused.refusal));
                }
            }
            Decision::Effect(effect) => return Ok(Some(effect)),
        }
        Ok(None)
    }
}

fn below_sched(inner: &str) -> String {
    format!("{{\"sched\":{inner}}}")
}

// === impl Worker: a scheduler's turn ===

impl Worker {
    /// Runs until nobody can ask any more.
    pub(super) fn run_scheduler(mut self, mut mailbox: mpsc::Receiver<Request>) {
        loop {
            let busy = self.desk.as_ref().is_some_and(|desk| desk.work);
            let pausing = self.instance.is_none() && !self.quarantined();
            let request =
                if busy || pausing { mailbox.try_recv().ok() } else { mailbox.blocking_recv() };
            if pausing && request.is_none() {
                std::thread::sleep(PAUSE);
                if let Some(desk) = self.desk.as_mut() {
                    desk.work = true;
                }
            }
            match request {
                Some(Request::Desk(DeskRequest::Changes(mut changes))) => {
                    let mut other = None;
                    while changes.len() < BATCH {
                        match mailbox.try_recv() {
                            Ok(Request::Desk(DeskRequest::Changes(more))) => changes.extend(more),
                            Ok(request) => {
                                other = Some(request);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.take_note(changes);
                    if let Some(request) = other {
                        self.serve(request);
                    }
                }
                Some(request) => self.serve(request),
                None if mailbox.is_closed() && mailbox.is_empty() => return,
                None => {}
            }
            self.schedule();
        }
    }

    pub(super) fn serve_desk(&mut self, request: DeskRequest) {
        match request {
            DeskRequest::Changes(changes) => self.take_note(changes),
            DeskRequest::Ready(reply) => {
                let depth = self.call("ready", ready, ());
                if let (Ok(_), Some(desk)) = (&depth, self.desk.as_mut()) {
                    desk.ready = true;
                }
                self.record(Step::Ready, depth.as_ref().map(|_| &[][..]));
                let _ = reply.send(depth);
            }
            DeskRequest::Feasibility(job, jobspec, reply) => {
                let Some(desk) = self.desk.as_mut() else { return };
                let token = desk.token(Question { reply, expiration: None });
                let request = FeasibilityRequest { token, job: *job, jobspec };
                self.question(token, Change::Feasibility(request));
            }
            DeskRequest::Expiration(id, expiration, reply) => {
                let Some(desk) = self.desk.as_mut() else { return };
                let token = desk.token(Question { reply, expiration: Some((id, expiration)) });
                let request = ExpirationRequest { token, id, expiration };
                self.question(token, Change::JobExpiration(request));
            }
            DeskRequest::Status(reply) => {
                let Some(desk) = self.desk.as_ref() else { return };
                let (all, allocated, down) = desk.ledger.status();
                let _ = reply.send(ResourceStatus { all, allocated, down });
            }
            DeskRequest::Step(step, reply) => {
                let _ = reply.send(self.step(*step));
            }
        }
    }

    /// Passes on a change that wants an answer. A scheduler that faults on it has none to give.
    fn question(&mut self, token: u64, change: Change) {
        self.take_note(vec![change]);
        let faulted = self.instance.is_none();
        if let Some(desk) = self.desk.as_mut()
            && faulted
            && let Some(question) = desk.open.remove(&token)
        {
            let text = format!("scheduler {} failed to answer", self.program.plugin);
            let errnum = flux_protocol::errno::Errno::EAGAIN.0;
            let _ = question.reply.send(Err(Refusal { errnum, text }));
        }
    }

    /// Enters changes in the ledger and tells the plugin.
    fn take_note(&mut self, changes: Vec<Change>) {
        let Some(desk) = self.desk.as_mut() else { return };
        let mut good = Vec::with_capacity(changes.len());
        for change in changes {
            match desk.ledger.note(&change) {
                Ok(canceled) => {
                    canceled.into_iter().for_each(|id| desk.emit(SchedulerEvent::Canceled { id }));
                    good.push(change);
                }
                Err(error) => {
                    let text = format!("change not passed on: {error}");
                    let level = super::v1::types::Level::Err;
                    self.program.log.line(&self.program.plugin, level, &text);
                }
            }
        }
        desk.work = true;
        // One that has to be started is told by the introduction.
        if self.instance.is_some() {
            self.update(good);
        } else if self.ensure().is_ok() {
            good.retain(|change| {
                matches!(
                    change,
                    Change::Feasibility(_)
                        | Change::JobExpiration(_)
                        | Change::Timer(_)
                        | Change::Rpc(_)
                        | Change::RpcResponse(_)
                        | Change::Other(_)
                )
            });
            self.update(good);
        }
    }

    fn update(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        if let Ok(pass) = self.step(Step::Update(changes)) {
            self.carry_out("update", pass.decisions);
        }
    }

    /// One slice.
    fn schedule(&mut self) {
        let Some(desk) = self.desk.as_mut() else { return };
        if !desk.work || !desk.ready {
            desk.work = false;
            return;
        }
        desk.work = false;
        if self.instance.is_none() && self.ensure().is_err() {
            return;
        }
        if let Ok(pass) = self.step(Step::Schedule(SLICE)) {
            self.carry_out("schedule", pass.decisions);
            if let Some(desk) = self.desk.as_mut() {
                desk.work |= pass.more;
            }
        }
    }

    fn carry_out(&mut self, callback: &'static str, decisions: Vec<Decision>) {
        let Some(desk) = self.desk.as_mut() else { return };
        let mut effects = Vec::new();
        let mut wrong = None;
        for decision in decisions {
            match desk.accept(decision) {
                Ok(effect) => effects.extend(effect),
                Err(error) => {
                    wrong = Some(error.to_string());
                    break;
                }
            }
        }
        self.accept_effects(&mut effects);
        if let Some(desk) = self.desk.as_ref() {
            effects.into_iter().for_each(|effect| desk.emit(SchedulerEvent::Effect(effect)));
        }
        if let Some(detail) = wrong {
            self.misused(callback, detail);
        }
    }

    /// Tells an instance that was just initialised what the ledger knows.
    pub(super) fn introduce(&mut self) -> Result<(), CallError> {
        let Some(desk) = self.desk.as_mut() else { return Ok(()) };
        desk.work = true;
        let (introduction, pending, ready) =
            (desk.ledger.introduction(), desk.ledger.pending(), desk.ready);
        if introduction.is_empty() {
            return Ok(());
        }
        let told = self.step(Step::Update(introduction))?;
        self.carry_out("update", told.decisions);
        if ready {
            self.step(Step::Ready)?;
        }
        if !pending.is_empty() {
            let told = self.step(Step::Update(vec![Change::Alloc(pending)]))?;
            self.carry_out("update", told.decisions);
        }
        Ok(())
    }
}
