//! The thread of one plugin: it owns the instance, the breaker and the plugin's own state, and
//! takes one request after the other.
//!
//! ```text
//!            fault                       pause over, next request
//!   RUNNING --------> DOWN (pause grows) -----------------------> RUNNING
//!                      |  too many faults              announce jobs, state intact
//!                      v
//!                  QUARANTINED --rearm--> RUNNING
//! ```
//!
//! A batch that faults is run again one by one on a fresh instance, so that only the job that
//! breaks the plugin meets the plugin's fault policy.

mod announce;
mod batch;
mod configure;
mod rest;
mod step;
mod turn;

use super::breaker::{Breaker, State};
use super::capability::{lacks, refusal};
use super::desk::Desk;
use super::fault::{CallError, Fault, FaultKind};
use super::instance::{Instance, KeyValues, Program};
use super::manifest::{Kind, Manifest};
use super::recorder::{Recorder, Step};
use super::request::{Answers, Notice, NoticeKind, Parts, Request};
use super::stats::Stats;
use super::topic::label;
use super::v1::types::{
    Answer, Context, Edit, Effect, Event, KeyValue, Level, StartReason, Submission, Verdict,
};
use super::v1::{ComponentNamedList, Exports, Lift, Lower, OfKind, TypedFunc};
pub use announce::dependencies;
use configure::Settings;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// So many capabilities that a plugin lacks are told of.
const LACKING_MAX: usize = 64;

/// Everything that a thread starts with.
pub(super) struct Worker {
    pub(super) program: Program,
    pub(super) manifest: Arc<Manifest>,
    pub(super) context: Context,
    pub(super) values: KeyValues,
    pub(super) breaker: Breaker,
    pub(super) recorder: Option<Recorder>,
    /// What the plugin's clock showed during the last call.
    pub(super) clock: f64,
    /// Highest linear memory of all instances so far, bytes.
    pub(super) peak_memory: usize,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) notices: mpsc::UnboundedSender<Notice>,
    pub(super) instance: Option<Instance>,
    /// Start again without the pause.
    pub(super) impatient: bool,
    /// The call is one with several items.
    pub(super) several: bool,
    /// Capabilities that it was told it lacks.
    pub(super) lacking: BTreeSet<String>,
    /// There is no instance because none is needed.
    pub(super) rests: bool,
    /// Of a scheduler.
    pub(super) desk: Option<Desk>,
    /// What it had before it agreed to the configuration that it has.
    pub(super) former: Option<Settings>,
}

/// What others may look at.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) stats: Stats,
    pub(super) quarantined: bool,
    pub(super) down: bool,
}

impl Worker {
    /// Runs until nobody can ask any more.
    pub(super) fn run(mut self, mut mailbox: mpsc::Receiver<Request>) {
        if self.desk.is_some() {
            return self.run_scheduler(mailbox);
        }
        while let Some(request) = mailbox.blocking_recv() {
            self.serve(request);
        }
    }

    pub(super) fn serve(&mut self, request: Request) {
        match request {
            Request::Handle(events, reply) => {
                let _ = reply.send(self.handle(events));
            }
            Request::Validate(jobs, reply) => {
                let _ = reply.send(self.validate(jobs));
            }
            Request::Frobnicate(jobs, reply) => {
                let _ = reply.send(self.frobnicate(jobs));
            }
            Request::Configure(config, broker_config, reply) => {
                let _ = reply.send(self.configure(config, broker_config));
            }
            Request::Revert(reply) => {
                self.revert();
                let _ = reply.send(());
            }
            Request::Query(reply) => {
                let _ = reply.send(self.call("plugin.query", |exports| Some(exports.query), ()));
            }
            Request::Rearm(reply) => {
                self.breaker.rearm();
                let _ = reply.send(self.ensure());
            }
            Request::Rest(reply) => {
                let _ = reply.send(self.rest());
            }
            Request::Swap(parts, reply) => {
                let _ = reply.send(self.swap(*parts));
            }
            Request::Desk(request) => self.serve_desk(request),
        }
    }

