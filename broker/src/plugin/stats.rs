//! Counters per plugin and callback. Times go to a histogram whose buckets grow by an eighth of a
//! power of two, so a quantile is right within about 9 %.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

const SUB_BITS: u32 = 3;
const BUCKETS: usize = 64 << SUB_BITS;

/// Times of one callback.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u32>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Adds `count` calls of this length.
    pub(super) fn record(&mut self, time: Duration, count: u32) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let index = bucket(nanos);
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        if let Some(slot) = self.counts.get_mut(index) {
            *slot = slot.saturating_add(count);
        }
        self.total += u64::from(count);
        self.max = self.max.max(nanos);
    }

    /// The time that `fraction` (0 to 1) of the calls do not exceed.
    pub(super) fn quantile(&self, fraction: f64) -> Duration {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let rank = ((self.total as f64 * fraction).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return Duration::from_nanos(upper_bound(index).min(self.max));
            }
        }
        Duration::from_nanos(self.max)
    }
}

fn bucket(nanos: u64) -> usize {
    let bits = 64 - nanos.leading_zeros();
    if bits <= SUB_BITS {
        return usize::try_from(nanos).unwrap_or(0);
    }
    let shift = bits - SUB_BITS - 1;
    let sub = (nanos >> shift) & ((1 << SUB_BITS) - 1);
    let index = (u64::from(shift + 1) << SUB_BITS) + sub;
    usize::try_from(index).unwrap_or(BUCKETS - 1).min(BUCKETS - 1)
}

fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    let sub = index & ((1 << SUB_BITS) - 1);
    match index >> SUB_BITS {
        0 => sub,
        group => (((1 << SUB_BITS) + sub + 1) << (group - 1)) - 1,
    }
}

/// Counters of one callback.
#[derive(Debug, Clone, Default)]
pub(super) struct CallbackStats {
    /// Calls that returned.
    pub(super) calls: u64,
    /// Calls that faulted.
    pub(super) faults: u64,
    /// Refusals among the answers.
    pub(super) refusals: u64,
    /// Times.
    pub(super) times: Histogram,
}

/// Counters of one plugin.
#[derive(Debug, Clone, Default)]
pub(super) struct Stats {
    /// By callback.
    pub(super) callbacks: BTreeMap<&'static str, CallbackStats>,
    /// Highest linear memory of any instance so far, bytes.
    pub(super) peak_memory: usize,
    /// Instances started.
    pub(super) starts: u64,
    /// Counters and gauges that the plugin keeps.
    pub(super) metrics: BTreeMap<String, f64>,
}

/// [`CallbackStats`] for people and programs; times in microseconds.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct CallbackReport {
    /// Calls that returned.
    pub calls: u64,
    /// Calls that faulted.
    pub faults: u64,
    /// Refusals among the answers.
    pub refusals: u64,
    /// Half of the calls took no longer.
    pub p50_us: f64,
    /// 99 % of the calls took no longer.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// [`Stats`] for people and programs.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Report {
    /// "running", "down" or "quarantined".
    pub status: &'static str,
    /// Calls over all callbacks.
    pub calls: u64,
    /// Faults over all callbacks.
    pub faults: u64,
    /// Bytes.
    pub peak_memory: usize,
    /// Instances started.
    pub starts: u64,
    /// Log lines dropped.
    pub log_dropped: u64,
    /// By callback.
    pub callbacks: BTreeMap<&'static str, CallbackReport>,
    /// The plugin's own.
    pub metrics: BTreeMap<String, f64>,
}

impl Stats {
    /// Adds `count` calls that took `time` together.
    pub(super) fn returned(&mut self, callback: &'static str, count: u32, time: Duration) {
        let stats = self.callbacks.entry(callback).or_default();
        stats.calls += u64::from(count);
        stats.times.record(time / count.max(1), count);
    }

    /// Notes a refusal.
    pub(super) fn refused(&mut self, callback: &'static str) {
        self.callbacks.entry(callback).or_default().refusals += 1;
    }

    /// Notes a fault.
    pub(super) fn faulted(&mut self, callback: &'static str) {
        self.callbacks.entry(callback).or_default().faults += 1;
    }

    /// Summary.
    pub(super) fn report(&self, status: &'static str) -> Report {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let report = |stats: &CallbackStats| CallbackReport {
            calls: stats.calls,
            faults: stats.faults,
            refusals: stats.refusals,
            p50_us: micros(stats.times.quantile(0.5)),
            p99_us: micros(stats.times.quantile(0.99)),
            max_us: micros(Duration::from_nanos(stats.times.max)),
        };
        Report {
            status,
            calls: self.callbacks.values().map(|stats| stats.calls).sum(),
            faults: self.callbacks.values().map(|stats| stats.faults).sum(),
            peak_memory: self.peak_memory,
            starts: self.starts,
            log_dropped: 0,
            callbacks: self.callbacks.iter().map(|(name, stats)| (*name, report(stats))).collect(),
            metrics: self.metrics.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_holds_times_within_an_eighth(nanos in 0_u64..u64::MAX / 16) {
            let bound = upper_bound(bucket(nanos));
            prop_assert!(bound >= nanos && bound - nanos <= nanos / 8, "{nanos} {bound}");
        }
    }

    #[test]
    fn quantiles_come_from_the_right_calls() {
        let mut times = Histogram::default();
        times.record(Duration::from_micros(1), 99);
        times.record(Duration::from_millis(1), 1);
        assert!(times.quantile(0.5) < Duration::from_micros(2));
        assert!(times.quantile(0.99) < Duration::from_micros(2));
        assert_eq!(times.quantile(1.0), Duration::from_millis(1));
    }
}
