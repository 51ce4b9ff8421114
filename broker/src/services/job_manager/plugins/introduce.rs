//! New jobs and updates: what plugins may refuse.

use std::collections::HashMap;

use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::Object;
use serde_json::Value;

use super::super::job::Job;
use super::super::{Context, JobManager, facts};
use super::dispatch::{Outcome, dispatch};
use super::{Call, Loaded};
use crate::log::Severity;
use crate::plugin::types::{
    self, DependencyRequest, Effect, Event, JobNew, JobUpdated, Origin, Reply, UpdateRequest,
};
use crate::plugin::{CallError, OnFault, dependencies};

/// What became of a new job.
#[derive(Debug)]
pub(crate) enum Introduction {
    Refused(String),
    /// With what plugins want done, each by the place of its plugin.
    Welcome {
        effects: Vec<(usize, Effect)>,
    },
}

impl JobManager {
    /// Ask the plugins about new jobs; `done` gets them in the same order.
    pub(crate) fn plugins_introduce(
        &mut self,
        context: &Context,
        jobs: Vec<Job>,
        done: impl FnOnce(&mut JobManager, &Context, Vec<(Job, Introduction)>) + 'static,
    ) {
        let mut calls = Vec::new();
        for job in &jobs {
            let facts = facts::facts(job);
            calls.extend(introduction_calls(job.id, &facts.job, job.jobspec.get()));
            self.plugins.jobs.put(facts);
        }
        let stack = self.plugins.loaded.clone();
        let after = context.clone();
        context.spawn(
            async move {
                let outcomes = dispatch(&stack, calls).await;
                (stack, outcomes)
            },
            move |manager: &mut JobManager, (stack, outcomes)| {
                let mut by_job: HashMap<JobId, Vec<Outcome>> = HashMap::new();
                for outcome in outcomes {
                    by_job.entry(outcome.call.id).or_default().push(outcome);
                }
                let judged = jobs
                    .into_iter()
                    .map(|job| {
                        let outcomes = by_job.remove(&job.id).unwrap_or_default();
                        let judged = judge(&after, &stack, outcomes);
                        if matches!(judged, Introduction::Refused(_)) {
                            manager.plugins.jobs.remove(job.id.0);
                        }
                        (job, judged)
                    })
                    .collect();
                done(manager, &after, judged);
            },
        );
    }

    /// Ask the plugins whether they allow an update; `done` gets all keys that are to be updated.
    pub(crate) fn plugins_update(
        &mut self,
        context: &Context,
        id: JobId,
        cred: Credential,
        updates: Object,
        done: impl FnOnce(&mut JobManager, &Context, Result<Object, Failure>) + 'static,
    ) {
        let Some(record) = self.record(id) else {
            let failure = Failure::new(Errno::ENOENT, "unknown job id");
            return done(self, context, Err(failure));
        };
        let all = Value::Object(updates.clone()).to_string();
        let calls = updates
            .iter()
            .map(|(key, value)| Call {
                id,
                event: Event::Update(UpdateRequest {
                    job: record.clone(),
                    userid: cred.userid.0,
                    rolemask: cred.rolemask.0,
                    key: key.clone(),
                    value: value.to_string(),
                    updates: all.clone(),
                }),
            })
            .collect();
        let stack = self.plugins.loaded.clone();
        let after = context.clone();
        context.spawn(
            async move { dispatch(&stack, calls).await },
            move |manager: &mut JobManager, outcomes| {
                let mut allowed = updates;
                let result =
                    outcomes.into_iter().try_for_each(|outcome| allow(outcome, &mut allowed));
                done(manager, &after, result.map(|()| allowed));
            },
        );
    }

    /// Tell the plugins that an update was made.
    pub(crate) fn plugins_updated(&mut self, context: &Context, id: JobId, updates: &Object) {
        if let Some(job) = self.jobs.get(&id) {
            self.plugins.jobs.put(facts::facts(job));
        }
        let updates = Value::Object(updates.clone()).to_string();
        self.call_plugins(context, id, |job| Event::Updated(JobUpdated { job, updates }));
    }
}

/// Creation, validation and each dependency, in this order.
fn introduction_calls(id: JobId, record: &types::Job, jobspec: &str) -> Vec<Call> {
    let new = JobNew { job: record.clone(), origin: Origin::Submitted };
    let mut events = vec![Event::Create(new.clone()), Event::Validate(record.clone())];
    for (scheme, value, dependency) in dependencies(jobspec) {
        let job = record.clone();
        events.push(Event::Dependency(DependencyRequest { job, scheme, value, dependency }));
    }
    events.push(Event::New(new));
    events.into_iter().map(|event| Call { id, event }).collect()
}

/// The first refusal refuses; a dependency that no plugin takes is refused as well.
fn judge(context: &Context, stack: &[Loaded], outcomes: Vec<Outcome>) -> Introduction {
    let mut effects = Vec::new();
    for outcome in outcomes {
        let scheme = match &outcome.call.event {
            Event::Dependency(request) => Some(request.scheme.clone()),
            _ => None,
        };
        let mut taken = false;
        for (place, answer) in outcome.answers {
            match answer {
                Ok(answer) => {
                    match answer.reply {
                        Reply::Refuse(refusal) => return Introduction::Refused(refusal.text),
                        Reply::Accept => taken = true,
                        _ => {}
                    }
                    effects.extend(answer.effects.into_iter().map(|effect| (place, effect)));
                }
                Err(error) => {
                    let loaded = stack.get(place);
                    if let Some(text) = refused_by_fault(context, loaded, &error) {
                        return Introduction::Refused(text);
                    }
                }
            }
        }
        if let Some(scheme) = scheme.filter(|_| !taken) {
            let text = format!("dependency scheme \"{scheme}\" not supported");
            return Introduction::Refused(text);
        }
    }
    Introduction::Welcome { effects }
}

/// A job that is only now being submitted can't be held: the user is told to come again.
fn refused_by_fault(
    context: &Context,
    loaded: Option<&Loaded>,
    error: &CallError,
) -> Option<String> {
    context.log(Severity::Err, format!("submit: {error}"));
    let on_fault = loaded.map_or(OnFault::Reject, |loaded| loaded.plugin.on_fault());
    (on_fault != OnFault::Skip).then(|| error.to_string())
}

/// One key of an update: allowed by someone, refused by nobody.
fn allow(outcome: Outcome, updates: &mut Object) -> Result<(), Failure> {
    let Event::Update(request) = &outcome.call.event else { return Ok(()) };
    let mut allowed = false;
    for (_, answer) in outcome.answers {
        match answer.map(|answer| answer.reply) {
            Ok(Reply::Refuse(refusal)) => {
                return Err(Failure::new(Errno(refusal.errnum), refusal.text));
            }
            Ok(Reply::Allow(allow)) => {
                allowed = true;
                let more = allow.updates.and_then(|text| serde_json::from_str(&text).ok());
                if let Some(Value::Object(more)) = more {
                    updates.extend(more);
                }
            }
            Ok(_) => {}
            Err(error) => return Err(Failure::new(Errno::EINVAL, error.to_string())),
        }
    }
    match allowed {
        true => Ok(()),
        false => {
            let text = format!("update of {} not supported", request.key);
            Err(Failure::new(Errno::EINVAL, text))
        }
    }
}