    /// The old instance saves its state and waits until the new one has started.
    fn swap(&mut self, parts: Parts) -> Result<(), CallError> {
        let saved = match self.instance {
            Some(_) => self.call("plugin.save", |exports| Some(exports.save), ()).ok(),
            None => None,
        };
        let old_instance = self.instance.take();
        self.former = None;
        let old = self.install(parts);
        self.context.reason = StartReason::Replace;
        self.context.saved = saved.filter(|saved| !saved.is_empty());
        let outcome = self.start();
        self.context.saved = None;
        if outcome.is_err() {
            self.install(old);
            self.instance = old_instance;
            let mut shared = self.shared();
            shared.down = self.instance.is_none();
            shared.quarantined = shared.down && self.quarantined();
        }
        outcome
    }

    fn install(&mut self, parts: Parts) -> Parts {
        Parts {
            program: std::mem::replace(&mut self.program, parts.program),
            manifest: std::mem::replace(&mut self.manifest, parts.manifest),
            context: std::mem::replace(&mut self.context, parts.context),
            breaker: std::mem::replace(&mut self.breaker, parts.breaker),
            recorder: std::mem::replace(&mut self.recorder, parts.recorder),
        }
    }

    pub(super) fn quarantined(&self) -> bool {
        self.breaker.state(Instant::now()) == State::Open
    }

    fn handle(&mut self, events: Vec<Event>) -> Answers<Answer> {
        let func = |exports: &Exports| match &exports.of_kind {
            OfKind::Jobtap { handle } => Some(*handle),
            _ => None,
        };
        let mut answers = self.batch(events, label, func);
        for answer in answers.iter_mut().flatten() {
            self.accept_effects(&mut answer.effects);
        }
        answers
    }

    fn validate(&mut self, jobs: Vec<Submission>) -> Answers<Verdict> {
        let func = |exports: &Exports| match &exports.of_kind {
            OfKind::Validator { validate } => Some(*validate),
            _ => None,
        };
        self.batch(jobs, |_| "validate", func)
    }

    fn frobnicate(&mut self, jobs: Vec<Submission>) -> Answers<Edit> {
        let func = |exports: &Exports| match &exports.of_kind {
            OfKind::Frobnicator { frobnicate } => Some(*frobnicate),
            _ => None,
        };
        self.batch(jobs, |_| "frobnicate", func)
    }

    /// Carries out what concerns the plugin's own state and takes out what it may not do.
    pub(super) fn accept_effects(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.iter() {
            match effect {
                Effect::Put(KeyValue { key, value: Some(value) }) => {
                    self.values.insert(key.clone(), value.clone());
                }
                Effect::Put(KeyValue { key, value: None }) => {
                    self.values.remove(key);
                }
                Effect::Count(measure) => {
                    *self.shared().stats.metrics.entry(measure.name.clone()).or_default() +=
                        measure.value;
                }
                Effect::Gauge(measure) => {
                    self.shared().stats.metrics.insert(measure.name.clone(), measure.value);
                }
                _ => {}
            }
        }
        effects.retain_mut(|effect| match lacks(effect, &self.program.granted) {
            Some(capability) => {
                let refused = refusal(effect);
                self.tell_lacking(capability);
                match refused {
                    Some(refused) => *effect = refused,
                    None => return false,
                }
                true
            }
            None => !matches!(effect, Effect::Count(_) | Effect::Gauge(_)),
        });
    }

    /// Once for each capability, and not for more of them than anybody reads.
    fn tell_lacking(&mut self, capability: String) {
        if self.lacking.len() < LACKING_MAX && !self.lacking.contains(&capability) {
            let program = &self.program;
            let text = format!("effect refused (EPERM): capability {capability} is not granted");
            program.log.line(&program.plugin, Level::Err, &text);
            self.lacking.insert(capability);
        }
    }

    /// A call with one answer.
    pub(super) fn call<P, R, F>(
        &mut self,
        name: &'static str,
        func: F,
        params: P,
    ) -> Result<R, CallError>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        (R,): ComponentNamedList + Lift + Send + Sync,
        R: 'static,
        F: FnOnce(&Exports) -> Option<TypedFunc<P, (R,)>>,
    {
        self.ensure()?;
        let start = Instant::now();
        let result = self.invoke(name, func, params, start)?;
        self.shared().stats.returned(name, 1, start.elapsed());
        Ok(result)
    }

