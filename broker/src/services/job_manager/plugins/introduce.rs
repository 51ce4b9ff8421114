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
        let mut candidates = Vec::with_capacity(jobs.len());
        for job in jobs {
            let facts = facts::facts(&job);
            let record = facts.job.clone();
            self.plugins.jobs.put(facts);
            // Where no validator has looked at it, a job must not run without what it waits for.
            let refusal = malformed_dependencies(job.jobspec.get());
            candidates.push(Candidate { job, record, effects: Vec::new(), refusal });
        }
        let stack = self.plugins.loaded.clone();
        let (asking, after) = (context.clone(), context.clone());
        context.spawn(
            async move {
                introduce(&asking, &stack, &mut candidates).await;
                candidates
            },
            move |manager: &mut JobManager, candidates| {
                let judged = candidates
                    .into_iter()
                    .map(|candidate| match candidate.refusal {
                        None => {
                            (candidate.job, Introduction::Welcome { effects: candidate.effects })
                        }
                        Some(text) => {
                            manager.plugins.jobs.remove(candidate.job.id.0);
                            (candidate.job, Introduction::Refused(text))
                        }
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

/// What is wrong with the dependencies of a jobspec (RFC 26).
fn malformed_dependencies(jobspec: &str) -> Option<String> {
    // Most jobspecs do not have the word in them at all.
    if !jobspec.contains("dependencies") {
        return None;
    }
    let jobspec: Value = serde_json::from_str(jobspec).ok()?;
    let Value::Array(list) = jobspec.pointer("/attributes/system/dependencies")? else {
        return Some("dependencies object must be an array".to_owned());
    };
    list.iter().enumerate().find_map(|(index, dependency)| {
        let missing = ["scheme", "value"]
            .into_iter()
            .find(|key| !dependency.get(key).is_some_and(Value::is_string))?;
        Some(format!("dependency[{index}] missing string {missing}"))
    })
}

/// A job that is not let in yet.
struct Candidate {
    job: Job,
    record: types::Job,
    effects: Vec<(usize, Effect)>,
    refusal: Option<String>,
}

/// Creation, validation and dependencies: all plugins are asked one thing before any is asked the
/// next. Only a job that nobody refused is new to them; of the others they hear that they are gone.
async fn introduce(context: &Context, stack: &[Loaded], candidates: &mut [Candidate]) {
    let phases: [fn(&Candidate) -> Vec<Event>; 4] = [
        |candidate| vec![Event::Create(candidate.news())],
        |candidate| vec![Event::Validate(candidate.record.clone())],
        Candidate::dependencies,
        |candidate| vec![Event::New(candidate.news())],
    ];
    let places: HashMap<JobId, usize> =
        candidates.iter().enumerate().map(|(place, one)| (one.job.id, place)).collect();
    for phase in phases {
        let welcome = candidates.iter().filter(|candidate| candidate.refusal.is_none());
        let calls = welcome.flat_map(|candidate| candidate.calls(phase(candidate))).collect();
        for outcome in dispatch(None, stack, calls).await {
            let place = places.get(&outcome.call.id);
            if let Some(candidate) = place.and_then(|place| candidates.get_mut(*place)) {
                candidate.take(context, stack, outcome);
            }
        }
    }
    let refused = candidates.iter().filter(|candidate| candidate.refusal.is_some());
    let gone = refused.flat_map(|one| one.calls(vec![Event::Destroy(one.job.id.0)])).collect();
    dispatch(None, stack, gone).await;
}

impl Candidate {
    fn news(&self) -> JobNew {
        JobNew { job: self.record.clone(), origin: Origin::Submitted }
    }

    fn dependencies(&self) -> Vec<Event> {
        let list = dependencies(self.job.jobspec.get()).into_iter();
        list.map(|(scheme, value, dependency)| {
            let job = self.record.clone();
            Event::Dependency(DependencyRequest { job, scheme, value, dependency })
        })
        .collect()
    }

    fn calls(&self, events: Vec<Event>) -> impl Iterator<Item = Call> + use<> {
        let id = self.job.id;
        events.into_iter().map(move |event| Call { id, event })
    }

    /// The first refusal refuses; a dependency that no plugin takes is refused as well.
    fn take(&mut self, context: &Context, stack: &[Loaded], outcome: Outcome) {
        let mut taken = false;
        for (place, answer) in outcome.answers {
            let refusal = match answer {
                Ok(answer) => {
                    taken |= matches!(answer.reply, Reply::Accept);
                    self.effects.extend(answer.effects.into_iter().map(|effect| (place, effect)));
                    match answer.reply {
                        Reply::Refuse(refusal) => Some(refusal.text),
                        _ => None,
                    }
                }
                Err(error) => {
                    let is_question = !matches!(outcome.call.event, Event::New(_));
                    refused_by_fault(context, stack.get(place), &error, is_question)
                }
            };
            self.refusal = self.refusal.take().or(refusal);
        }
        if let Event::Dependency(request) = outcome.call.event
            && !taken
        {
            let text = format!("dependency scheme \"{}\" not supported", request.scheme);
            self.refusal.get_or_insert(text);
        }
    }
}

/// A job that is only now being submitted can't be held: the user is told to come again. Where the
/// plugin was not asked anything, its fault matters to a job only if the entry says so.
fn refused_by_fault(
    context: &Context,
    loaded: Option<&Loaded>,
    error: &CallError,
    is_question: bool,
) -> Option<String> {
    context.log(Severity::Debug, format!("submit: {error}"));
    let Some(loaded) = loaded else { return Some(error.to_string()) };
    let is_skipped = match error {
        // Nobody could submit anything until an administrator comes.
        CallError::Quarantined { .. } => loaded.plugin.on_fault() == OnFault::Skip,
        _ if !is_question => loaded.plugin.on_fault() == OnFault::Skip,
        _ => loaded.plugin.lets_in_unjudged(),
    };
    (!is_skipped).then(|| error.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_that_nobody_could_read_are_refused() {
        let found = |dependencies: Value| {
            let system = serde_json::json!({ "dependencies": dependencies });
            let jobspec = serde_json::json!({ "attributes": { "system": system } });
            malformed_dependencies(&jobspec.to_string())
        };
        assert_eq!(malformed_dependencies("{}"), None);
        let good = serde_json::json!([{ "scheme": "after", "value": "1" }]);
        assert_eq!(found(good), None);
        let object = found(serde_json::json!({})).unwrap();
        assert_eq!(object, "dependencies object must be an array");
        let nameless = found(serde_json::json!([{ "foo": 1 }])).unwrap();
        assert_eq!(nameless, "dependency[0] missing string scheme");
    }
}
