//! Runs `[job-manager.prolog]` before a job starts and `[job-manager.epilog]` after it finished.
//!
//! ```text
//! RUN: prolog-start, run ----> succeeded: prolog-finish, the job starts
//!                        ----> failed: (drain,) epilog-start, exception, prolog-finish, run epilog
//! finish: epilog-start, run -> (drain,) epilog-finish
//! ```
//!
//! The broker runs the commands and keeps them when this plugin is replaced; what became of one is
//! told once. Only a restart of the broker ends them: those that were under way are run again.

mod config;

use config::{Config, Kind};
use flux_plugin::prelude::*;
use flux_plugin::types::{ExecStart, ExecUpdate, Origin};
use flux_protocol::fluid::JobId as Fluid;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const DRAIN: &str = "resource.drain";

struct Perilog {
    config: Config,
    /// Commands under way.
    running: BTreeMap<JobId, Kind>,
    /// Ended, and the nodes are being drained: a job that ends must not free them before.
    draining: BTreeMap<JobId, End>,
}

/// How a command ended, as far as events tell.
#[derive(Clone, Debug, PartialEq)]
struct End {
    kind: Kind,
    status: i32,
    /// For the exception; none when it ended well or as a user wanted it to.
    failure: Option<String>,
    /// The job has not started and will not.
    lost: bool,
}

impl Plugin for Perilog {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(Perilog {
            config: Config::parse(&context.broker_config)?,
            running: BTreeMap::new(),
            draining: BTreeMap::new(),
        })
    }

    fn configure(&mut self, _: &str, broker_config: &str) -> Result<(), String> {
        self.config = Config::parse(broker_config)?;
        Ok(())
    }

    fn query(&self) -> String {
        let procs = self.running.iter().map(|(id, kind)| {
            (Fluid(*id).f58(), json!({ "name": kind.name(), "state": "running" }))
        });
        let procs: serde_json::Map<String, Value> = procs.collect();
        json!({ "conf": self.config.report(), "procs": procs }).to_string()
    }
}

impl Jobtap for Perilog {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::New(news) => self.announced(&news.job, news.origin, effects),
            Event::State(change) if change.job.state == JobState::Run => {
                self.begin(change.job.id, effects);
            }
            Event::Posted(posted) if posted.entry.name == "finish" => {
                self.finished(posted.job.id, effects);
            }
            Event::Exec(update) if update.finished => self.ended(&update, effects),
            Event::RpcResponse(response) => {
                if let Err(refusal) = &response.outcome {
                    let id = Fluid(response.tag).f58();
                    host::error(format!("failed to drain ranks for {id}: {}", refusal.text));
                }
                if let Some(end) = self.draining.remove(&response.tag) {
                    self.conclude(response.tag, &end, effects);
                }
            }
            _ => {}
        }
        Reply::Pass
    }
}

impl Perilog {
    /// The job has its resources.
    fn begin(&mut self, id: JobId, effects: &mut Effects) {
        if self.config.prolog.is_none() && self.config.epilog.is_none() {
            return;
        }
        effects.subscribe(id);
        if self.config.prolog.is_some() {
            effects.prolog_start(id, Kind::Prolog.description());
            self.run(id, Kind::Prolog, effects);
        }
    }

    /// Its tasks are done.
    fn finished(&mut self, id: JobId, effects: &mut Effects) {
        if self.config.epilog.is_some() {
            effects.epilog_start(id, Kind::Epilog.description());
            self.run(id, Kind::Epilog, effects);
        }
    }

    fn run(&mut self, id: JobId, kind: Kind, effects: &mut Effects) {
        let Some(procedure) = self.config.of(kind) else { return };
        self.running.insert(id, kind);
        effects.exec(ExecStart {
            tag: tag(id, kind),
            job: id,
            command: kind.name().to_owned(),
            ranks: None,
            options: procedure.options(),
        });
    }

    /// Jobs that were there before. Where the plugin alone was started again, the broker still
    /// has the commands; where the broker was, they ended with it.
    fn announced(&mut self, job: &Job, origin: Origin, effects: &mut Effects) {
        if origin == Origin::Submitted || !matches!(job.state, JobState::Run | JobState::Cleanup) {
            return;
        }
        effects.subscribe(job.id);
        let open = |kind: Kind| {
            let posted = |what| host::event_posted(job.id, &format!("{}-{what}", kind.name()));
            posted("start") == Some(true) && posted("finish") == Some(false)
        };
        let kind = match () {
            () if open(Kind::Prolog) => Kind::Prolog,
            () if open(Kind::Epilog) => Kind::Epilog,
            () => return,
        };
        if let Some(end) = host::get(&tag(job.id, kind)).and_then(|bytes| End::decode(kind, &bytes))
        {
            self.conclude(job.id, &end, effects);
        } else if origin == Origin::Restarted {
            self.run(job.id, kind, effects);
        } else {
            self.running.insert(job.id, kind);
        }
    }

