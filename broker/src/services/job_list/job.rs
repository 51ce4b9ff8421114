//! One job as listings show it.

use std::collections::BTreeSet;

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::jobspec::{Jobspec, Rules};
use flux_protocol::r::ResourceSet;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::attributes::Attributes;
use super::demand::Demand;
use crate::jpath;

/// Names of the attributes that can be asked for.
pub(super) const ATTRS: &[&str] = &[
    "userid",
    "urgency",
    "priority",
    "t_submit",
    "t_depend",
    "t_priority",
    "t_sched",
    "t_run",
    "t_cleanup",
    "t_inactive",
    "state",
    "name",
    "cwd",
    "queue",
    "project",
    "bank",
    "ntasks",
    "ncores",
    "duration",
    "nnodes",
    "ranks",
    "nodelist",
    "success",
    "exception_occurred",
    "exception_type",
    "exception_severity",
    "exception_note",
    "result",
    "expiration",
    "annotations",
    "waitstatus",
    "dependencies",
    "all",
];

/// RFC 21 states, as their bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(super) enum State {
    New = 1,
    Depend = 2,
    Priority = 4,
    Sched = 8,
    Run = 16,
    Cleanup = 32,
    Inactive = 64,
}

/// Bits of results.
pub(super) mod result {
    pub(crate) const COMPLETED: u32 = 1;
    pub(crate) const FAILED: u32 = 2;
    pub(crate) const CANCELED: u32 = 4;
    pub(crate) const TIMEOUT: u32 = 8;
}

/// What is known of a job.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) userid: u32,
    pub(super) state: State,
    /// Bits of all that it has been in, since it was last put back.
    states: u32,
    pub(super) priority: i64,
    pub(super) t_run: f64,
    pub(super) t_inactive: f64,
    pub(super) result: Option<u32>,
    t_cleanup: f64,
    /// What updates change and attributes are read from, as text: as values, the jobspecs of
    /// many jobs would take many times the space.
    jobspec: Box<str>,
    ranks: String,
    nodelist: String,
    dependencies: BTreeSet<String>,
    attrs: Attributes,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Exception {
    #[serde(rename = "type")]
    kind: String,
    severity: u32,
    note: String,
}

impl Job {
    pub(super) fn new(id: JobId) -> Job {
        let mut attrs = Attributes::default();
        attrs.set("id", json!(id));
        attrs.set("exception_occurred", json!(false));
        Job {
            id,
            userid: u32::MAX,
            state: State::New,
            states: State::New as u32,
            priority: -1,
            t_run: 0.0,
            t_inactive: 0.0,
            result: None,
            t_cleanup: 0.0,
            jobspec: Box::default(),
            ranks: String::new(),
            nodelist: String::new(),
            dependencies: BTreeSet::new(),
            attrs,
        }
    }

    fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attrs.set(name, value.into());
    }

    pub(super) fn attr(&self, name: &str) -> Option<&Value> {
        self.attrs.get(name)
    }

    pub(super) fn queue(&self) -> Option<&str> {
        self.attr("queue")?.as_str()
    }

    pub(super) fn nodelist(&self) -> &str {
        &self.nodelist
    }

    pub(super) fn ranks(&self) -> &str {
        &self.ranks
    }

    /// The job is, or has been, in this state, or will never be.
    pub(super) fn has_reached(&self, state: u32) -> bool {
        self.states & state != 0 || self.state == State::Inactive
    }

    /// Only what has ended after this time.
    pub(super) fn is_since(&self, since: f64) -> bool {
        self.state != State::Inactive || self.t_inactive > since
    }

    pub(super) fn set_jobspec(&mut self, json: &str) {
        let mut jobspec = serde_json::from_str(json).unwrap_or(Value::Null);
        let system = jobspec.pointer_mut("/attributes/system").and_then(Value::as_object_mut);
        if let Some(system) = system {
            // Most of a jobspec, and nothing that is listed.
            system.shift_remove("environment");
            system.shift_remove("files");
        }
        self.read_jobspec(jobspec);
    }

    fn read_jobspec(&mut self, jobspec: Value) {
        self.jobspec = jobspec.to_string().into();
        let system = jobspec.pointer("/attributes/system").cloned().unwrap_or(Value::Null);
        for key in ["cwd", "queue", "project", "bank"] {
            if let Some(text) = system.get(key).and_then(Value::as_str) {
                self.set(key, text);
            }
        }
        let duration = system.get("duration").and_then(Value::as_f64).unwrap_or(0.0);
        self.set("duration", duration);
        if let Some(name) = name(&jobspec) {
            self.set("name", name);
        }
        let rules = Rules::default();
        if let Ok(spec) = Jobspec::from_value(jobspec, &rules) {
            let demand = Demand::of(&spec);
            // What it has got counts for more than what it has asked for.
            let pending = self.ranks.is_empty();
            for (name, count) in
                [("ntasks", demand.ntasks), ("nnodes", demand.nnodes), ("ncores", demand.ncores)]
            {
                if let Some(count) = count.filter(|_| pending || name == "ntasks") {
                    self.set(name, count);
                }
            }
        }
    }

    pub(super) fn set_r(&mut self, json: &str) {
        let Ok(r) = ResourceSet::decode(json) else { return };
        self.ranks = r.ranks().to_string();
        self.nodelist = r.nodelist().to_string();
        let ranks = match r.nnodes() {
            1 => self.ranks.clone(),
            _ => format!("[{}]", self.ranks),
        };
        self.set("ranks", ranks);
        self.set("nodelist", self.nodelist.clone());
        self.set("nnodes", r.nnodes());
        self.set("ncores", r.ncores());
        if self.attr("ntasks").is_none() {
            self.count_tasks(&r);
        }
        if r.expiration > 0.0 {
            self.set("expiration", r.expiration);
        }
    }

    /// Of a job with so many on each of what it gets.
    fn count_tasks(&mut self, r: &ResourceSet) {
        let jobspec = serde_json::from_str(&self.jobspec).unwrap_or(Value::Null);
        let Ok(spec) = Jobspec::from_value(jobspec, &Rules::default()) else { return };
        let nnodes = u64::try_from(r.nnodes()).unwrap_or(u64::MAX);
        if let Some(ntasks) = Demand::of(&spec).ntasks_of(nnodes, r.ncores()) {
            self.set("ntasks", ntasks);
        }
    }

    fn enter(&mut self, state: State, time: f64) {
        self.state = state;
        self.states |= state as u32;
        let name = match state {
            State::New => return,
            State::Depend => "t_depend",
            State::Priority => "t_priority",
            State::Sched => "t_sched",
            State::Run => "t_run",
            State::Cleanup => "t_cleanup",
            State::Inactive => "t_inactive",
        };
        match state {
            State::Run => self.t_run = time,
            State::Cleanup => self.t_cleanup = time,
            State::Inactive => self.t_inactive = time,
            _ => {}
        }
        // A job that is put back has its first times.
        let again = matches!(state, State::Priority | State::Sched) && self.attr(name).is_some();
        if !again {
            self.set(name, time);
        }
    }

    /// Take over an event (RFC 21).
    pub(super) fn apply(&mut self, event: &Event) {
        let context: Value = event
            .context
            .as_ref()
            .and_then(|context| serde_json::from_str(context.get()).ok())
            .unwrap_or(Value::Null);
        let time = event.timestamp;
        match event.name.as_str() {
            "submit" => {
                self.userid = number(&context, "userid").unwrap_or(u32::MAX);
                self.set("userid", self.userid);
                self.set("urgency", number(&context, "urgency").unwrap_or(16));
                self.set("t_submit", time);
            }
            "validate" => self.enter(State::Depend, time),
            "dependency-add" | "dependency-remove" => self.dependency(&event.name, &context),
            "depend" => self.enter(State::Priority, time),
            "priority" => {
                self.priority = context.get("priority").and_then(Value::as_i64).unwrap_or(0);
                self.set("priority", self.priority);
                if self.state == State::Priority {
                    self.enter(State::Sched, time);
                }
            }
            "urgency" => {
                self.set("urgency", number(&context, "urgency").unwrap_or(16));
                self.back_to_priority();
            }
            "flux-restart" => self.back_to_priority(),
            "jobspec-update" => {
                let mut jobspec = serde_json::from_str(&self.jobspec).unwrap_or(Value::Null);
                if let Value::Object(updates) = context {
                    for (path, value) in updates {
                        jpath::set(&mut jobspec, &path, value);
                    }
                }
                self.read_jobspec(jobspec);
                self.back_to_priority();
            }
            "resource-update" => {
                if let Some(expiration) = context.get("expiration").and_then(Value::as_f64) {
                    self.set("expiration", expiration);
                }
            }
            "annotations" => match context.get("annotations") {
                Some(Value::Null) | None => {
                    self.attrs.remove("annotations");
                }
                Some(annotations) => self.set("annotations", annotations.clone()),
            },
            "memo" => self.annotate(&json!({ "user": context })),
            "alloc" => {
                if let Some(annotations) = context.get("annotations") {
                    self.annotate(annotations);
                }
                if self.state == State::Sched {
                    self.enter(State::Run, time);
                }
            }
            "finish" => {
                let status = context.get("status").and_then(Value::as_i64).unwrap_or(0);
                self.set("waitstatus", status);
                if self.state == State::Run {
                    self.enter(State::Cleanup, time);
                }
                if self.result.is_none() {
                    let bit = if status == 0 { result::COMPLETED } else { result::FAILED };
                    self.result = Some(bit);
                }
            }
            "exception" => self.exception(&context, time),
            "clean" => {
                self.enter(State::Inactive, time);
                let bit = self.result.unwrap_or(result::FAILED);
                self.set("result", bit);
                self.set("success", bit == result::COMPLETED);
            }
            _ => {}
        }
    }

    fn back_to_priority(&mut self) {
        if self.state == State::Sched {
            self.state = State::Priority;
            self.states &= !(State::Sched as u32);
        }
    }

    fn dependency(&mut self, name: &str, context: &Value) {
        let Some(text) = context.get("description").and_then(Value::as_str) else { return };
        match name {
            "dependency-add" => self.dependencies.insert(text.to_owned()),
            _ => self.dependencies.remove(text),
        };
        if self.dependencies.is_empty() {
            self.attrs.remove("dependencies");
        } else {
            self.set("dependencies", json!(self.dependencies));
        }
    }

    /// The most severe exception is shown, and the first among those.
    fn exception(&mut self, context: &Value, time: f64) {
        let exception: Exception = serde_json::from_value(context.clone()).unwrap_or_default();
        let shown = self.attr("exception_severity").and_then(Value::as_u64);
        if shown.is_none_or(|severity| u64::from(exception.severity) < severity) {
            self.set("exception_occurred", true);
            self.set("exception_type", exception.kind.clone());
            self.set("exception_severity", exception.severity);
            self.set("exception_note", exception.note);
        }
        if exception.severity == 0 && self.state < State::Inactive {
            if self.state < State::Cleanup {
                self.enter(State::Cleanup, time);
            }
            self.result.get_or_insert(match exception.kind.as_str() {
                "cancel" => result::CANCELED,
                "timeout" => result::TIMEOUT,
                _ => result::FAILED,
            });
        }
    }

    fn annotate(&mut self, update: &Value) {
        let mut annotations = self.attrs.remove("annotations").unwrap_or_else(|| json!({}));
        jpath::annotate(&mut annotations, update);
        if annotations.as_object().is_some_and(|object| !object.is_empty()) {
            self.set("annotations", annotations);
        }
    }

    /// Of its end it is told when the job has come to it.
    fn is_told_of(&self, name: &str) -> bool {
        let is_of_the_end = matches!(name, "success" | "result") || name.starts_with("exception_");
        !is_of_the_end || self.state == State::Inactive
    }

    /// The attributes that are wanted and there; the id always is. EINVAL: an unknown name.
    pub(super) fn select(&self, names: &[String]) -> Result<Map<String, Value>, Failure> {
        let mut object = Map::new();
        object.insert("id".to_owned(), json!(self.id));
        let all = names.iter().any(|name| name == "all");
        for name in ATTRS.iter().filter(|name| **name != "all") {
            let wanted = all || names.iter().any(|wanted| wanted == name);
            if !wanted || !self.is_told_of(name) {
                continue;
            }
            if *name == "state" {
                object.insert("state".to_owned(), json!(self.state as u32));
            } else if let Some(value) = self.attrs.get(name) {
                object.insert((*name).to_owned(), value.clone());
            }
        }
        match names.iter().find(|name| !ATTRS.contains(&name.as_str()) && *name != "id") {
            Some(name) => {
                Err(Failure::new(Errno::EINVAL, format!("{name} is not a valid attribute")))
            }
            None => Ok(object),
        }
    }
}

fn number(context: &Value, key: &str) -> Option<u32> {
    u32::try_from(context.get(key)?.as_u64()?).ok()
}

/// The name that a job was given, else that of its command.
fn name(jobspec: &Value) -> Option<String> {
    if let Some(name) = jobspec.pointer("/attributes/system/job/name").and_then(Value::as_str) {
        return Some(name.to_owned());
    }
    let path = jobspec.pointer("/tasks/0/command/0").and_then(Value::as_str)?;
    // A folder, given by mistake, is named in full.
    let name = path.rsplit('/').next().filter(|name| !name.is_empty());
    Some(name.unwrap_or(path).to_owned())
}
