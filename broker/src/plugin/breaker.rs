//! When a plugin that faulted is started again: at once after the first fault, then after
//! growing pauses, and not at all once it faulted too often in a window of time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How patient the broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Faults within `window` that open the breaker.
    pub faults: u32,
    /// See `faults`.
    pub window: Duration,
    /// Pause after the second fault; doubles with each further one.
    pub pause: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            faults: 5,
            window: Duration::from_mins(5),
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// What may be done with a plugin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Call it.
    Closed,
    /// Not before this much time passed.
    Waiting(Duration),
    /// It is quarantined.
    Open,
}

/// The breaker of one plugin. Pure: it is told the time.
#[derive(Debug)]
pub(super) struct Breaker {
    patience: Patience,
    recent: VecDeque<Instant>,
    until: Option<Instant>,
    open: bool,
    total: u64,
}

impl Breaker {
    /// A closed breaker.
    pub(super) fn new(patience: Patience) -> Self {
        Breaker { patience, recent: VecDeque::new(), until: None, open: false, total: 0 }
    }

    /// Whether it may be called.
    pub(super) fn state(&self, now: Instant) -> State {
        match self.until {
            _ if self.open => State::Open,
            Some(until) if until > now => State::Waiting(until - now),
            _ => State::Closed,
        }
    }

    /// Notes a fault.
    pub(super) fn fault(&mut self, now: Instant) {
        self.total += 1;
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|&at| now.duration_since(at) > self.patience.window) {
            self.recent.pop_front();
        }
        let count = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        self.open = count >= self.patience.faults;
        let pause = match count {
            0 | 1 => Duration::ZERO,
            more => {
                let factor = 1_u32.checked_shl(more - 2).unwrap_or(u32::MAX);
                self.patience.pause.saturating_mul(factor).min(self.patience.pause_max)
            }
        };
        self.until = now.checked_add(pause);
    }

    /// Takes the last fault back.
    pub(super) fn forgive_last(&mut self) {
        self.recent.pop_back();
        self.total = self.total.saturating_sub(1);
        self.until = None;
        self.open = false;
    }

    /// Closes it and forgets the past.
    pub(super) fn rearm(&mut self) {
        self.recent.clear();
        self.until = None;
        self.open = false;
    }

    /// Faults so far, forgiven ones too.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_forgiven_and_pauses_grow_until_quarantine() {
        let start = Instant::now();
        let mut breaker = Breaker::new(Patience::default());
        let mut seen = Vec::new();
        for _ in 0..5 {
            breaker.fault(start);
            seen.push(breaker.state(start));
        }
        let waiting = |ms| State::Waiting(Duration::from_millis(ms));
        assert_eq!(seen, [State::Closed, waiting(100), waiting(200), waiting(400), State::Open]);
        assert_eq!(breaker.state(start + Duration::from_hours(1)), State::Open);
        breaker.rearm();
        assert_eq!(breaker.state(start), State::Closed);
    }

    #[test]
    fn faults_far_apart_never_open_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new(Patience::default());
        for hour in 0..100_u32 {
            let now = start + Duration::from_hours(u64::from(hour));
            breaker.fault(now);
            assert_eq!(breaker.state(now), State::Closed);
        }
        assert_eq!(breaker.total(), 100);
    }
}