    pub(super) fn invoke<P, R, F>(
        &mut self,
        name: &'static str,
        func: F,
        params: P,
        start: Instant,
    ) -> Result<R, CallError>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        (R,): ComponentNamedList + Lift + Send + Sync,
        R: 'static,
        F: FnOnce(&Exports) -> Option<TypedFunc<P, (R,)>>,
    {
        let Some(instance) = self.instance.as_mut() else {
            return Err(CallError::Gone(self.program.plugin.to_string()));
        };
        let outcome = instance.call(name, func, params, &mut self.values, start);
        let memory = instance.peak_memory();
        self.clock = instance.clock();
        if memory > self.peak_memory {
            self.peak_memory = memory;
            self.shared().stats.peak_memory = memory;
        }
        outcome.map_err(|fault| self.faulted(name, fault))
    }

    /// A fault that shows only in the answer.
    pub(super) fn misused(&mut self, name: &'static str, detail: String) -> CallError {
        let fault = Fault {
            plugin: self.program.plugin.to_string(),
            callback: name.to_owned(),
            kind: FaultKind::Misuse,
            detail,
            backtrace: Vec::new(),
        };
        self.faulted(name, Box::new(fault))
    }

    /// Throws the instance away, counts, logs and tells.
    fn faulted(&mut self, name: &'static str, fault: Box<Fault>) -> CallError {
        self.instance = None;
        if self.several && fault.kind == FaultKind::Deadline {
            // Each of them may be quick enough; that shows when they are made one by one.
            let text = format!("several calls of {name} at once take too long: {}", fault.detail);
            self.program.log.line(&self.program.plugin, Level::Info, &text);
            return CallError::Fault(fault);
        }
        self.breaker.fault(Instant::now());
        let quarantined = self.quarantined();
        let mut shared = self.shared();
        shared.stats.faulted(name);
        shared.down = true;
        shared.quarantined = quarantined;
        drop(shared);
        let log = |text: &str| self.program.log.line(&self.program.plugin, Level::Err, text);
        log(&fault.to_string());
        if !fault.backtrace.is_empty() {
            log(&format!("backtrace: {}", fault.backtrace.join(" < ")));
        }
        self.notice(NoticeKind::Fault(fault.clone()));
        if quarantined {
            let faults = self.breaker.total();
            self.program.log.line(
                &self.program.plugin,
                Level::Crit,
                &format!("quarantined after {faults} faults"),
            );
            self.notice(NoticeKind::Quarantined);
        }
        CallError::Fault(fault)
    }

    /// Makes sure that there is an instance, if there may be one.
    pub(super) fn ensure(&mut self) -> Result<(), CallError> {
        if self.instance.is_some() {
            return Ok(());
        }
        if self.rests {
            return self.wake();
        }
        let plugin = self.program.plugin.to_string();
        match self.breaker.state(Instant::now()) {
            State::Open => Err(CallError::Quarantined { plugin, faults: self.breaker.total() }),
            State::Waiting(retry) if !self.impatient => Err(CallError::Down { plugin, retry }),
            State::Waiting(_) | State::Closed => {
                self.context.reason = StartReason::Fault;
                self.context.saved = None;
                self.start()?;
                self.notice(NoticeKind::Restarted);
                Ok(())
            }
        }
    }

    /// Makes an instance, initialises it and tells it the active jobs.
    ///
    /// # Errors
    ///
    /// A fault on the way, or the plugin's refusal.
    pub(super) fn start(&mut self) -> Result<(), CallError> {
        let instance = Instance::new(&self.program);
        self.instance = Some(instance.map_err(|fault| self.faulted("start", fault))?);
        self.shared().stats.starts += 1;
        let (context, now) = (self.context.clone(), Instant::now());
        let begun = self.invoke("plugin.init", |exports| Some(exports.init), (context,), now)?;
        if let Err(reason) = begun {
            self.instance = None;
            self.breaker.fault(Instant::now());
            return Err(CallError::Init { plugin: self.program.plugin.to_string(), reason });
        }
        let conf = serde_json::from_str(&self.context.config).unwrap_or_default();
        self.record(Step::Start(conf), Ok(&[]));
        match self.manifest.kind {
            Kind::Jobtap => self.announce()?,
            Kind::Scheduler => self.introduce()?,
            Kind::Validator | Kind::Frobnicator => {}
        }
        let mut shared = self.shared();
        (shared.down, shared.quarantined) = (false, false);
        Ok(())
    }

    pub(super) fn notice(&self, what: NoticeKind) {
        let _ = self.notices.send(Notice { plugin: self.program.plugin.clone(), what });
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
