//! The engine, made when the first plugin is loaded, and the clock that ends calls.
//!
//! Compiled code compares an epoch counter at loop heads and function entries. A ticker thread
//! moves it on while a call is under way, and sleeps otherwise: an idle broker has no wake-ups.
//! At each tick the plugin's thread looks at its own clocks (see [`Deadline`]).

use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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

/// A call begins with `running`, then looks at `parked`; the ticker sets `parked`, then looks at
/// `running`: so one of them sees the other, and a call that finds the ticker awake takes no lock.
#[derive(Debug, Default)]
struct Ticker {
    /// Calls that are under way.
    running: AtomicU32,
    /// The ticker sleeps until it is woken.
    parked: AtomicBool,
    /// There will be no more calls.
    closed: Mutex<bool>,
    wake: Condvar,
}

impl Ticker {
    /// Waits until a call begins; tells whether one may begin at all.
    fn park(&self) -> bool {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.store(true, Ordering::SeqCst);
        while !*closed && self.running.load(Ordering::SeqCst) == 0 {
            closed = self.wake.wait(closed).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.store(false, Ordering::SeqCst);
        !*closed
    }

    /// Under the lock, so that it does not fall between the ticker's look and its sleep.
    fn wake(&self, close: bool) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        *closed |= close;
        self.wake.notify_one();
    }
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
        self.ticker.running.fetch_add(1, Ordering::SeqCst);
        if self.ticker.parked.load(Ordering::SeqCst) {
            self.ticker.wake(false);
        }
        Running(self.ticker.clone())
    }
}

impl Drop for PluginEngine {
    fn drop(&mut self) {
        self.ticker.wake(true);
    }
}

/// See [`PluginEngine::running`].
#[derive(Debug)]
pub(super) struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(ticker: &Weak<Ticker>, engine: &wasmtime::EngineWeak) {
    let mut idle = 0;
    while let Some(ticker) = ticker.upgrade() {
        idle = if ticker.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
        if idle > LINGER && !ticker.park() {
            return;
        }
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
///
/// The processor's clock costs as much as a short call, so it is read for the first time at the
/// first look; until then the wall clock counts, up to a tick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    start: Instant,
    limit: Duration,
    first_look: Option<FirstLook>,
}

#[derive(Debug, Clone, Copy)]
struct FirstLook {
    /// Charged for the time before.
    before: Duration,
    /// The processor's clock.
    at: Duration,
}

impl Deadline {
    /// A call of `limit` that began at `start`, on this thread.
    pub(super) fn new(start: Instant, limit: Duration) -> Self {
        Deadline { start, limit, first_look: None }
    }

    /// Time that is left; none when the call is to be ended.
    pub(super) fn left(&mut self) -> Option<Duration> {
        let elapsed = self.start.elapsed();
        let clock = thread_time();
        let first = FirstLook { before: elapsed.min(TICK), at: clock };
        let first = self.first_look.get_or_insert(first);
        let used = first.before + clock.saturating_sub(first.at);
        let left = self.limit.checked_sub(used)?;
        let late = elapsed > self.limit.saturating_mul(10);
        (!late && !left.is_zero()).then_some(left)
    }
}

/// Processor time of this thread; the wall clock serves where there is no such clock.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
