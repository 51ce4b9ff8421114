//! Loading: from an entry of the configuration to a running plugin.

use super::breaker::Breaker;
use super::cache;
use super::capability::{arguments, meet};
use super::componentize::componentize;
use super::conf_files;
use super::engine::PluginEngine;
use super::fault::{CallError, OnFault};
use super::instance::{KeyValues, Limits, Program};
use super::jobs::SharedJobs;
use super::log_gate::{LogGate, LogSink};
use super::manifest::{InspectError, Inspection, Kind, Manifest, inspect};
use super::recorder::Recorder;
use super::scheduler::{Desk, Scheduler, SchedulerEvent};
use super::source::{self, Source, SourceError};
use super::spec::PluginSpec;
use super::stats::Report;
use super::v1::types::{
    Answer, Context, Edit, Event, Instance as InstanceFacts, Level, StartReason, Submission,
    Verdict,
};
use super::worker::{Answers, MAILBOX, Notice, Parts, Request, Shared, Worker};
use flux_protocol::layout::Layout;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use wasmtime::component::Component;

/// Stack of a plugin's thread: the plugin's own and room for compiling it.
const THREAD_STACK: usize = 8 << 20;

/// What a host needs to know of its broker.
#[derive(Clone)]
pub struct HostConfig {
    /// Folders to search, in order; see [`default_path`].
    pub path: Vec<PathBuf>,
    /// Folder for compiled plugins; none to compile at every start.
    pub cache: Option<PathBuf>,
    /// Where plugins log to.
    pub log: LogSink,
    /// Jobs that plugins may look up.
    pub jobs: SharedJobs,
    /// Owner of the instance.
    pub owner: u32,
    /// Brokers.
    pub size: u32,
    /// Instance level.
    pub level: u32,
    /// Broker attributes; a plugin sees those it was granted (`attr:NAME`).
    pub attributes: BTreeMap<String, String>,
    /// The broker's configuration; a plugin sees the tables it was granted (`config:TABLE`).
    pub config: Map<String, Value>,
    /// Fixes the plugins' clock and generator: for replays and tests.
    pub replay: Option<Replay>,
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a plugin may not find out by itself when a recording is replayed.
#[derive(Debug, Clone)]
pub struct Replay {
    /// What `now` answers.
    pub now: ReplayClock,
    /// Seed of `random`.
    pub seed: u64,
}

/// A clock that stands until it is set. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct ReplayClock(Arc<AtomicU64>);

impl ReplayClock {
    /// Sets it, seconds since the epoch.
    pub fn set(&self, now: f64) {
        self.0.store(now.to_bits(), Ordering::Relaxed);
    }

    /// What it shows.
    pub fn now(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl From<f64> for ReplayClock {
    fn from(now: f64) -> Self {
        ReplayClock(Arc::new(AtomicU64::new(now.to_bits())))
    }
}

/// Where plugins are looked for: `FLUX_PLUGIN_PATH` (folders separated by colons) if set, else
/// the folder of the installation and, in a build from source, the one in the source tree.
pub fn default_path() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("FLUX_PLUGIN_PATH") {
        return std::env::split_paths(&path).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let executable = std::env::current_exe().unwrap_or_default();
    let layout = Layout::from_program(&executable);
    let installed = layout.is_installed().then(|| layout.plugindir());
    let source = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist"));
    installed.into_iter().chain([source]).collect()
}

/// Why a plugin was not loaded. The text names the plugin as the configuration does.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file.
    #[error("{name}: {error}")]
    Source {
        /// As configured.
        name: String,
        /// Of the file.
        error: SourceError,
    },
    /// The module.
    #[error("{name}: {error}")]
    Inspect {
        /// As configured.
        name: String,
        /// Of the module.
        error: InspectError,
    },
    /// It is a plugin, but another kind was wanted.
    #[error("{name}: a {found} plugin, but a {wanted} plugin is wanted here")]
    Kind {
        /// As configured.
        name: String,
        /// What it is.
        found: Kind,
        /// What is wanted.
        wanted: Kind,
    },
    /// It wants what it was not granted.
    #[error("{name}: asks for capability '{capability}', which is not granted (caps = [...])")]
    Capability {
        /// As configured.
        name: String,
        /// The first one that is missing.
        capability: String,
    },
    /// It does not fit its world, or the engine cannot compile it.
    #[error("{name}: {reason}")]
    Module {
        /// As configured.
        name: String,
        /// The engine's text.
        reason: String,
    },
    /// It refused, or faulted while it started.
    #[error("{name}: {error}")]
    Start {
        /// As configured.
        name: String,
        /// What happened.
        error: CallError,
    },
}

/// Loads plugins. One per broker; makes the engine when the first plugin is loaded.
#[derive(Debug, Clone)]
pub struct PluginHost {
    config: HostConfig,
    engine: Arc<Mutex<Option<Arc<PluginEngine>>>>,
    notices: mpsc::UnboundedSender<Notice>,
}

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

impl PluginHost {
    /// A host without plugins. Notices of all its plugins go to `notices`.
    pub fn new(config: HostConfig, notices: mpsc::UnboundedSender<Notice>) -> Self {
        PluginHost { config, engine: Arc::default(), notices }
    }

