//! Many requests of one kind: one after the other, and several at a time.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::figures::{figure, percentiles};
use crate::failure::Failure;

/// How many requests, and how many of them at a time in the second part.
pub(super) struct Rounds {
    pub(super) count: usize,
    pub(super) parallel: usize,
}

impl Rounds {
    /// Print the rate and the latency of `request` one by one, and its rate in parallel.
    ///
    /// `request` is given the number of the round, from 0 to twice `count`.
    pub(super) async fn measure<F, Fut>(&self, name: &str, request: F) -> Result<(), Failure>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.one_by_one(name, &request).await?;
        let begin = Instant::now();
        let mut open = JoinSet::new();
        for round in self.count..2 * self.count {
            if open.len() >= self.parallel {
                next(&mut open).await?;
            }
            open.spawn(request(round));
        }
        while !open.is_empty() {
            next(&mut open).await?;
        }
        let name = format!("{name}, {} at a time", self.parallel);
        figure(&name, rate(self.count, begin.elapsed()), "/s");
        Ok(())
    }

    /// Print the rate and the latency of `request` one by one.
    pub(super) async fn one_by_one<F, Fut>(&self, name: &str, request: F) -> Result<(), Failure>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Result<(), Failure>>,
    {
        let mut times = Vec::with_capacity(self.count);
        let begin = Instant::now();
        for round in 0..self.count {
            let begin = Instant::now();
            request(round).await?;
            times.push(begin.elapsed());
        }
        figure(name, rate(self.count, begin.elapsed()), "/s");
        percentiles(&format!("{name}, each"), times);
        Ok(())
    }
}

async fn next(open: &mut JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    open.join_next().await.unwrap_or(Ok(Ok(()))).map_err(Failure::new)?
}

pub(super) fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}
