//! What the thread of a plugin is asked, and what it tells without being asked.

use super::breaker::Breaker;
use super::desk::DeskRequest;
use super::fault::{CallError, Fault};
use super::instance::Program;
use super::manifest::Manifest;
use super::recorder::Recorder;
use super::v1::types::{Answer, Context, Edit, Effect, Event, Submission, Verdict};
use std::sync::Arc;
use tokio::sync::oneshot;

/// How long a request may wait for room in the mailbox of a plugin that is stuck.
pub(super) const MAILBOX: usize = 64;

/// Answers to a batch, one per item.
pub(super) type Answers<T> = Vec<Result<T, CallError>>;

/// What the thread is asked.
pub(super) enum Request {
    Handle(Vec<Event>, oneshot::Sender<Answers<Answer>>),
    Validate(Vec<Submission>, oneshot::Sender<Answers<Verdict>>),
    Frobnicate(Vec<Submission>, oneshot::Sender<Answers<Edit>>),
    Configure(String, String, oneshot::Sender<Result<Result<(), String>, CallError>>),
    /// What it agreed to last is not to be.
    Revert(oneshot::Sender<()>),
    Query(oneshot::Sender<Result<String, CallError>>),
    Rearm(oneshot::Sender<Result<(), CallError>>),
    /// Nobody has asked for a while.
    Rest(oneshot::Sender<bool>),
    /// Another module takes over, if it starts; else everything stays as it was.
    Swap(Box<Parts>, oneshot::Sender<Result<(), CallError>>),
    Desk(DeskRequest),
}

/// What changes when another module takes over.
pub(super) struct Parts {
    pub(super) program: Program,
    pub(super) manifest: Arc<Manifest>,
    pub(super) context: Context,
    pub(super) breaker: Breaker,
    pub(super) recorder: Option<Recorder>,
}

/// What a plugin did outside of a request.
#[derive(Debug)]
pub struct Notice {
    /// Name of the plugin.
    pub plugin: Arc<str>,
    /// What.
    pub what: NoticeKind,
}

/// See [`Notice`].
#[derive(Debug)]
pub enum NoticeKind {
    /// It was started again after a fault, or re-armed; held jobs may be tried again.
    Restarted,
    /// It faulted.
    Fault(Box<Fault>),
    /// It faulted too often.
    Quarantined,
    /// What it wants done on being told of the active jobs.
    Effects(Vec<Effect>),
}