    /// A command is over: drain where it failed on nodes of the job, then tell.
    fn ended(&mut self, update: &ExecUpdate, effects: &mut Effects) {
        let id = update.job;
        let kind = match () {
            () if update.tag == tag(id, Kind::Prolog) => Kind::Prolog,
            () if update.tag == tag(id, Kind::Epilog) => Kind::Epilog,
            () => return,
        };
        self.running.remove(&id);
        let bad = update.status != 0 || update.timed_out;
        let end = End {
            kind,
            status: update.status,
            failure: (bad && !update.canceled).then(|| reason(kind, update)),
            lost: kind == Kind::Prolog && (bad || update.canceled),
        };
        let per_rank = self.config.of(kind).is_some_and(|procedure| procedure.per_rank);
        if end.failure.is_none() || !per_rank || update.failed_ranks.is_empty() {
            return self.conclude(id, &end, effects);
        }
        let how = if update.timed_out { "timed out" } else { "failed" };
        let reason = format!("{} {how} for job {}", kind.name(), Fluid(id).f58());
        let request = json!({ "targets": update.failed_ranks, "reason": reason, "mode": "update" });
        effects.put(tag(id, kind), end.encode());
        effects.rpc(id, DRAIN, request.to_string());
        self.draining.insert(id, end);
    }

    fn conclude(&mut self, id: JobId, end: &End, effects: &mut Effects) {
        let kind = end.kind;
        // There will be no `finish` to start the epilog. It is announced before the prolog's end
        // is, which would let the job go.
        let undo = end.lost && self.config.epilog.is_some();
        if undo {
            effects.epilog_start(id, Kind::Epilog.description());
        }
        if let Some(note) = &end.failure {
            // After the job, a failure says nothing about the job any more.
            let severity = if kind == Kind::Prolog { 0 } else { 2 };
            effects.raise(id, kind.name(), severity, note.clone());
        }
        match kind {
            Kind::Prolog => effects.prolog_finish(id, kind.description(), end.status),
            Kind::Epilog => {
                effects.unsubscribe(id);
                effects.epilog_finish(id, kind.description(), end.status);
            }
        }
        effects.remove(tag(id, kind));
        if undo {
            self.run(id, Kind::Epilog, effects);
        }
    }
}

impl End {
    fn encode(&self) -> Vec<u8> {
        json!({ "status": self.status, "failure": self.failure, "lost": self.lost })
            .to_string()
            .into_bytes()
    }

    fn decode(kind: Kind, bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        Some(End {
            kind,
            status: i32::try_from(value.get("status")?.as_i64()?).ok()?,
            failure: value.get("failure").and_then(Value::as_str).map(str::to_owned),
            lost: value.get("lost")?.as_bool()?,
        })
    }
}

fn tag(id: JobId, kind: Kind) -> String {
    format!("{}-{id}", kind.name())
}

/// In the words of flux-core.
fn reason(kind: Kind, update: &ExecUpdate) -> String {
    let details: Value = serde_json::from_str(&update.details).unwrap_or_default();
    let name = kind.name();
    if let Some(error) = details.get("error").and_then(Value::as_str) {
        return format!("{name} could not be run: {error}");
    }
    let hosts = details.get("hosts").and_then(Value::as_str).unwrap_or("unknown");
    let place = format!("on {hosts} (rank {})", update.failed_ranks);
    // As wait(2) has it; shells tell a signal by 128 and its number.
    let (signal, code) = (update.status & 0x7f, update.status >> 8 & 0xff);
    match (signal, code) {
        _ if update.timed_out => format!("{name} timed out {place}"),
        (1.., _) => format!("{name} killed by signal {signal} {place}"),
        (_, 129..) => format!("{name} killed by signal {} {place}", code - 128),
        _ => format!("{name} exited with code={code} {place}"),
    }
}

flux_plugin::jobtap! {
    Perilog,
    name: "perilog",
    description: "Runs a prolog before and an epilog after each job",
    topics: ["job.new", "job.state.run", "job.event.finish"],
    capabilities: [
        "config:job-manager",
        "config:exec",
        "exec:prolog",
        "exec:epilog",
        "rpc:resource.drain",
    ],
}

#[cfg(test)]
mod tests;