    /// What the host was made with.
    pub fn config(&self) -> &HostConfig {
        &self.config
    }

    /// Changes the configuration that plugins loaded from now on see.
    pub fn set_config(&mut self, config: Map<String, Value>) {
        self.config.config = config;
    }

    /// The plugins of a kind in the plugin path, by inspection alone.
    pub fn available(&self, kind: Kind) -> Vec<(PathBuf, Manifest)> {
        let read = |path: PathBuf| {
            let bytes = std::fs::read(&path).ok()?;
            let manifest = inspect(&bytes).ok()?.manifest;
            (manifest.kind == kind).then_some((path, manifest))
        };
        source::available(&self.config.path).into_iter().filter_map(read).collect()
    }

    /// What a module says about itself, without loading it.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub async fn manifest(&self, spec: &PluginSpec) -> Result<Manifest, LoadError> {
        let (host, spec) = (self.clone(), spec.clone());
        let name = spec.load.clone();
        let read = move || {
            let name = spec.load.clone();
            let source = source::read(&spec.load, &host.config.path, spec.sha256.as_deref())
                .map_err(|error| LoadError::Source { name: name.clone(), error })?;
            let inspection =
                inspect(&source.bytes).map_err(|error| LoadError::Inspect { name, error })?;
            Ok(inspection.manifest)
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| LoadError::Module { name, reason: error.to_string() })?
    }

    /// Loads a plugin. `values` is its own state as it was stored.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; nothing is left behind.
    pub async fn load(
        &self,
        spec: &PluginSpec,
        kind: Kind,
        values: BTreeMap<String, Vec<u8>>,
    ) -> Result<Plugin, LoadError> {
        self.spawn(spec, kind, values, None).await
    }

    /// Loads a scheduler. Its decisions go to `events`, in order.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; nothing is left behind.
    pub async fn load_scheduler(
        &self,
        spec: &PluginSpec,
        events: mpsc::UnboundedSender<SchedulerEvent>,
        values: BTreeMap<String, Vec<u8>>,
    ) -> Result<Scheduler, LoadError> {
        let desk = Some(Desk::new(events));
        self.spawn(spec, Kind::Scheduler, values, desk).await.map(Scheduler::new)
    }

    /// Puts another module in the place of a running plugin. It is handed the state of the old
    /// one and told of all jobs; requests that wait are not lost. When it refuses or faults, the
    /// old one goes on as before, and with it the handles to it.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub async fn replace(&self, old: &Plugin, spec: &PluginSpec) -> Result<Plugin, LoadError> {
        let kind = old.facts().manifest.kind;
        let (host, wanted) = (self.clone(), spec.clone());
        let prepared = tokio::task::spawn_blocking(move || host.prepare(wanted, kind)).await;
        let (parts, facts) = prepared.map_err(|error| LoadError::Module {
            name: spec.load.clone(),
            reason: error.to_string(),
        })??;
        let log = parts.program.log.clone();
        let start = |error| LoadError::Start { name: spec.load.clone(), error };
        let swapped = old.ask(|reply| Request::Swap(Box::new(parts), reply)).await;
        swapped.and_then(|outcome| outcome).map_err(start)?;
        let (requests, shared) = (old.inner.requests.clone(), old.inner.shared.clone());
        Ok(Plugin { inner: Arc::new(Inner { requests, shared, log, facts }) })
    }

