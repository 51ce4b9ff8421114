//! One running instance of a plugin: a store of its own, its limits, what it may ask the host.
//! Lives on the plugin's thread. After a fault it is dropped, never used again.

use super::engine::{Deadline, PluginEngine};
use super::fault::{Fault, FaultKind};
use super::jobs::SharedJobs;
use super::log_gate::LogGate;
use super::manifest::Kind;
use super::replay::ReplayClock;
use super::v1::types::{Job, Level};
use super::v1::{self, Exports};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use wasmtime::component::{Component, ComponentNamedList, InstancePre, Lift, Lower, TypedFunc};
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline, WasmBacktrace};

/// What an instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, bytes.
    pub memory: usize,
    /// Table elements.
    pub table: usize,
    /// One call; see [`super`] on how it is measured.
    pub deadline: Duration,
    /// What one answer may take on the host's side, bytes.
    pub answer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 64 << 20,
            table: 100_000,
            deadline: Duration::from_secs(1),
            answer: 16 << 20,
        }
    }
}

/// A plugin's own state, by key.
pub(super) type KeyValues = BTreeMap<String, Vec<u8>>;

/// What host functions see.
pub(super) struct State {
    plugin: Arc<str>,
    limits: Limits,
    memory: usize,
    memory_denied: bool,
    deadline: Deadline,
    now: f64,
    random: u64,
    granted: Arc<[String]>,
    /// Moved in for the time of a call.
    pub(super) store: KeyValues,
    jobs: SharedJobs,
    log: LogGate,
    last_error: Option<String>,
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= self.limits.memory;
        if fits {
            self.memory = self.memory.max(desired);
        } else {
            self.memory_denied = true;
        }
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.limits.table)
    }

    fn instances(&self) -> usize {
        32
    }

    fn tables(&self) -> usize {
        32
    }

    fn memories(&self) -> usize {
        8
    }
}

impl v1::host::Host for State {
    fn log(&mut self, level: Level, text: String) {
        if matches!(level, Level::Emerg | Level::Alert | Level::Crit | Level::Err) {
            // It becomes the text of an error, which is one line.
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            self.last_error = Some(lines.collect::<Vec<_>>().join(" "));
        }
        self.log.line(&self.plugin, level, &text);
    }

    fn now(&mut self) -> f64 {
        self.now
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn remaining(&mut self) -> f64 {
        self.deadline.left().unwrap_or_default().as_secs_f64()
    }

    fn granted(&mut self, capability: String) -> bool {
        self.granted.contains(&capability)
    }

    fn get(&mut self, key: String) -> Option<Vec<u8>> {
        self.store.get(&key).cloned()
    }

    fn keys(&mut self, prefix: String) -> Vec<String> {
        let from = self.store.range(prefix.clone()..);
        from.map(|(key, _)| key).take_while(|key| key.starts_with(&prefix)).cloned().collect()
    }
}

impl v1::jobs::Host for State {
    fn lookup(&mut self, id: u64) -> Option<Job> {
        self.jobs.read(id, |facts| facts.job.clone())
    }

    fn jobspec(&mut self, id: u64) -> Option<String> {
        self.jobs.read(id, |facts| facts.jobspec.to_string())
    }

    fn resources(&mut self, id: u64) -> Option<String> {
        self.jobs.read(id, |facts| facts.resources.as_ref().map(ToString::to_string)).flatten()
    }

    fn event_posted(&mut self, id: u64, name: String) -> Option<bool> {
        self.jobs.read(id, |facts| facts.events.contains(name.as_str()))
    }
}

/// What all instances of a loaded plugin have in common.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) plugin: Arc<str>,
    pub(super) kind: Kind,
    pub(super) engine: Arc<PluginEngine>,
    pub(super) prepared: InstancePre<State>,
    pub(super) limits: Limits,
    pub(super) granted: Arc<[String]>,
    pub(super) jobs: SharedJobs,
    pub(super) log: LogGate,
    /// Seeds the generator; fixed for a replay.
    pub(super) seed: u64,
    /// The clock of a replay.
    pub(super) clock: Option<ReplayClock>,
}

impl Program {
    /// Links a component with the host functions.
    pub(super) fn prepare(
        engine: &PluginEngine,
        component: &Component,
    ) -> Result<InstancePre<State>, String> {
        let linker = v1::linker(&engine.engine, component).map_err(|error| format!("{error:#}"))?;
        linker.instantiate_pre(component).map_err(|error| format!("{error:#}"))
    }
}

/// See the module.
pub(super) struct Instance {
    program: Program,
    store: Store<State>,
    exports: Exports,
}

