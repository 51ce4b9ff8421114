//! Calls with many items.

use super::Worker;
use crate::plugin::fault::{CallError, FaultKind};
use crate::plugin::request::Answers;
use crate::plugin::v1::types::{Answer, Edit, Reply, Verdict};
use crate::plugin::v1::{Batch, ComponentNamedList, Exports, Lift, Lower};
use std::time::Instant;

/// Most items of one call.
pub(super) const BATCH: usize = 128;

impl Worker {
    /// Calls with many items, at most [`BATCH`] at a time.
    pub(super) fn batch<I, O, F>(
        &mut self,
        items: Vec<I>,
        name: fn(&I) -> &'static str,
        func: F,
    ) -> Answers<O>
    where
        I: Clone + Send + Sync,
        (Vec<I>,): ComponentNamedList + Lower,
        (Vec<O>,): ComponentNamedList + Lift,
        O: IsRefusal + Clone + Send + Sync + 'static,
        F: Fn(&Exports) -> Option<Batch<I, O>> + Copy,
    {
        let mut answers = Vec::with_capacity(items.len());
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let chunk: Vec<I> = items.by_ref().take(BATCH).collect();
            if chunk.len() == 1 {
                answers.extend(self.chunk(chunk, name, func));
                continue;
            }
            self.several = true;
            let outcome = self.chunk(chunk.clone(), name, func);
            self.several = false;
            match outcome.iter().find_map(fault_of) {
                Some(kind) => answers.extend(self.one_by_one(chunk, kind, name, func)),
                None => answers.extend(outcome),
            }
        }
        answers
    }

    /// Finds the item that a batch faulted on. It is the fault that counts, not the batch's; and
    /// the others are not made to wait for the pause after it. That all of them together took too
    /// long is nobody's fault.
    fn one_by_one<I, O, F>(
        &mut self,
        items: Vec<I>,
        kind: FaultKind,
        name: fn(&I) -> &'static str,
        func: F,
    ) -> Answers<O>
    where
        I: Clone + Send + Sync,
        (Vec<I>,): ComponentNamedList + Lower,
        (Vec<O>,): ComponentNamedList + Lift,
        O: IsRefusal + Clone + Send + Sync + 'static,
        F: Fn(&Exports) -> Option<Batch<I, O>> + Copy,
    {
        let counts = kind != FaultKind::Deadline;
        if counts {
            self.breaker.forgive_last();
        }
        self.impatient = true;
        let mut answers = Answers::with_capacity(items.len());
        for item in items {
            answers.extend(self.chunk(vec![item], name, func));
        }
        self.impatient = false;
        if counts && !answers.iter().any(|answer| fault_of(answer).is_some()) {
            self.breaker.fault(Instant::now());
        }
        answers
    }

    /// One call with these items: an answer each, or the same error for all.
    pub(super) fn chunk<I, O, F>(
        &mut self,
        items: Vec<I>,
        name: fn(&I) -> &'static str,
        func: F,
    ) -> Answers<O>
    where
        I: Clone + Send + Sync,
        (Vec<I>,): ComponentNamedList + Lower,
        (Vec<O>,): ComponentNamedList + Lift,
        O: IsRefusal + Clone + Send + Sync + 'static,
        F: Fn(&Exports) -> Option<Batch<I, O>>,
    {
        let names: Vec<&'static str> = items.iter().map(name).collect();
        let count = items.len();
        let name = common(&names);
        let outcome = self.ensure().and_then(|()| {
            let start = Instant::now();
            let outcome = self.invoke(name, func, (items,), start);
            outcome.map(|answers| (answers, start.elapsed()))
        });
        let (answers, time) = match outcome {
            Ok(done) => done,
            Err(error) => return std::iter::repeat_n(Err(error), count).collect(),
        };
        if answers.len() != count {
            let detail = format!("{} answers to {count} calls", answers.len());
            let error = self.misused(name, detail);
            return std::iter::repeat_n(Err(error), count).collect();
        }
        let share = time / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let mut shared = self.shared();
        for (name, answer) in names.iter().zip(&answers) {
            shared.stats.returned(name, 1, share);
            if answer.is_refusal() {
                shared.stats.refused(name);
            }
        }
        drop(shared);
        answers.into_iter().map(Ok).collect()
    }
}

/// What a call with items of these names goes by: which of several faulted shows when they are
/// called one by one.
fn common(names: &[&'static str]) -> &'static str {
    match names.split_first() {
        Some((&first, rest)) if rest.iter().all(|&name| name == first) => first,
        _ => "several callbacks",
    }
}

fn fault_of<T>(answer: &Result<T, CallError>) -> Option<FaultKind> {
    match answer {
        Err(CallError::Fault(fault)) => Some(fault.kind),
        _ => None,
    }
}

/// Whether an answer counts as a refusal in the statistics.
pub(super) trait IsRefusal {
    fn is_refusal(&self) -> bool;
}

impl IsRefusal for Answer {
    fn is_refusal(&self) -> bool {
        matches!(self.reply, Reply::Refuse(_) | Reply::Hold(_))
    }
}

impl IsRefusal for Verdict {
    fn is_refusal(&self) -> bool {
        matches!(self, Verdict::Refuse(_))
    }
}

impl IsRefusal for Edit {
    fn is_refusal(&self) -> bool {
        matches!(self, Edit::Refuse(_))
    }
}
