//! `test`: recorded jobs go through a plugin again, on a clock of their own.
//!
//! The same recording and the same module give the same output, so that a change of policy shows
//! as a difference between two outputs.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use flux_protocol::fluid::JobId;
use serde_json::Value;

use super::recording::{Recorded, RecordedEvent};
use super::{Given, Outcome, host, recording, replay_scheduler, show, spec_of};
use crate::job_record;
use crate::plugin::types::{
    DependencyRequest, Edit, Effect, Entry, Event, EventPosted, Job, JobNew, JobResult, JobState,
    JobUpdated, Origin, StateChange, Submission, Verdict,
};
use crate::plugin::{JobFacts, Kind, Plugin, Replay, ReplayClock, SharedJobs, dependencies, topic};

#[derive(Debug, Args)]
pub(super) struct Test {
    /// Recorded jobs; recorded calls for a scheduler
    #[arg(long, value_name = "FILE", required = true)]
    replay: Vec<String>,
    /// Seed of the plugin's random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Module: a path, or a name in the plugin path
    file: String,
    #[command(flatten)]
    given: Given,
}

impl Test {
    pub(super) async fn run(self) -> Outcome {
        let (spec, kind) = spec_of(&self.file, self.given.conf()?)?;
        let (table, clock) = (SharedJobs::default(), ReplayClock::default());
        if kind == Kind::Scheduler {
            let replay = Replay { now: clock.clone(), seed: self.seed };
            let host = host(self.given.broker_config()?, table, Some(replay));
            let mut lines = Vec::new();
            for path in &self.replay {
                lines.extend(replay_scheduler::read(path)?);
            }
            return replay_scheduler::replay(&host, &spec, &clock, lines).await;
        }
        let mut jobs = Vec::new();
        for path in &self.replay {
            jobs.extend(recording::read(path)?);
        }
        let first = jobs.iter().filter_map(|job| Some(job.entries.first()?.timestamp));
        clock.set(first.min_by(f64::total_cmp).unwrap_or(0.0));
        let replay = Replay { now: clock.clone(), seed: self.seed };
        let host = host(self.given.broker_config()?, table.clone(), Some(replay));
        let plugin = host.load(&spec, kind, BTreeMap::new()).await;
        let plugin = plugin.map_err(|error| error.to_string())?;
        match kind {
            Kind::Validator | Kind::Frobnicator => judge(&plugin, kind, &jobs).await,
            _ => {
                let stage = Stage {
                    plugin,
                    table,
                    clock,
                    timers: BTreeMap::new(),
                    subscribed: BTreeSet::new(),
                };
                stage.play(jobs).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn judge(plugin: &Plugin, kind: Kind, jobs: &[Recorded]) {
    for recorded in jobs {
        let submit = recorded.entries.first().map_or(Value::Null, |entry| entry.context.clone());
        let number = |key: &str| submit.get(key).and_then(Value::as_u64).unwrap_or(0);
        let jobspec = recorded.jobspec.to_string();
        let submission = Submission {
            job: job_record::from_jobspec(&jobspec),
            userid: u32::try_from(number("userid")).unwrap_or(u32::MAX),
            urgency: i32::try_from(number("urgency")).unwrap_or(16),
            flags: u32::try_from(number("flags")).unwrap_or(0),
            jobspec,
        };
        let text = match kind {
            Kind::Validator => plugin.validate(vec![submission]).await.pop().map(|verdict| {
                verdict.map(|verdict| match verdict {
                    Verdict::Accept => "accept".to_owned(),
                    Verdict::Refuse(refusal) => format!("refuse {}", refusal.text),
                    Verdict::AskFeasibility => "ask feasibility".to_owned(),
                    Verdict::Other((name, _)) => name,
                })
            }),
            _ => plugin.frobnicate(vec![submission]).await.pop().map(|edit| {
                edit.map(|edit| match edit {
                    Edit::Unchanged => "unchanged".to_owned(),
                    Edit::Refuse(refusal) => format!("refuse {}", refusal.text),
                    Edit::Update(updates) => format!("update {updates:?}"),
                    Edit::Replace(json) => format!("replace {json}"),
                    Edit::Other((name, _)) => name,
                })
            }),
        };
        let text = text.map(|text| text.unwrap_or_else(|error| format!("FAULT {error}")));
        say!("{} {}", JobId(recorded.id).f58(), text.unwrap_or_default());
    }
}

/// A jobtap plugin and the world that it sees.
struct Stage {
    plugin: Plugin,
    table: SharedJobs,
    clock: ReplayClock,
    /// By name; when.
    timers: BTreeMap<String, f64>,
    subscribed: BTreeSet<u64>,
}

impl Stage {
    async fn play(mut self, jobs: Vec<Recorded>) {
        let mut script: Vec<(f64, u64, RecordedEvent)> = Vec::new();
        let mut acts = BTreeMap::new();
        for recorded in jobs {
            let entries = recorded.entries.iter();
            script.extend(entries.map(|entry| (entry.timestamp, recorded.id, entry.clone())));
            acts.insert(recorded.id, recorded);
        }
        script.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(Ordering::Equal));
        for (time, id, entry) in script {
            self.pass_to(time).await;
            self.clock.set(time);
            let Some(recorded) = acts.get(&id) else { continue };
            let events = self.happen(recorded, &entry);
            for event in events {
                self.call(time, id, event).await;
            }
        }
        self.pass_to(f64::INFINITY).await;
    }

    /// Lets timers fire that are due before.
    async fn pass_to(&mut self, time: f64) {
        loop {
            let due = self.timers.iter().min_by(|a, b| a.1.total_cmp(b.1));
            let Some((name, at)) = due.filter(|(_, at)| **at <= time) else { return };
            let (name, at) = (name.clone(), *at);
            self.timers.remove(&name);
            self.clock.set(at);
            self.call(at, 0, Event::Timer(name)).await;
        }
    }

    async fn call(&mut self, time: f64, id: u64, event: Event) {
        let name = match &event {
            Event::Timer(name) => format!("timer {name}"),
            event => {
                let Some(topic) = topic(event) else { return };
                if !self.plugin.facts().manifest.wants(&topic) {
                    return;
                }
                topic
            }
        };
        let answers = self.plugin.handle(vec![event]).await;
        let who = if id == 0 { String::new() } else { format!(" {}", JobId(id).f58()) };
        match answers.into_iter().next() {
            Some(Ok(answer)) => {
                let said = show::answer(&answer);
                let said = if said.is_empty() { "-".to_owned() } else { said.join("; ") };
                say!("{time:.6}{who} {name}: {said}");
                answer.effects.iter().for_each(|effect| self.take(effect));
            }
            Some(Err(error)) => say!("{time:.6}{who} {name}: FAULT {error}"),
            None => say!("{time:.6}{who} {name}: no answer"),
        }
    }

    /// What an effect means for later calls.
    fn take(&mut self, effect: &Effect) {
        match effect {
            Effect::SetTimer(timer) => {
                self.timers.insert(timer.name.clone(), timer.at.max(self.clock.now()));
            }
            Effect::CancelTimer(name) => {
                self.timers.remove(name);
            }
            Effect::Subscribe(id) => {
                self.subscribed.insert(*id);
            }
            Effect::Unsubscribe(id) => {
                self.subscribed.remove(id);
            }
            _ => {}
        }
    }

    /// An event of an eventlog: the job changes, and the plugin hears of it.
    fn happen(&mut self, recorded: &Recorded, entry: &RecordedEvent) -> Vec<Event> {
        let jobspec = recorded.jobspec.to_string();
        if entry.name == "submit" {
            return self.submit(recorded, entry, &jobspec);
        }
        let Some(before) = self.table.read(recorded.id, |facts| facts.job.clone()) else {
            return Vec::new();
        };
        let mut job = before.clone();
        apply(&mut job, entry);
        self.table.update(recorded.id, |facts| {
            facts.job = job.clone();
            facts.events.insert(entry.name.as_str().into());
            if entry.name == "alloc" {
                facts.resources = recorded.resources.as_deref().map(Into::into);
            }
        });
        let told = Entry {
            timestamp: entry.timestamp,
            name: entry.name.clone(),
            context: context(&entry.context),
        };
        let mut events = Vec::new();
        if self.subscribed.contains(&recorded.id) {
            events.push(Event::Posted(EventPosted { job: job.clone(), entry: told.clone() }));
        }
        let waits = matches!(job.state, JobState::Priority | JobState::Sched);
        if job.state != before.state {
            let change = StateChange { job, previous: before.state, entry: told };
            events.push(Event::State(change));
        } else if entry.name == "jobspec-update" {
            events.push(Event::Updated(JobUpdated { job, updates: told.context }));
        } else if entry.name == "urgency" && waits {
            events.push(Event::PriorityGet(job));
        }
        events
    }

    fn submit(&self, recorded: &Recorded, entry: &RecordedEvent, jobspec: &str) -> Vec<Event> {
        let number = |key: &str| entry.context.get(key).and_then(Value::as_u64);
        let job = Job {
            id: recorded.id,
            userid: number("userid").and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::MAX),
            urgency: number("urgency").and_then(|n| u8::try_from(n).ok()).unwrap_or(16),
            flags: number("flags").and_then(|flags| u32::try_from(flags).ok()).unwrap_or(0),
            t_submit: entry.timestamp,
            ..job_record::from_jobspec(jobspec).unwrap_or_else(job_record::blank)
        };
        self.table.put(JobFacts {
            job: job.clone(),
            jobspec: jobspec.into(),
            resources: None,
            events: ["submit".into()].into(),
        });
        let news = JobNew { job: job.clone(), origin: Origin::Submitted };
        let mut events = vec![Event::Create(news.clone()), Event::Validate(job.clone())];
        for (scheme, value, dependency) in dependencies(jobspec) {
            let job = job.clone();
            events.push(Event::Dependency(DependencyRequest { job, scheme, value, dependency }));
        }
        events.push(Event::New(news));
        events
    }
}

/// RFC 21, as far as plugins see it.
fn apply(job: &mut Job, entry: &RecordedEvent) {
    let number = |key: &str| entry.context.get(key).and_then(Value::as_i64);
    match entry.name.as_str() {
        "validate" => job.state = JobState::Depend,
        "depend" => job.state = JobState::Priority,
        "priority" => {
            job.priority = number("priority").and_then(|priority| u32::try_from(priority).ok());
            if job.state == JobState::Priority {
                job.state = JobState::Sched;
            }
        }
        "urgency" => {
            let urgency = number("urgency").and_then(|urgency| u8::try_from(urgency).ok());
            job.urgency = urgency.unwrap_or(job.urgency);
        }
        "alloc" => job.state = JobState::Run,
        "finish" => {
            let done = number("status") == Some(0);
            let result = if done { JobResult::Completed } else { JobResult::Failed };
            end(job, result, "finish");
        }
        "exception" if number("severity") == Some(0) => {
            let result = match entry.context.get("type").and_then(Value::as_str) {
                Some("cancel") => JobResult::Canceled,
                Some("timeout") => JobResult::Timeout,
                _ => JobResult::Failed,
            };
            end(job, result, "exception");
        }
        "clean" => job.state = JobState::Inactive,
        _ => {}
    }
}

fn end(job: &mut Job, result: JobResult, event: &str) {
    if job.state != JobState::Cleanup && job.state != JobState::Inactive {
        job.state = JobState::Cleanup;
        job.job_result = Some(result);
        job.end_event = Some(event.to_owned());
    }
}

fn context(context: &Value) -> String {
    if context.is_null() { "{}".to_owned() } else { context.to_string() }
}
