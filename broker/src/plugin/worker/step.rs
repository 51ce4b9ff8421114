//! Calls of a scheduler, recorded where that is wanted.

use super::Worker;
use crate::plugin::fault::CallError;
use crate::plugin::recorder::{RecordedStep, Step};
use crate::plugin::v1::types::{Change, Decision, Depth, Level, Pass};
use crate::plugin::v1::{Batch, Exports, OfKind, TypedFunc};

impl Worker {
    /// One call, which is recorded where that is wanted.
    pub(super) fn step(&mut self, step: Step) -> Result<Pass, CallError> {
        let kept = self.recorder.is_some().then(|| step.clone());
        let pass = |decisions| Pass { decisions, more: false };
        let outcome = match step {
            // The host starts it.
            Step::Start(_) => return Ok(pass(Vec::new())),
            Step::Update(changes) => self.call("update", update, (changes,)).map(pass),
            Step::Ready => self.call("ready", ready, ()).map(|_| pass(Vec::new())),
            Step::Schedule(seconds) => self.call("schedule", schedule, (seconds,)),
        };
        if let Some(step) = kept {
            self.record(step, outcome.as_ref().map(|pass| &pass.decisions[..]));
        }
        outcome
    }

    /// Adds a line to the recording. One that cannot be written is given up.
    pub(super) fn record(&mut self, step: Step, outcome: Result<&[Decision], &CallError>) {
        let Some(recorder) = self.recorder.as_mut() else { return };
        let line = RecordedStep {
            now: self.clock,
            step,
            decisions: outcome.unwrap_or_default().to_vec(),
            fault: outcome.err().map(ToString::to_string),
        };
        if let Err(error) = recorder.add(&line) {
            self.recorder = None;
            let text = format!("recording is given up: {error}");
            self.program.log.line(&self.program.plugin, Level::Err, &text);
        }
    }
}

/// The exported function, if it is a scheduler's.
pub(super) fn ready(exports: &Exports) -> Option<TypedFunc<(), (Depth,)>> {
    match &exports.of_kind {
        OfKind::Scheduler { ready, .. } => Some(*ready),
        _ => None,
    }
}

fn update(exports: &Exports) -> Option<Batch<Change, Decision>> {
    match &exports.of_kind {
        OfKind::Scheduler { update, .. } => Some(*update),
        _ => None,
    }
}

fn schedule(exports: &Exports) -> Option<TypedFunc<(f64,), (Pass,)>> {
    match &exports.of_kind {
        OfKind::Scheduler { schedule, .. } => Some(*schedule),
        _ => None,
    }
}