    /// [`PluginHost::replace`] for a scheduler.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub async fn replace_scheduler(
        &self,
        old: &Scheduler,
        spec: &PluginSpec,
    ) -> Result<Scheduler, LoadError> {
        self.replace(old.plugin(), spec).await.map(Scheduler::new)
    }

    async fn spawn(
        &self,
        spec: &PluginSpec,
        kind: Kind,
        values: KeyValues,
        desk: Option<Desk>,
    ) -> Result<Plugin, LoadError> {
        let name = spec.load.clone();
        let stopped = |reason: String| LoadError::Module { name: name.clone(), reason };
        let (requests, mailbox) = mpsc::channel(MAILBOX);
        let (loaded, outcome) = oneshot::channel();
        let (host, spec) = (self.clone(), spec.clone());
        std::thread::Builder::new()
            .name(format!("plugin-{}", short_name(&name)))
            .stack_size(THREAD_STACK)
            .spawn(move || match host.start(spec, kind, values, desk) {
                Ok((worker, facts)) => {
                    let (shared, log) = (worker.shared.clone(), worker.program.log.clone());
                    if loaded.send(Ok((facts, shared, log))).is_ok() {
                        worker.run(mailbox);
                    }
                }
                Err(error) => {
                    let _ = loaded.send(Err(error));
                }
            })
            .map_err(|error| stopped(format!("plugin thread: {error}")))?;
        let outcome = outcome.await.map_err(|_| stopped("plugin thread ended".to_owned()))?;
        let (facts, shared, log) = outcome?;
        Ok(Plugin { inner: Arc::new(Inner { requests, shared, log, facts }) })
    }

    /// On the plugin's thread: everything up to a plugin that is ready for calls.
    fn start(
        &self,
        spec: PluginSpec,
        kind: Kind,
        values: KeyValues,
        desk: Option<Desk>,
    ) -> Result<(Worker, PluginFacts), LoadError> {
        let name = spec.load.clone();
        let (parts, facts) = self.prepare(spec, kind)?;
        let mut worker = Worker {
            program: parts.program,
            manifest: parts.manifest,
            context: parts.context,
            breaker: parts.breaker,
            recorder: parts.recorder,
            clock: 0.0,
            values,
            shared: Arc::default(),
            notices: self.notices.clone(),
            instance: None,
            impatient: false,
            rests: false,
            desk,
        };
        worker.start().map_err(|error| LoadError::Start { name, error })?;
        Ok((worker, facts))
    }

    /// Finds, checks and compiles a module.
    fn prepare(&self, spec: PluginSpec, kind: Kind) -> Result<(Parts, PluginFacts), LoadError> {
        let name = spec.load.clone();
        let source = source::read(&spec.load, &self.config.path, spec.sha256.as_deref())
            .map_err(|error| LoadError::Source { name: name.clone(), error })?;
        let inspection = inspect(&source.bytes)
            .map_err(|error| LoadError::Inspect { name: name.clone(), error })?;
        let manifest = Arc::new(inspection.manifest.clone());
        if manifest.kind != kind {
            return Err(LoadError::Kind { name, found: manifest.kind, wanted: kind });
        }
        let granted = grant(&manifest, &spec, source.bundled)
            .map_err(|capability| LoadError::Capability { name: name.clone(), capability })?;
        let module = |reason| LoadError::Module { name: name.clone(), reason };
        let engine = self.engine().map_err(module)?;
        let component = self.compile(&engine, &source, &inspection).map_err(module)?;
        let prepared = Program::prepare(&engine, &component).map_err(module)?;

        let log = LogGate::new(self.config.log.clone());
        if source.renamed {
            let text = format!("{name} is a native plugin's name: loading {}", source.file_name);
            log.line(&manifest.name, Level::Notice, &text);
        }
        let replay = self.config.replay.clone();
        let program = Program {
            plugin: Arc::from(manifest.name.as_str()),
            kind,
            engine,
            prepared,
            limits: spec.limits,
            granted: Arc::from(granted.as_slice()),
            jobs: self.config.jobs.clone(),
            log,
            seed: replay.as_ref().map_or_else(seed, |replay| replay.seed),
            clock: replay.map(|replay| replay.now),
        };
        let parts = Parts {
            program,
            manifest: manifest.clone(),
            context: self.context(&spec, &granted).map_err(module)?,
            breaker: Breaker::new(spec.patience),
            recorder: recorder(&spec, kind).map_err(module)?,
        };
        let Source { path, file_name, digest, bundled, .. } = source;
        Ok((parts, PluginFacts { file_name, path, digest, bundled, manifest, spec }))
    }

    fn engine(&self) -> Result<Arc<PluginEngine>, String> {
        let mut slot = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = slot.as_ref() {
            return Ok(engine.clone());
        }
        let engine = Arc::new(PluginEngine::new()?);
        *slot = Some(engine.clone());
        Ok(engine)
    }

    fn compile(
        &self,
        engine: &PluginEngine,
        source: &Source,
        inspection: &Inspection,
    ) -> Result<Component, String> {
        let engine = &engine.engine;
        if let Some(folder) = &self.config.cache
            && let Some(component) = cache::load(engine, folder, &source.digest)
        {
            return Ok(component);
        }
        let component = if inspection.component {
            Component::new(engine, &source.bytes)
        } else {
            Component::new(engine, componentize(&source.bytes, inspection.manifest.kind)?)
        };
        let component = component.map_err(|error| format!("{error:#}"))?;
        if let Some(folder) = &self.config.cache {
            cache::store(engine, folder, &source.digest, &component);
        }
        Ok(component)
    }

    fn context(&self, spec: &PluginSpec, granted: &[String]) -> Result<Context, String> {
        let attributes: Map<String, Value> = arguments(granted, "attr:")
            .filter_map(|name| {
                let value = self.config.attributes.get(name)?;
                Some((name.to_owned(), Value::String(value.clone())))
            })
            .collect();
        Ok(Context {
            reason: StartReason::Start,
            config: visible_conf(&spec.conf, granted)?,
            broker_config: visible_config(&self.config.config, granted),
            granted: granted.to_vec(),
            instance: InstanceFacts {
                owner: self.config.owner,
                size: self.config.size,
                level: self.config.level,
                attributes: Value::Object(attributes).to_string(),
            },
            saved: None,
        })
    }
}

