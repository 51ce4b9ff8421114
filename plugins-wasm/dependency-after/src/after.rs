//! Jobs that wait for the start or the end of another.

use flux_plugin::prelude::*;
use flux_plugin::types::DependencyRequest;
use flux_protocol::fluid::JobId as Fluid;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Start,
    Any,
    Success,
    Failure,
    Exception,
}

impl Outcome {
    fn of_scheme(scheme: &str) -> Option<Self> {
        Some(match scheme {
            "after" | "afterstart" => Outcome::Start,
            "afterany" => Outcome::Any,
            "afterok" => Outcome::Success,
            "afternotok" => Outcome::Failure,
            "afterexcept" => Outcome::Exception,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Outcome::Start => "after-start",
            Outcome::Any => "after-finish",
            Outcome::Success => "after-success",
            Outcome::Failure => "after-failure",
            Outcome::Exception => "after-except",
        }
    }
}

#[derive(Clone, Debug)]
struct Waiter {
    id: JobId,
    outcome: Outcome,
    text: String,
}

/// Waiting jobs, by the job they wait for.
#[derive(Debug, Default)]
pub(crate) struct After {
    waiters: BTreeMap<JobId, Vec<Waiter>>,
}

impl After {
    pub(crate) fn report(&self) -> Value {
        let list = self.waiters.iter().flat_map(|(on, waiters)| {
            waiters.iter().map(
                move |waiter| json!({ "id": waiter.id, "depid": on, "description": waiter.text }),
            )
        });
        Value::Array(list.collect())
    }

    /// A job names another one that it depends on.
    pub(crate) fn depend(&mut self, request: &DependencyRequest, effects: &mut Effects) -> Reply {
        let (job, scheme, name) = (&request.job, &request.scheme, &request.value);
        let refused = |text: String| Reply::Refuse(refuse_with(errno::EINVAL, text));
        let Some(outcome) = Outcome::of_scheme(scheme) else {
            return refused(format!("invalid dependency scheme: {scheme}"));
        };
        if scheme == "after" && job.state == JobState::New {
            let note = "dependency scheme 'after' is deprecated, use 'afterstart'";
            effects.raise(job.id, "dependency", 3, note);
        }
        let Ok(Fluid(on)) = Fluid::parse(name) else {
            return refused(format!("dependency: {scheme}: \"{name}\" is not a valid jobid"));
        };
        let Some(target) = host::job(on) else {
            return refused(format!("dependency: {scheme}: id {name}: job not found"));
        };
        if target.userid != job.userid {
            return refused(format!("{scheme}: Permission denied for job {name}"));
        }
        let waiter = Waiter { id: job.id, outcome, text: format!("{}={name}", outcome.name()) };
        if target.state == JobState::Inactive {
            if let Err(text) = over_already(&target, outcome, name) {
                return refused(text);
            }
            effects.add_dependency(job.id, waiter.text.clone());
            effects.remove_dependency(job.id, waiter.text);
            return Reply::Accept;
        }
        effects.add_dependency(job.id, waiter.text.clone());
        if outcome == Outcome::Start && host::event_posted(on, "start") == Some(true) {
            effects.remove_dependency(job.id, waiter.text);
            return Reply::Accept;
        }
        effects.explain(job.id, format!("waits for job {name} ({scheme})"));
        if outcome == Outcome::Start {
            effects.subscribe(on);
        }
        let waiters = self.waiters.entry(on).or_default();
        waiters.retain(|other| (other.id, &other.text) != (waiter.id, &waiter.text));
        waiters.push(waiter);
        Reply::Accept
    }

    /// A job started that others may wait for.
    pub(crate) fn started(&mut self, on: JobId, effects: &mut Effects) {
        if let Some(waiters) = self.waiters.get_mut(&on) {
            release(waiters, effects, |outcome| outcome == Outcome::Start);
        }
        effects.unsubscribe(on);
    }

    /// A job ended that others may wait for: those it suits go on, the rest never can.
    pub(crate) fn ended(&mut self, target: &Job, effects: &mut Effects) {
        let Some(mut waiters) = self.waiters.remove(&target.id) else { return };
        let ran = host::event_posted(target.id, "alloc") == Some(true);
        let good = target.job_result == Some(JobResult::Completed);
        let exception = target.end_event.as_deref() == Some("exception");
        release(&mut waiters, effects, |outcome| match outcome {
            Outcome::Any => true,
            Outcome::Start => false,
            Outcome::Success => ran && good,
            Outcome::Failure => ran && !good,
            Outcome::Exception => ran && !good && exception,
        });
        let why = if ran { "can never be satisfied" } else { "job never started" };
        for waiter in waiters {
            let note = format!("dependency {} {why}", waiter.text);
            effects.raise(waiter.id, "dependency", 0, note);
        }
    }
}

fn release(waiters: &mut Vec<Waiter>, effects: &mut Effects, suits: impl Fn(Outcome) -> bool) {
    waiters.retain(|waiter| {
        let suits = suits(waiter.outcome);
        if suits {
            effects.remove_dependency(waiter.id, waiter.text.clone());
        }
        !suits
    });
}

/// Whether a job that is over already satisfies a dependency.
fn over_already(target: &Job, outcome: Outcome, name: &str) -> Result<(), String> {
    let posted = |event: &str| host::event_posted(target.id, event) == Some(true);
    let good = target.job_result == Some(JobResult::Completed);
    let never = || Err(format!("dependency: after: {name} never started"));
    if outcome != Outcome::Any && !posted("alloc") {
        return never();
    }
    match outcome {
        Outcome::Start if !posted("start") => never(),
        Outcome::Success if !good => {
            Err(format!("dependency: afterok: job {name} failed or was canceled"))
        }
        Outcome::Failure if good => Err(format!("dependency: afternotok: job {name} succeeded")),
        Outcome::Exception if target.end_event.as_deref() != Some("exception") => {
            Err(format!("dependency: afterexcept: job {name}: no exception"))
        }
        _ => Ok(()),
    }
}
