//! EASY backfill: the first job of the queue has a reservation for when it can start; a job behind
//! it starts earlier if that delays the first one not at all.
//!
//! Only jobs with a duration can be planned with: while the first job waits for one that may run
//! for ever, there is no reservation and nothing is started early.
//!
//! Configuration: `backfill-depth = N` (100), how many jobs are looked at behind the first;
//! `queue-depth` as the default scheduler has it ("unlimited").

use flux_plugin::prelude::*;
use sched_pool::{Engine, Policy, parse_depth};
use serde_json::Value;

struct Backfill(Engine);

impl Plugin for Backfill {
    fn init(context: &Context) -> Result<Self, String> {
        let config: Value =
            serde_json::from_str(&context.config).map_err(|error| error.to_string())?;
        let depth = match config.get("backfill-depth") {
            None => 100,
            Some(depth) => depth
                .as_u64()
                .and_then(|depth| usize::try_from(depth).ok())
                .ok_or_else(|| format!("backfill-depth must be a number of jobs, got {depth}"))?,
        };
        let queue = parse_depth(&config, Depth::Unlimited)?;
        Ok(Backfill(Engine::new(Policy::Backfill { depth }, queue)))
    }

    fn query(&self) -> String {
        self.0.query()
    }
}

impl Scheduler for Backfill {
    fn ready(&mut self) -> Depth {
        self.0.ready()
    }

    fn update(&mut self, change: Change, decisions: &mut Vec<Decision>) {
        self.0.update(change, decisions);
    }

    fn schedule(&mut self, seconds: f64) -> Pass {
        self.0.schedule(seconds)
    }
}

flux_plugin::scheduler! {
    Backfill,
    name: "sched-backfill",
    description: "EASY backfill: early starts that delay nobody ahead",
}

#[cfg(test)]
mod tests;
