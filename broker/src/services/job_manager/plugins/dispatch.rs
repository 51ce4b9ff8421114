//! Sending a batch of calls through the stack, and what comes back.

use flux_protocol::fluid::JobId;

use super::super::job::State;
use super::super::{Context, JobManager};
use super::{Call, Loaded};
use crate::log::Severity;
use crate::plugin::types::{Answer, Effect, Event, Reply};
use crate::plugin::{CallError, OnFault, topic};

/// What the plugins had to say to one call, in load order, by their place in the stack.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) call: Call,
    pub(crate) answers: Vec<(usize, Result<Answer, CallError>)>,
}

/// Send the calls to the plugins that want them, one plugin after the other.
pub(super) async fn dispatch(stack: &[Loaded], calls: Vec<Call>) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> =
        calls.into_iter().map(|call| Outcome { call, answers: Vec::new() }).collect();
    let topics: Vec<Option<String>> =
        outcomes.iter().map(|outcome| topic(&outcome.call.event)).collect();
    for (place, loaded) in stack.iter().enumerate() {
        let manifest = &loaded.plugin.facts().manifest;
        let wanted: Vec<usize> = topics
            .iter()
            .enumerate()
            .filter(|(_, topic)| topic.as_ref().is_some_and(|topic| manifest.wants(topic)))
            .map(|(index, _)| index)
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let events: Vec<Event> = wanted
            .iter()
            .filter_map(|index| outcomes.get(*index))
            .map(|outcome| outcome.call.event.clone())
            .collect();
        let answers = loaded.plugin.handle(events).await;
        for (index, answer) in wanted.into_iter().zip(answers) {
            if let Some(outcome) = outcomes.get_mut(index) {
                outcome.answers.push((place, answer));
            }
        }
    }
    outcomes
}

impl JobManager {
    /// Send with the other calls of this turn.
    pub(super) fn enqueue_call(&mut self, context: &Context, call: Call) {
        self.plugins.batch.push(call);
        if std::mem::replace(&mut self.plugins.scheduled, true) {
            return;
        }
        let after = context.clone();
        context.later(move |manager: &mut JobManager| manager.send_batch(&after));
    }

    fn send_batch(&mut self, context: &Context) {
        self.plugins.scheduled = false;
        let calls = std::mem::take(&mut self.plugins.batch);
        let stack = self.plugins.loaded.clone();
        let after = context.clone();
        context.spawn(
            async move {
                let outcomes = dispatch(&stack, calls).await;
                (stack, outcomes)
            },
            move |manager: &mut JobManager, (stack, outcomes)| {
                for outcome in outcomes {
                    manager.settle(&after, &stack, outcome);
                }
            },
        );
    }

    /// Apply what the plugins want, and let the job go on.
    fn settle(&mut self, context: &Context, stack: &[Loaded], outcome: Outcome) {
        let Outcome { call, answers } = outcome;
        let id = call.id;
        let mut effects: Vec<(usize, Effect)> = Vec::new();
        let mut priority = None;
        let mut allocation = None;
        for (place, answer) in answers {
            let Some(loaded) = stack.get(place) else { continue };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => match self.fault(context, loaded, &call, &error) {
                    Verdict::GoOn => continue,
                    Verdict::Wait => return,
                },
            };
            effects.extend(answer.effects.into_iter().map(|effect| (place, effect)));
            match answer.reply {
                // The plugin that was loaded last has the last word.
                Reply::Priority(value) => priority = Some(Some(value)),
                Reply::PriorityUnavailable => priority = Some(None),
                Reply::Allocate(r) => allocation = Some(r),
                Reply::Refuse(refusal) => {
                    let owner = context.broker().owner().0;
                    let kind = loaded.plugin.name().to_owned();
                    self.raise_exception(context, id, &kind, 0, owner, &refusal.text);
                }
                _ => {}
            }
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.pending.callback = false;
        }
        self.apply_effects(context, effects);
        self.settle_priority(context, &call, priority);
        if let Some(r) = allocation {
            self.allocate_bypass(context, id, &r);
        }
        self.process(context, id);
    }

    fn settle_priority(&mut self, context: &Context, call: &Call, priority: Option<Option<u32>>) {
        if let Some(Some(value)) = priority {
            self.set_priority(context, call.id, value);
        }
    }

    /// A plugin could not answer: what the administrator wants done then.
    fn fault(
        &mut self,
        context: &Context,
        loaded: &Loaded,
        call: &Call,
        error: &CallError,
    ) -> Verdict {
        context.log(Severity::Err, format!("{}: {}: {error}", call.id.f58(), loaded.name));
        match loaded.plugin.on_fault() {
            OnFault::Skip => {
                self.default_priority(context, call.id);
                Verdict::GoOn
            }
            OnFault::Hold => {
                let held = self.plugins.held.entry(loaded.plugin.name().to_owned()).or_default();
                held.push(call.clone());
                Verdict::Wait
            }
            OnFault::Reject => {
                let owner = context.broker().owner().0;
                let kind = loaded.plugin.name().to_owned();
                if let Some(job) = self.jobs.get_mut(&call.id) {
                    job.pending.callback = false;
                }
                self.raise_exception(context, call.id, &kind, 0, owner, &error.to_string());
                Verdict::GoOn
            }
        }
    }

    /// Without the plugin that would say otherwise, a job's priority is its urgency.
    fn default_priority(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.state == State::Priority {
            let urgency = job.urgency;
            job.pending.callback = false;
            self.set_priority(context, id, urgency);
        }
    }

    /// The plugin is back: ask it again about the jobs that waited for it.
    pub(super) fn release_held(&mut self, context: &Context, plugin: &str) {
        for call in self.plugins.held.remove(plugin).unwrap_or_default() {
            self.enqueue_call(context, call);
        }
    }

    /// The job's record as plugins know it now.
    pub(super) fn record(&self, id: JobId) -> Option<crate::plugin::types::Job> {
        self.plugins.jobs.read(id.0, |facts| facts.job.clone())
    }
}

enum Verdict {
    GoOn,
    Wait,
}
