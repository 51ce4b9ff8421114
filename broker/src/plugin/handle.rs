//! The handle to a loaded plugin: what is known of it, and its calls.

use super::fault::{CallError, OnFault};
use super::grants::{grant, visible_conf, visible_config};
use super::instance::Limits;
use super::log_gate::LogGate;
use super::manifest::Manifest;
use super::request::{Answers, Request};
use super::spec::PluginSpec;
use super::stats::Report;
use super::v1::types::{Answer, Edit, Event, Submission, Verdict};
use super::worker::Shared;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// A loaded plugin. Dropping the last clone ends it.
#[derive(Debug, Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requests: mpsc::Sender<Request>,
    shared: Arc<Mutex<Shared>>,
    log: LogGate,
    facts: PluginFacts,
}

/// What is known of a loaded plugin.
#[derive(Debug, Clone)]
pub struct PluginFacts {
    /// Name in listings: the file's.
    pub file_name: String,
    /// The file.
    pub path: PathBuf,
    /// SHA-256, hex.
    pub digest: String,
    /// It belongs to this broker, byte for byte.
    pub bundled: bool,
    /// What it says about itself.
    pub manifest: Arc<Manifest>,
    /// How it was loaded.
    pub spec: PluginSpec,
}

impl Plugin {
    /// The handle to a plugin's thread.
    pub(super) fn new(
        requests: mpsc::Sender<Request>,
        shared: Arc<Mutex<Shared>>,
        log: LogGate,
        facts: PluginFacts,
    ) -> Self {
        Plugin { inner: Arc::new(Inner { requests, shared, log, facts }) }
    }

    /// The handle to the same thread after another module took over.
    pub(super) fn succeeded_by(&self, log: LogGate, facts: PluginFacts) -> Self {
        Plugin::new(self.inner.requests.clone(), self.inner.shared.clone(), log, facts)
    }

    /// What is known of it.
    pub fn facts(&self) -> &PluginFacts {
        &self.inner.facts
    }

    /// Its name, also of its RPC service.
    pub fn name(&self) -> &str {
        &self.inner.facts.manifest.name
    }

    /// What becomes of a job when a call fails.
    pub fn on_fault(&self) -> OnFault {
        self.inner.facts.spec.on_fault.unwrap_or_default()
    }

    /// Whether a job that it could not judge is let in: only where the entry says so in as many
    /// words.
    pub fn lets_in_unjudged(&self) -> bool {
        self.inner.facts.spec.on_fault == Some(OnFault::Skip)
    }

    /// Limits of a call.
    pub fn limits(&self) -> Limits {
        self.inner.facts.spec.limits
    }

    /// Calls a jobtap plugin: one answer per event.
    pub async fn handle(&self, events: Vec<Event>) -> Answers<Answer> {
        let count = events.len();
        self.batch(count, |reply| Request::Handle(events, reply)).await
    }

    /// Calls a validator: one verdict per job.
    pub async fn validate(&self, jobs: Vec<Submission>) -> Answers<Verdict> {
        let count = jobs.len();
        self.batch(count, |reply| Request::Validate(jobs, reply)).await
    }

    /// Calls a frobnicator: one edit per job.
    pub async fn frobnicate(&self, jobs: Vec<Submission>) -> Answers<Edit> {
        let count = jobs.len();
        self.batch(count, |reply| Request::Frobnicate(jobs, reply)).await
    }

    /// Proposes a configuration (the plugin's own, and the broker's). It has it if it agrees.
    ///
    /// # Errors
    ///
    /// The call failed; the inner error is the plugin's refusal.
    pub async fn configure(
        &self,
        conf: &Map<String, Value>,
        broker: &Map<String, Value>,
    ) -> Result<Result<(), String>, CallError> {
        let facts = self.facts();
        let granted = grant(&facts.manifest, &facts.spec, facts.bundled);
        let granted = granted.unwrap_or_default();
        let conf = match visible_conf(conf, &granted) {
            Ok(conf) => conf,
            Err(text) => return Ok(Err(text)),
        };
        let broker = visible_config(broker, &granted);
        self.ask(|reply| Request::Configure(conf, broker, reply)).await?
    }

    /// Gives it back what it had before the configuration that it agreed to last.
    ///
    /// # Errors
    ///
    /// Its thread is gone.
    pub async fn revert(&self) -> Result<(), CallError> {
        self.ask(Request::Revert).await
    }

    /// JSON object that the plugin shows of itself.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn query(&self) -> Result<String, CallError> {
        self.ask(Request::Query).await?
    }

    /// Ends a quarantine and starts the plugin again.
    ///
    /// # Errors
    ///
    /// It failed again.
    pub async fn rearm(&self) -> Result<(), CallError> {
        self.ask(Request::Rearm).await?
    }

    /// Give up the instance of a validator or frobnicator until it is asked again; tells whether
    /// there was one.
    pub async fn rest(&self) -> bool {
        self.ask(Request::Rest).await.unwrap_or(false)
    }

    /// Counters.
    pub fn stats(&self) -> Report {
        let shared = self.inner.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let status = match (shared.quarantined, shared.down) {
            (true, _) => "quarantined",
            (false, true) => "down",
            (false, false) => "running",
        };
        let mut report = shared.stats.report(status);
        report.log_dropped = self.inner.log.dropped();
        report
    }

    pub(super) async fn send(&self, request: Request) -> Result<(), CallError> {
        let gone = |_| CallError::Gone(self.name().to_owned());
        self.inner.requests.send(request).await.map_err(gone)
    }

    pub(super) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        answer.await.map_err(|_| CallError::Gone(self.name().to_owned()))
    }

    async fn batch<T>(
        &self,
        count: usize,
        request: impl FnOnce(oneshot::Sender<Answers<T>>) -> Request,
    ) -> Answers<T> {
        match self.ask(request).await {
            Ok(answers) => answers,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }
}
