//! New jobs and updates: what plugins may refuse.

use std::collections::HashMap;

use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event as LogEvent;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::Object;
use flux_protocol::rpc::sched;
use serde_json::Value;

use super::super::job::Job;
use super::super::{Context, JobManager, facts};
use super::dispatch::{Outcome, dispatch};
use super::{Call, Loaded};
use crate::handle::Handle;
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
                let outcomes = dispatch(None, &stack, calls).await;
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

    /// Ask the plugins whether they allow an update, key by key, and unless that is enough
    /// whether the job is valid with it; `done` gets all keys that are to be updated.
    pub(crate) fn plugins_update(
        &mut self,
        context: &Context,
        id: JobId,
        cred: Credential,
        updates: Object,
        done: impl FnOnce(&mut JobManager, &Context, Result<Object, Failure>) + 'static,
    ) {
        let (Some(record), Some(job)) = (self.record(id), self.jobs.get(&id)) else {
            let failure = Failure::new(Errno::ENOENT, "unknown job id");
            return done(self, context, Err(failure));
        };
        let calls = update_calls(id, &record, cred, &updates);
        let stack = self.plugins.loaded.clone();
        let (after, job) = (context.clone(), job.clone());
        let handle = context.handle().clone();
        context.spawn(
            async move {
                let mut allowed = Allowed { updates, validated: true, feasibility: false };
                for outcome in dispatch(None, &stack, calls).await {
                    allow(outcome, &mut allowed)?;
                }
                check_updated(&handle, &stack, job, &allowed).await?;
                Ok(allowed.updates)
            },
            move |manager: &mut JobManager, result| done(manager, &after, result),
        );
    }

    /// Tell the plugins that an update was made.
    pub(crate) fn plugins_updated(&mut self, context: &Context, id: JobId, updates: &Object) {
        if let Some(job) = self.jobs.get(&id) {
            let new = facts::facts(job);
            self.plugins.jobs.update(id.0, |facts| {
                (facts.job, facts.jobspec) = (new.job, new.jobspec);
            });
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

/// What plugins made of an update.
struct Allowed {
    updates: Object,
    /// `job.validate` has nothing to say to it.
    validated: bool,
    /// The scheduler has.
    feasibility: bool,
}

fn update_calls(id: JobId, record: &types::Job, cred: Credential, updates: &Object) -> Vec<Call> {
    let all = Value::Object(updates.clone()).to_string();
    let call = |(key, value): (&String, &Value)| Call {
        id,
        event: Event::Update(UpdateRequest {
            job: record.clone(),
            userid: cred.userid.0,
            rolemask: cred.rolemask.0,
            key: key.clone(),
            value: value.to_string(),
            updates: all.clone(),
        }),
    };
    updates.iter().map(call).collect()
}

/// One key of an update: allowed by someone, refused by nobody.
fn allow(outcome: Outcome, all: &mut Allowed) -> Result<(), Failure> {
    let Event::Update(request) = &outcome.call.event else { return Ok(()) };
    let mut allowed = false;
    for (_, answer) in outcome.answers {
        match answer.map(|answer| answer.reply) {
            Ok(Reply::Refuse(refusal)) => {
                return Err(Failure::new(Errno(refusal.errnum), refusal.text));
            }
            Ok(Reply::Allow(allow)) => {
                allowed = true;
                all.validated &= allow.validated;
                all.feasibility |= allow.feasibility;
                let more = allow.updates.and_then(|text| serde_json::from_str(&text).ok());
                if let Some(Value::Object(more)) = more {
                    all.updates.extend(more);
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

/// Would the job be let in as it is going to be?
async fn check_updated(
    handle: &Handle,
    stack: &[Loaded],
    mut job: Job,
    allowed: &Allowed,
) -> Result<(), Failure> {
    if allowed.validated && !allowed.feasibility {
        return Ok(());
    }
    let event = LogEvent::new(0.0, "jobspec-update")
        .with_context(&allowed.updates)
        .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
    job.apply(&event)?;
    if !allowed.validated {
        let call = Call { id: job.id, event: Event::Validate(facts::record(&job)) };
        for outcome in dispatch(None, stack, vec![call]).await {
            for (_, answer) in outcome.answers {
                if let Ok(Reply::Refuse(refusal)) = answer.map(|answer| answer.reply) {
                    return Err(Failure::new(Errno(refusal.errnum), refusal.text));
                }
            }
        }
    }
    if allowed.feasibility {
        let request = sched::FeasibilityRequest { jobspec: (*job.jobspec).to_owned() };
        match handle.rpc::<sched::Feasibility>(&request).await {
            // Without a scheduler nobody knows, so nobody objects.
            Err(failure) if failure.errno != Errno::ENOSYS => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}
