//! When jobs could start, if every job runs until its end and is then replaced in queue order.

use crate::pool::{NoGrant, Pool};
use crate::request::Want;
use flux_plugin::types::JobId;

/// A copy of the pool on which time passes.
#[derive(Debug)]
pub struct Forecast {
    pool: Pool,
    time: f64,
    /// A job without an end was placed: nothing can be said of those behind it.
    blind: bool,
}

impl Forecast {
    /// From how things are now.
    pub fn new(pool: &Pool, now: f64) -> Self {
        Forecast { pool: pool.clone(), time: now, blind: false }
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
                    return Some(self.time);
                }
                Err(NoGrant::Infeasible(_)) => return None,
                Err(NoGrant::Insufficient) => {}
            }
            let Some(next) = self.next_end() else {
                self.blind = true;
                return None;
            };
            self.time = self.time.max(next);
            let over: Vec<JobId> =
                self.pool.ends().filter(|(end, _)| *end <= self.time).map(|(_, id)| id).collect();
            over.into_iter().for_each(|id| self.pool.release(id));
        }
    }

    fn next_end(&self) -> Option<f64> {
        self.pool.ends().map(|(end, _)| end).min_by(f64::total_cmp)
    }
}
