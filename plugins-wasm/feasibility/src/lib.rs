//! Leaves the judgement to the scheduler: a job that could never run is refused at once.

use flux_plugin::prelude::*;

struct Feasibility;

impl Plugin for Feasibility {
    fn init(_: &Context) -> Result<Self, String> {
        Ok(Feasibility)
    }
}

impl Validator for Feasibility {
    fn validate(&mut self, _: &Submission) -> Verdict {
        Verdict::AskFeasibility
    }
}

flux_plugin::validator! {
    Feasibility,
    name: "feasibility",
    description: "Use sched.feasibility RPC to validate job",
}
