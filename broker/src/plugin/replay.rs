//! A clock and a seed for plugins whose calls are played again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
