//! Sending a batch of calls through the stack, and what comes back.

use std::time::Duration;

use flux_protocol::fluid::JobId;

use super::super::admission::{Decision, Match};
use super::super::job::State;
use super::super::{Context, JobManager};
use super::{Call, Loaded};
use crate::log::Severity;
use crate::plugin::types::{Answer, Effect, Event, JobState, Origin, Reply};
use crate::plugin::{CallError, OnFault, topic};
use crate::spans::{Began, Spans};

/// How soon a plugin that is down is called again, at the earliest.
const RETRY: Duration = Duration::from_millis(100);

/// How long and how often those who wait to be let in are made to wait for such a plugin.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;

/// Severity of an exception that ends nothing.
const WARNING: u32 = 4;

/// What the plugins had to say to one call, in load order, by their place in the stack.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) call: Call,
    pub(crate) answers: Vec<(usize, Result<Answer, CallError>)>,
}

/// Send the calls to the plugins that want them, one plugin after the other; and tell how long they
/// took.
pub(super) async fn dispatch(
    spans: Option<&Spans>,
    stack: &[Loaded],
    calls: Vec<Call>,
) -> Vec<Outcome> {
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
            .filter(|index| outcomes.get(*index).is_some_and(|outcome| !outcome.is_refused()))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        ask(spans, place, loaded, &mut outcomes, wanted).await;
    }
    outcomes
}

