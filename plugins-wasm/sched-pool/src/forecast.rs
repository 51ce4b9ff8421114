//! When jobs could start, if every job runs until its end and is then replaced in queue order.

use crate::pool::{Grant, NoGrant, Pool};
use crate::request::Want;
use flux_plugin::types::JobId;
use std::collections::BTreeSet;

/// A copy of the pool on which time passes.
#[derive(Debug)]
pub struct Forecast {
    pool: Pool,
    time: f64,
    /// Ends of jobs that are known: the bits of the time (which sort as it does), and the job.
    ends: BTreeSet<(u64, JobId)>,
    /// A job without an end was placed: nothing can be said of those behind it.
    blind: bool,
}

impl Forecast {
    /// From how things are now.
    pub fn new(pool: &Pool, now: f64) -> Self {
        let ends = pool.ends().map(|(end, id)| (end.to_bits(), id)).collect();
        Forecast { pool: pool.clone(), time: now, ends, blind: false }
    }

    /// Places the next job of the queue and tells when it starts; none when that cannot be known.
    pub fn place(&mut self, id: JobId, want: &Want) -> Option<f64> {
        if self.blind {
            return None;
        }
        loop {
            let end = if want.duration > 0.0 { self.time + want.duration } else { 0.0 };
            match self.pool.allocate(id, want, end) {
                Ok(_) => {
                    self.blind = end == 0.0;
                    if end > 0.0 {
                        self.ends.insert((end.to_bits(), id));
                    }
                    return Some(self.time);
                }
                Err(NoGrant::Infeasible(_)) => return None,
                Err(NoGrant::Insufficient) => {}
            }
            if !self.pass() {
                self.blind = true;
                return None;
            }
        }
    }

    /// Goes to the next end of a job. False when there is none.
    fn pass(&mut self) -> bool {
        let Some((end, id)) = self.ends.pop_first() else { return false };
        self.time = self.time.max(f64::from_bits(end));
        self.pool.release(id);
        while let Some((end, id)) = self.ends.first().copied()
            && f64::from_bits(end) <= self.time
        {
            self.ends.remove(&(end, id));
            self.pool.release(id);
        }
        true
    }
}

/// The start that the first job of the queue has been promised.
#[derive(Debug)]
pub struct Reservation {
    head: JobId,
    want: Want,
    start: f64,
    /// As things will be then, without the job.
    pool: Pool,
}

impl Reservation {
    /// None when it is not known when the job can start.
    pub fn of(pool: &Pool, now: f64, head: JobId, want: &Want) -> Option<Self> {
        let mut forecast = Forecast::new(pool, now);
        let start = forecast.place(head, want)?;
        let mut pool = forecast.pool;
        pool.release(head);
        Some(Reservation { head, want: want.clone(), start, pool })
    }

    /// Whether a job that is granted this until `end` (0: unknown) leaves the start as it is. If
    /// so, it is taken for started.
    pub fn admits(&mut self, id: JobId, grant: &Grant, end: f64) -> bool {
        if end > 0.0 && end <= self.start {
            return true;
        }
        self.pool.hold_shares(id, grant.shares.clone(), end);
        if self.pool.allocate(self.head, &self.want, 0.0).is_ok() {
            self.pool.release(self.head);
            return true;
        }
        self.pool.release(id);
        false
    }
}
