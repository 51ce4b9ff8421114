//! The engine, made when the first plugin is loaded, and the clock that ends calls.
//!
//! Compiled code compares an epoch counter at loop heads and function entries. A ticker thread
//! moves it on while a call is under way, and sleeps otherwise: an idle broker has no wake-ups.
//! At each tick the plugin's thread looks at its own clocks (see [`Deadline`]).

use nix::time::{ClockId, clock_gettime};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use wasmtime::{Config, Engine, OptLevel};

/// How often a running call is looked at; the error of a deadline.
const TICK: Duration = Duration::from_millis(5);
/// Ticks that the ticker stays awake after the last call, to spare the next one the wake-up.
const LINGER: u32 = 20;
/// Stack of a plugin.
pub(super) const STACK: usize = 512 * 1024;

/// Engine and ticker.
#[derive(Debug)]
pub(super) struct PluginEngine {
    /// The engine.
    pub(super) engine: Engine,
    ticker: Arc<Ticker>,
}

#[derive(Debug, Default)]
struct Ticker {
    calls: Mutex<Calls>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Calls {
    running: u32,
    parked: bool,
    closed: bool,
}

impl PluginEngine {
    /// Makes the engine and starts the ticker.
    ///
    /// # Errors
    ///
    /// The engine's own text; a machine that it cannot run on.
    pub(super) fn new() -> Result<Self, String> {
        let engine = Engine::new(&config()).map_err(|error| format!("{error:#}"))?;
        let ticker = Arc::new(Ticker::default());
        let (weak, tick_engine) = (Arc::downgrade(&ticker), engine.weak());
        std::thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || tick(&weak, &tick_engine))
            .map_err(|error| format!("plugin ticker thread: {error}"))?;
        Ok(PluginEngine { engine, ticker })
    }

    /// A call begins; it ends when the value is dropped.
    pub(super) fn running(&self) -> Running {
        let mut calls = self.ticker.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.running += 1;
        if calls.parked {
            self.ticker.wake.notify_one();
        }
        Running(self.ticker.clone())
    }
}

impl Drop for PluginEngine {
    fn drop(&mut self) {
        let mut calls = self.ticker.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.closed = true;
        self.ticker.wake.notify_one();
    }
}

/// See [`PluginEngine::running`].
#[derive(Debug)]
pub(super) struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut calls = self.0.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.running = calls.running.saturating_sub(1);
    }
}

fn tick(ticker: &Weak<Ticker>, engine: &wasmtime::EngineWeak) {
    let mut idle = 0;
    loop {
        let Some(ticker) = ticker.upgrade() else { return };
        let mut calls = ticker.calls.lock().unwrap_or_else(PoisonError::into_inner);
        idle = if calls.running == 0 { idle + 1 } else { 0 };
        while idle > LINGER && calls.running == 0 && !calls.closed {
            calls.parked = true;
            calls = ticker.wake.wait(calls).unwrap_or_else(PoisonError::into_inner);
        }
        calls.parked = false;
        if calls.closed {
            return;
        }
        drop(calls);
        drop(ticker);
        std::thread::sleep(TICK);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        // The same answer on every machine: a recorded run must replay.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .max_wasm_stack(STACK)
        .wasm_component_model(true)
        // Names are enough to find the place.
        .generate_address_map(false)
        .native_unwind_info(false)
        .memory_guaranteed_dense_image_size(0);
    config
}

/// When a call has to end. A plugin is charged for the processor time of its thread, so that a
/// busy machine does not make a good plugin late; ten times the limit on the wall clock ends it
/// all the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    start: Instant,
    cpu_start: Duration,
    limit: Duration,
}

impl Deadline {
    /// A call of `limit` begins now, on this thread.
    pub(super) fn start(limit: Duration) -> Self {
        Deadline { start: Instant::now(), cpu_start: thread_time(), limit }
    }

    /// Time that is left; none when the call is to be ended.
    pub(super) fn left(&self) -> Option<Duration> {
        let used = thread_time().saturating_sub(self.cpu_start);
        let left = self.limit.checked_sub(used)?;
        let late = self.start.elapsed() > self.limit.saturating_mul(10);
        (!late && !left.is_zero()).then_some(left)
    }
}

/// Processor time of this thread; the wall clock serves where there is no such clock.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
