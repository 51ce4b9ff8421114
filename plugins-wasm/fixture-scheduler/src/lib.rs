//! Gives everyone core 0 of rank 0, and other things that a scheduler must not do.

use flux_plugin::prelude::*;
use flux_plugin::types::{Allocation, Denial, Targets};

struct Rogue {
    what: String,
    pending: Vec<JobId>,
    /// Instances before this one would have left it higher.
    passes: u32,
}

impl Plugin for Rogue {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(Rogue { what: context.config.clone(), pending: Vec::new(), passes: 0 })
    }
}

impl Scheduler for Rogue {
    fn update(&mut self, change: Change, decisions: &mut Vec<Decision>) {
        match change {
            Change::Alloc(jobs) => self.pending.extend(jobs.iter().map(|job| job.id)),
            Change::Feasibility(request) if !self.what.contains("silent") => {
                decisions.push(Decision::Accept(request.token));
            }
            _ => {}
        }
    }

    fn schedule(&mut self, _: f64) -> Pass {
        self.passes += 1;
        let mut decisions = Vec::new();
        for id in self.pending.drain(..) {
            decisions.push(allocate(id));
            if self.what.contains("twice") {
                decisions.push(Decision::Deny(Denial { id, note: "after all".to_owned() }));
            }
            if self.what.contains("unknown") {
                decisions.push(allocate(id + 1000));
            }
        }
        if self.what.contains("panic") && !decisions.is_empty() {
            panic!("asked to");
        }
        Pass { decisions, more: self.what.contains("restless") }
    }
}

fn allocate(id: JobId) -> Decision {
    let children = vec![("core".to_owned(), "0".to_owned())];
    Decision::Allocate(Allocation {
        id,
        resources: vec![Targets { ranks: "0".to_owned(), children }],
        nslots: 1,
        starttime: host::now(),
        expiration: 0.0,
        scheduling: None,
        annotations: None,
    })
}

flux_plugin::scheduler! {
    Rogue,
    name: "rogue",
    description: "Gives everyone core 0 of rank 0",
}