impl Instance {
    /// Makes an instance; runs its start function, but not `init`.
    ///
    /// # Errors
    ///
    /// A fault in the start function, or an export that does not fit.
    pub(super) fn new(program: &Program) -> Result<Self, Box<Fault>> {
        let state = State {
            plugin: program.plugin.clone(),
            limits: program.limits,
            memory: 0,
            memory_denied: false,
            deadline: Deadline::new(Instant::now(), program.limits.deadline),
            now: 0.0,
            random: program.seed,
            granted: program.granted.clone(),
            store: KeyValues::new(),
            jobs: program.jobs.clone(),
            log: program.log.clone(),
            last_error: None,
        };
        let mut store = Store::new(&program.engine.engine, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(program.limits.answer);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            Ok(match store.data_mut().deadline.left() {
                Some(_) => UpdateDeadline::Continue(1),
                None => UpdateDeadline::Interrupt,
            })
        });
        let running = program.engine.running();
        let instance = program
            .prepared
            .instantiate(&mut store)
            .map_err(|error| classify(program, &store, "start", &error))?;
        drop(running);
        let exports = Exports::find(&instance, &mut store, program.kind).map_err(|detail| {
            Box::new(Fault {
                plugin: program.plugin.to_string(),
                callback: "load".to_owned(),
                kind: FaultKind::Misuse,
                detail,
                backtrace: Vec::new(),
            })
        })?;
        Ok(Instance { program: program.clone(), store, exports })
    }

    /// Calls an exported function. The deadline counts from `start`.
    ///
    /// # Errors
    ///
    /// The fault; the instance must then be dropped.
    pub(super) fn call<P, R>(
        &mut self,
        callback: &str,
        func: impl FnOnce(&Exports) -> Option<TypedFunc<P, (R,)>>,
        params: P,
        values: &mut KeyValues,
        start: Instant,
    ) -> Result<R, Box<Fault>>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        (R,): ComponentNamedList + Lift + Send + Sync,
        R: 'static,
    {
        let Some(func) = func(&self.exports) else {
            return Err(self.misuse(callback, "is of another kind"));
        };
        let running = self.program.engine.running();
        let state = self.store.data_mut();
        state.deadline = Deadline::new(start, state.limits.deadline);
        state.now = self.program.clock.as_ref().map_or_else(now, ReplayClock::now);
        state.memory_denied = false;
        state.last_error = None;
        std::mem::swap(&mut state.store, values);
        self.store.set_epoch_deadline(1);
        let outcome = func.call(&mut self.store, params);
        std::mem::swap(&mut self.store.data_mut().store, values);
        drop(running);
        match outcome {
            Ok((result,)) => Ok(result),
            Err(error) => Err(classify(&self.program, &self.store, callback, &error)),
        }
    }

    /// A fault that the caller found in an answer.
    pub(super) fn misuse(&self, callback: &str, detail: impl Into<String>) -> Box<Fault> {
        Box::new(Fault {
            plugin: self.program.plugin.to_string(),
            callback: callback.to_owned(),
            kind: FaultKind::Misuse,
            detail: detail.into(),
            backtrace: Vec::new(),
        })
    }

    /// The plugin's clock during the last call.
    pub(super) fn clock(&self) -> f64 {
        self.store.data().now
    }

    /// Highest linear memory so far, bytes.
    pub(super) fn peak_memory(&self) -> usize {
        self.store.data().memory
    }
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Frames that a fault keeps.
const FRAMES: usize = 16;

fn classify(
    program: &Program,
    store: &Store<State>,
    callback: &str,
    error: &wasmtime::Error,
) -> Box<Fault> {
    let state = store.data();
    let trap = error.downcast_ref::<Trap>().copied();
    let message = error.root_cause().to_string();
    let (kind, detail) = match trap {
        Some(Trap::Interrupt) => {
            let limit = program.limits.deadline.as_millis();
            (FaultKind::Deadline, format!("{limit} ms"))
        }
        Some(Trap::StackOverflow) => (FaultKind::Stack, String::new()),
        Some(_) if state.memory_denied => {
            (FaultKind::Memory, format!("{} MiB", program.limits.memory >> 20))
        }
        Some(trap) => match &state.last_error {
            Some(said) => (FaultKind::Panic, said.clone()),
            None => (FaultKind::Trap, trap.to_string()),
        },
        None if state.memory_denied => {
            (FaultKind::Memory, format!("{} MiB", program.limits.memory >> 20))
        }
        None => (FaultKind::Garbage, message),
    };
    let backtrace = error.downcast_ref::<WasmBacktrace>().map_or_else(Vec::new, |backtrace| {
        let name = |frame: &wasmtime::FrameInfo| {
            frame.func_name().map_or_else(|| format!("func {}", frame.func_index()), str::to_owned)
        };
        backtrace.frames().iter().take(FRAMES).map(name).collect()
    });
    Box::new(Fault {
        plugin: program.plugin.to_string(),
        callback: callback.to_owned(),
        kind,
        detail,
        backtrace,
    })
}
