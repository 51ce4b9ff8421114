//! Loading: from an entry of the configuration to a running plugin.

use super::breaker::Breaker;
use super::cache;
use super::capability::arguments;
use super::componentize::componentize;
use super::desk::{Desk, SchedulerEvent};
use super::engine::PluginEngine;
use super::grants::{grant, visible_conf, visible_config};
use super::handle::{Plugin, PluginFacts};
use super::instance::{KeyValues, Program};
use super::jobs::SharedJobs;
use super::load_error::LoadError;
use super::log_gate::{LogGate, LogSink};
use super::manifest::{Inspection, Kind, Manifest, inspect};
use super::recorder::Recorder;
use super::replay::Replay;
use super::request::{MAILBOX, Notice, Parts, Request};
use super::scheduler::Scheduler;
use super::source::{self, Source};
use super::spec::PluginSpec;
use super::v1::types::{Context, Instance as InstanceFacts, Level, StartReason};
use super::worker::Worker;
use flux_protocol::layout::Layout;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
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

/// Where plugins are looked for: `FLUX_PLUGIN_PATH` (folders separated by colons) if set, else
/// the folder of the installation or, in a build from source, the one in the source tree.
pub fn default_path() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("FLUX_PLUGIN_PATH") {
        return std::env::split_paths(&path).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let executable = std::env::current_exe().unwrap_or_default();
    let layout = Layout::from_program(&executable);
    match layout.is_installed() {
        // And nowhere else: what was not installed is not there, and nobody else's files are.
        true => vec![layout.plugindir()],
        false => vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist"))],
    }
}

/// Loads plugins. One per broker; makes the engine when the first plugin is loaded.
#[derive(Debug, Clone)]
pub struct PluginHost {
    config: HostConfig,
    engine: Arc<Mutex<Option<Arc<PluginEngine>>>>,
    notices: mpsc::UnboundedSender<Notice>,
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

    /// Whether a plugin would load: it is, knows of no job, does nothing to anybody, and is let go.
    /// Returns what is known of it.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub async fn try_out(&self, spec: &PluginSpec, kind: Kind) -> Result<PluginFacts, LoadError> {
        let (notices, _nobody) = mpsc::unbounded_channel();
        let mut apart = PluginHost { notices, ..self.clone() };
        apart.config.jobs = SharedJobs::default();
        apart.config.log = Arc::new(|_: &str, _: Level, _: &str| {});
        let is_scheduler = kind == Kind::Scheduler;
        let mut spec = spec.clone();
        if is_scheduler && let Some(path) = spec.record.take() {
            // There is nothing to be recorded, but it must be possible.
            Recorder::could_open(&path).map_err(|reason| LoadError::Module {
                name: spec.load.clone(),
                reason: format!("record: {}: {reason}", path.display()),
            })?;
        }
        if is_scheduler {
            let (events, _nobody) = mpsc::unbounded_channel();
            let scheduler = apart.load_scheduler(&spec, events, BTreeMap::new()).await?;
            return Ok(scheduler.plugin().facts().clone());
        }
        Ok(apart.load(&spec, kind, BTreeMap::new()).await?.facts().clone())
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
        Ok(old.succeeded_by(log, facts))
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
        Ok(Plugin::new(requests, shared, log, facts))
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
            peak_memory: 0,
            values,
            shared: Arc::default(),
            notices: self.notices.clone(),
            instance: None,
            impatient: false,
            several: false,
            lacking: BTreeSet::new(),
            rests: false,
            desk,
            former: None,
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
        if inspection.memory > spec.limits.memory as u64 {
            let (limit, needed) = (spec.limits.memory, inspection.memory);
            return Err(LoadError::Memory { name, limit, needed });
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

/// Where the calls of a scheduler are recorded, if anywhere.
fn recorder(spec: &PluginSpec, kind: Kind) -> Result<Option<Recorder>, String> {
    let Some(path) = &spec.record else { return Ok(None) };
    if kind != Kind::Scheduler {
        return Err(format!("record: calls of a {kind} plugin are not recorded, its jobs are"));
    }
    let opened = Recorder::open(path);
    opened.map(Some).map_err(|error| format!("record: {}: {error}", path.display()))
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