impl Plugin {
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

    /// Proposes a configuration (the plugin's own, and the broker's).
    ///
    /// # Errors
    ///
    /// The call failed; the inner error is the plugin's refusal.
    pub async fn configure(
        &self,
        conf: &Map<String, Value>,
        broker: &Map<String, Value>,
    ) -> Result<Result<(), String>, CallError> {
        let spec = &self.inner.facts.spec;
        let granted = grant(&self.inner.facts.manifest, spec, self.inner.facts.bundled);
        let granted = granted.unwrap_or_default();
        let conf = match visible_conf(conf, &granted) {
            Ok(conf) => conf,
            Err(text) => return Ok(Err(text)),
        };
        let broker = visible_config(broker, &granted);
        self.ask(|reply| Request::Configure(conf, broker, reply)).await?
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

/// What a plugin asks for and is granted. A bundled plugin is part of the broker and is granted
/// what it asks for.
/// Where the calls of a scheduler are recorded, if anywhere.
fn recorder(spec: &PluginSpec, kind: Kind) -> Result<Option<Recorder>, String> {
    let Some(path) = &spec.record else { return Ok(None) };
    if kind != Kind::Scheduler {
        return Err(format!("record: calls of a {kind} plugin are not recorded, its jobs are"));
    }
    let opened = Recorder::open(path);
    opened.map(Some).map_err(|error| format!("record: {}: {error}", path.display()))
}

fn grant(manifest: &Manifest, spec: &PluginSpec, bundled: bool) -> Result<Vec<String>, String> {
    let grants = if bundled { &manifest.capabilities } else { &spec.caps };
    meet(&manifest.capabilities, grants)
}

fn visible_config(config: &Map<String, Value>, granted: &[String]) -> String {
    let tables = arguments(granted, "config:");
    let visible: Map<String, Value> =
        tables.filter_map(|table| Some((table.to_owned(), config.get(table)?.clone()))).collect();
    Value::Object(visible).to_string()
}

/// The plugin's own configuration, with the files that it was granted.
fn visible_conf(conf: &Map<String, Value>, granted: &[String]) -> Result<String, String> {
    let mut conf = conf.clone();
    let files = conf_files::read(&conf, granted)?;
    if !files.is_empty() {
        conf.insert("files".to_owned(), Value::Object(files));
    }
    Ok(Value::Object(conf).to_string())
}

/// Thread names have 15 bytes.
fn short_name(load: &str) -> &str {
    let name = load.rsplit('/').next().unwrap_or(load);
    let name = name.strip_suffix(".wasm").unwrap_or(name);
    name.get(..name.floor_char_boundary(8)).unwrap_or_default()
}

/// Not for secrets, and different at each start.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8)
}