/// Ask one plugin. One that is about to start again after a fault is waited for by what it could
/// refuse: else one bad job would open a gap for others.
async fn ask(
    spans: Option<&Spans>,
    place: usize,
    loaded: &Loaded,
    outcomes: &mut [Outcome],
    mut wanted: Vec<usize>,
) {
    let mut tries = 0;
    while !wanted.is_empty() {
        let events: Vec<Event> = wanted
            .iter()
            .filter_map(|index| outcomes.get(*index))
            .map(|outcome| outcome.call.event.clone())
            .collect();
        let began = Began::now();
        let answers = loaded.plugin.handle(events).await;
        note_spans(spans, loaded, outcomes, &wanted, &began);
        let (mut again, mut pause) = (Vec::new(), Duration::ZERO);
        for (index, answer) in wanted.into_iter().zip(answers) {
            let Some(outcome) = outcomes.get_mut(index) else { continue };
            match &answer {
                Err(CallError::Down { retry, .. })
                    if outcome.call.may_be_refused() && *retry <= PATIENCE && tries < TRIES =>
                {
                    pause = pause.max(*retry);
                    again.push(index);
                }
                _ => outcome.answers.push((place, answer)),
            }
        }
        (wanted, tries) = (again, tries + 1);
        if !wanted.is_empty() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// How long the plugin took, for each of the jobs.
fn note_spans(
    spans: Option<&Spans>,
    loaded: &Loaded,
    outcomes: &[Outcome],
    wanted: &[usize],
    began: &Began,
) {
    let Some(spans) = spans.filter(|spans| spans.wanted()) else { return };
    for outcome in wanted.iter().filter_map(|index| outcomes.get(*index)) {
        let topic = topic(&outcome.call.event).unwrap_or_default();
        let span = began.end(format!("plugin.{topic}"), Some(loaded.plugin.name()));
        spans.step(outcome.call.id, &span, &[]);
    }
}

impl Outcome {
    /// A plugin refused what it may refuse: there is nothing left to ask the others.
    fn is_refused(&self) -> bool {
        let refuses = |answer: &Answer| matches!(answer.reply, Reply::Refuse(_));
        self.call.may_be_refused()
            && self.answers.iter().any(|(_, answer)| answer.as_ref().is_ok_and(refuses))
    }
}

impl Call {
    fn may_be_refused(&self) -> bool {
        match &self.event {
            Event::Create(new) => new.origin == Origin::Submitted,
            Event::Validate(_) | Event::Dependency(_) | Event::Update(_) => true,
            _ => false,
        }
    }

    /// Does the job wait for this call? Those to tell that it is gone are not waited for.
    fn is_counted(&self) -> bool {
        !matches!(self.event, Event::Destroy(_) | Event::InactiveRemove(_) | Event::Call(_))
    }
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
        let spans = context.broker().spans().clone();
        context.spawn(
            async move {
                let outcomes = dispatch(Some(&spans), &stack, calls).await;
                (stack, outcomes)
            },
            move |manager: &mut JobManager, (stack, outcomes)| {
                for outcome in outcomes {
                    manager.settle(&after, &stack, outcome);
                }
            },
        );
    }

    pub(crate) fn plugins_want(&self, event: &Event) -> bool {
        self.plugins.wants_event(event)
    }

    /// Ask whether a job may have what the scheduler found for it.
    pub(crate) fn plugins_admit(
        &mut self,
        context: &Context,
        id: JobId,
        event: Event,
        matched: Match,
    ) {
        let stack = self.plugins.loaded.clone();
        let after = context.clone();
        let spans = context.broker().spans().clone();
        context.spawn(
            async move {
                let outcomes = dispatch(Some(&spans), &stack, vec![Call { id, event }]).await;
                (stack, outcomes)
            },
            move |manager: &mut JobManager, (stack, outcomes)| {
                let mut decision = Decision::Admit;
                let mut effects = Vec::new();
                for (place, answer) in outcomes.into_iter().flat_map(|outcome| outcome.answers) {
                    let Some(loaded) = stack.get(place) else { continue };
                    let reason = match answer {
                        Ok(answer) => {
                            effects
                                .extend(answer.effects.into_iter().map(|effect| (place, effect)));
                            match answer.reply {
                                Reply::Hold(reason) => reason,
                                _ => continue,
                            }
                        }
                        Err(error) if loaded.plugin.on_fault() != OnFault::Skip => {
                            error.to_string()
                        }
                        Err(_) => continue,
                    };
                    decision = Decision::Hold { plugin: loaded.plugin.name().to_owned(), reason };
                }
                manager.apply_effects(&after, effects);
                manager.admission_decided(&after, id, matched, decision);
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
        let mut skipped = false;
        for (place, answer) in answers {
            let Some(loaded) = stack.get(place) else { continue };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => match self.fault(context, loaded, &call, &error) {
                    Verdict::GoOn => continue,
                    Verdict::Skip => {
                        skipped = true;
                        continue;
                    }
                    // The job waits, but what has happened is not to be lost meanwhile.
                    Verdict::Wait => return self.store_unsettled(context, id),
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
                    let kind = match &call.event {
                        Event::Dependency(_) => "dependency",
                        _ => loaded.plugin.name(),
                    };
                    self.raise_exception(context, id, kind, 0, owner, &refusal.text);
                }
                _ => {}
            }
        }
        if skipped && priority.is_none() {
            priority = self.default_priority(id);
        }
        self.apply_effects(context, effects);
        if let Some(Some(value)) = priority {
            self.set_priority(context, id, value);
        }
        if let Some(r) = allocation {
            self.allocate_bypass(context, id, &r);
        }
        match call.is_counted() {
            true => self.callback_done(context, id),
            false => self.process(context, id),
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
        // The fault itself is in the log already.
        context.log(Severity::Debug, format!("{}: {}: {error}", call.id.f58(), loaded.name));
        match loaded.plugin.on_fault() {
            OnFault::Skip => {
                self.warn_of_priority(context, loaded, call, error);
                Verdict::Skip
            }
            OnFault::Hold => {
                let plugin = loaded.plugin.name().to_owned();
                self.explain(context, call.id, &plugin, &format!("waits for plugin: {error}"));
                self.plugins.held.entry(plugin.clone()).or_default().push(call.clone());
                self.retry_held(context, plugin, error.retry());
                Verdict::Wait
            }
            OnFault::Reject => {
                let owner = context.broker().owner().0;
                let kind = loaded.plugin.name().to_owned();
                self.raise_exception(context, call.id, &kind, 0, owner, &error.to_string());
                Verdict::GoOn
            }
        }
    }

    /// A job whose priority is not what it should be carries a note of that.
    fn warn_of_priority(
        &mut self,
        context: &Context,
        loaded: &Loaded,
        call: &Call,
        error: &CallError,
    ) {
        let asked = match &call.event {
            Event::State(change) => change.job.state == JobState::Priority,
            Event::PriorityGet(_) => true,
            _ => false,
        };
        if asked && matches!(error, CallError::Fault(_)) {
            let owner = context.broker().owner().0;
            let kind = loaded.plugin.name().to_owned();
            self.raise_exception(context, call.id, &kind, WARNING, owner, &error.to_string());
        }
    }

    /// Without the plugin that would say otherwise, a job's priority is its urgency.
    fn default_priority(&self, id: JobId) -> Option<Option<u32>> {
        let job = self.jobs.get(&id).filter(|job| job.state == State::Priority)?;
        Some(Some(job.urgency))
    }

    /// Nobody else may call the plugin, which is started again by a call: call it after a while.
    /// One that is quarantined is waited for until it is replaced or removed.
    fn retry_held(&mut self, context: &Context, plugin: String, retry: Option<Duration>) {
        let Some(retry) = retry else { return };
        let after = context.clone();
        let pause = retry.max(RETRY);
        context.spawn(tokio::time::sleep(pause), move |manager: &mut JobManager, ()| {
            manager.release_held(&after, &plugin);
        });
    }

    /// The plugin is back: ask it again about the jobs that waited for it.
    pub(super) fn release_held(&mut self, context: &Context, plugin: &str) {
        for call in self.plugins.held.remove(plugin).unwrap_or_default() {
            self.enqueue_call(context, call);
        }
    }

    /// The job's record as plugins know it now.
    pub(crate) fn record(&self, id: JobId) -> Option<crate::plugin::types::Job> {
        self.plugins.jobs.read(id.0, |facts| facts.job.clone())
    }
}

enum Verdict {
    GoOn,
    /// As if the plugin were not there.
    Skip,
    Wait,
}
