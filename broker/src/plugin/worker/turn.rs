//! A scheduler's turn: changes go in, decisions that the ledger accepts come out.
//!
//! The plugin's thread takes what is in its mailbox, tells the plugin, and lets it schedule in
//! slices until it has nothing left to decide; between slices it looks into the mailbox again.
//! After a fault, and when the plugin is replaced, the new instance is told the inventory, what
//! is up, who runs and who waits from the ledger: no request is lost or answered twice.

use super::Worker;
use super::step::ready;
use crate::plugin::SchedulerEvent;
use crate::plugin::desk::{DeskRequest, Question, ResourceStatus};
use crate::plugin::fault::CallError;
use crate::plugin::recorder::Step;
use crate::plugin::request::Request;
use crate::plugin::v1::types::{
    Change, Decision, ExpirationRequest, FeasibilityRequest, Level, Refusal,
};
use std::time::Duration;
use tokio::sync::mpsc;

/// Seconds of one slice.
const SLICE: f64 = 0.02;
/// How often a scheduler that is down is tried again, within what its breaker allows.
const PAUSE: Duration = Duration::from_millis(10);
/// Most changes that are passed on in one call.
const BATCH: usize = 1024;

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
            DeskRequest::Grow(set, up, reply) => {
                let Some(desk) = self.desk.as_mut() else { return };
                let _ = reply.send(desk.ledger.grow(&set, &up));
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
                    self.program.log.line(&self.program.plugin, Level::Err, &text);
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
