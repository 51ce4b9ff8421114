//! First come, first served within a priority: a job that cannot start keeps those behind it
//! waiting, even where they would fit, but for those whose constraints keep them off its nodes.
//!
//! Configuration: `queue-depth = N | "unlimited"` (8), also as `mode = "limited=N" | "unlimited"`.

use flux_plugin::prelude::*;
use sched_pool::{Engine, Policy, parse_depth};

struct Fifo(Engine);

impl Plugin for Fifo {
    fn init(context: &Context) -> Result<Self, String> {
        let config = serde_json::from_str(&context.config).map_err(|error| error.to_string())?;
        let depth = parse_depth(&config, Depth::Limited(8))?;
        Ok(Fifo(Engine::new(Policy::Fcfs, depth)))
    }

    fn query(&self) -> String {
        self.0.query()
    }
}

impl Scheduler for Fifo {
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
    Fifo,
    name: "sched-simple",
    description: "First come, first served within a priority",
}

#[cfg(test)]
mod tests;
