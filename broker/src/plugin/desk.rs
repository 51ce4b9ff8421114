//! What the broker keeps for a scheduler: the books, the questions that wait for an answer, and
//! where decisions go that the books accept.

use super::fault::CallError;
use super::ledger::{Ledger, LedgerError};
use super::recorder::Step;
use super::v1::types::{Change, Decision, Depth, Effect, Job, JobId, Pass, Refusal, ResourceSet};
use flux_protocol::r::ResourceSet as R;
use std::collections::HashMap;
use tokio::sync::{mpsc, oneshot};

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

/// What the thread keeps for a scheduler.
pub(super) struct Desk {
    pub(super) ledger: Ledger,
    pub(super) events: mpsc::UnboundedSender<SchedulerEvent>,
    pub(super) ready: bool,
    pub(super) work: bool,
    next_token: u64,
    pub(super) open: HashMap<u64, Question>,
}

/// A question that waits for `accept` or `refuse`.
pub(super) struct Question {
    pub(super) reply: oneshot::Sender<Result<(), Refusal>>,
    /// To be entered when it is accepted.
    pub(super) expiration: Option<(JobId, f64)>,
}

/// What a scheduler's thread is asked.
pub(super) enum DeskRequest {
    Changes(Vec<Change>),
    Ready(oneshot::Sender<Result<Depth, CallError>>),
    Feasibility(Box<Job>, String, oneshot::Sender<Result<(), Refusal>>),
    Expiration(JobId, f64, oneshot::Sender<Result<(), Refusal>>),
    Status(oneshot::Sender<ResourceStatus>),
    /// For the books alone: all resources, and which of the new ones are up.
    Grow(ResourceSet, String, oneshot::Sender<Result<(), LedgerError>>),
    /// One call of a recording.
    Step(Box<Step>, oneshot::Sender<Result<Pass, CallError>>),
}

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

    pub(super) fn emit(&self, event: SchedulerEvent) {
        let _ = self.events.send(event);
    }

    pub(super) fn token(&mut self, question: Question) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.open.insert(token, question);
        token
    }

    /// Carries one decision out.
    pub(super) fn accept(&mut self, decision: Decision) -> Result<Option<Effect>, LedgerError> {
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
