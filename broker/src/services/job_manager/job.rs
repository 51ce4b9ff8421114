//! A job, and how the events of its eventlog change it (RFC 21). No I/O, no clock, no plugins.
//!
//! ```text
//! NEW -> DEPEND -> PRIORITY <-> SCHED -> RUN -> CLEANUP -> INACTIVE
//!           |          |          |       |        ^
//!           +----------+----------+-------+--------+   (fatal exception)
//! ```
//!
//! [`Job::apply`] is the only thing that changes the state, both live and when eventlogs are
//! replayed after a restart, so that the two can't disagree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::jpath;

/// RFC 21 states; the number of a state is its bit in masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum State {
    New = 1,
    Depend = 2,
    Priority = 4,
    Sched = 8,
    Run = 16,
    Cleanup = 32,
    Inactive = 64,
}

/// Masks of states.
pub mod states {
    pub const PENDING: u32 = 2 | 4 | 8;
    pub const RUNNING: u32 = 16 | 32;
    pub const ACTIVE: u32 = PENDING | RUNNING;
}

/// Urgencies with a meaning of their own.
pub mod urgency {
    pub const HOLD: u32 = 0;
    pub const DEFAULT: u32 = 16;
    pub const EXPEDITE: u32 = 31;
}

/// Priorities of held and of expedited jobs.
pub mod priority {
    pub const MIN: u32 = 0;
    pub const MAX: u32 = u32::MAX;
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobResult {
    Completed,
    Failed,
    Canceled,
    Timeout,
}

/// What the event that led to CLEANUP says.
#[derive(Debug, Clone, PartialEq)]
pub enum EndEvent {
    Finish { status: i32 },
    Exception { kind: String, note: String },
}

/// A job.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    pub userid: u32,
    pub urgency: u32,
    /// What a plugin or an update last said; nothing before the first priority event.
    pub priority: Option<u32>,
    pub flags: u32,
    pub state: State,
    /// Seconds since 1970.
    pub t_submit: f64,
    pub t_clean: f64,
    /// Without the environment; with all updates applied.
    pub jobspec: Rc<RawValue>,
    pub r: Option<Rc<RawValue>>,
    /// Descriptions of dependencies that hold the job.
    pub dependencies: BTreeSet<String>,
    /// Descriptions of dependencies that were there once; adding one again does nothing.
    pub satisfied: BTreeSet<String>,
    /// Prolog and epilog actions that are under way, by description.
    pub perilog: BTreeMap<String, u32>,
    pub has_resources: bool,
    /// A plugin gave the resources; the scheduler knows nothing of them.
    pub alloc_bypass: bool,
    pub started: bool,
    /// It has ended on all of its ranks.
    pub released: bool,
    pub end_event: Option<EndEvent>,
    pub fatal_exception: bool,
    /// Its submitter has heard that it could not be stored: nobody is to see it any more.
    pub is_refused: bool,
    pub annotations: Option<Value>,
    /// Not in the eventlog: what the job manager has under way for the job.
    pub pending: Pending,
    /// Events that are posted, but wait for plugins to be done with those before.
    pub queued: VecDeque<Event>,
    /// The last event, while plugins decide on it. It is stored together with what they make of
    /// it, so that a restart never finds the one without the other.
    pub unsettled: Option<Event>,
}

/// Requests that are out, and events that are posted but not applied.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    pub alloc_queued: bool,
    pub alloc_sent: bool,
    pub alloc_cancel_sent: bool,
    pub start_sent: bool,
    /// Execution is over, and what it has said of its ranks is yet to be posted: nothing of the job
    /// runs on them when its epilog has ended, too.
    pub release: Option<ReleaseContext>,
    pub depend_posted: bool,
    pub free_posted: bool,
    pub clean_posted: bool,
    /// Calls of plugins that are under way; no action is taken meanwhile.
    pub callbacks: u32,
    /// Plugins decide whether the job may have what the scheduler gave it.
    pub admitting: bool,
    /// A restart found the job running; execution is to pick it up.
    pub reattach: bool,
    /// A restart found the job on nodes that may not be back yet.
    pub restored: bool,
}

/// Of the release event (RFC 21), in the order in which it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseContext {
    pub ranks: String,
    #[serde(rename = "final")]
    pub is_final: bool,
}

/// What is to be done for a job in the state that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    PostDepend,
    /// Take the job out of the queue of the scheduler.
    Dequeue,
    Enqueue,
    Start,
    PostRelease,
    /// Give the resources back, and say so.
    Free,
    PostClean,
    /// The job is over: tell those who wait.
    Retire,
}

/// An event that can't follow those before it.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{event} event: {error}")]
    Context { event: String, error: serde_json::Error },
    #[error("{event} event in state {state}")]
    Order { event: String, state: &'static str },
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Failure {
        Failure::new(Errno::EPROTO, error.to_string())
    }
}

#[derive(Deserialize)]
struct SubmitContext {
    userid: u32,
    urgency: u32,
    #[serde(default)]
    flags: u32,
}

#[derive(Deserialize)]
struct PriorityContext {
    priority: u32,
}

#[derive(Deserialize)]
struct UrgencyContext {
    urgency: u32,
}

#[derive(Deserialize)]
struct ExceptionContext {
    #[serde(rename = "type")]
    kind: String,
    severity: u32,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
struct AllocContext {
    #[serde(default)]
    annotations: Option<Value>,
    #[serde(default)]
    bypass: bool,
}

#[derive(Deserialize)]
struct FinishContext {
    status: i32,
}

#[derive(Deserialize)]
struct DescriptionContext {
    description: String,
}

#[derive(Deserialize)]
struct FlagsContext {
    flags: Vec<String>,
}

#[derive(Deserialize)]
struct ResourceUpdateContext {
    #[serde(default)]
    expiration: Option<f64>,
}

// === impl State ===

impl State {
    pub const ALL: [State; 7] = [
        State::New,
        State::Depend,
        State::Priority,
        State::Sched,
        State::Run,
        State::Cleanup,
        State::Inactive,
    ];

    pub fn bit(self) -> u32 {
        self as u32
    }

    pub fn is_in(self, mask: u32) -> bool {
        self.bit() & mask != 0
    }

    pub fn name(self) -> &'static str {
        match self {
            State::New => "NEW",
            State::Depend => "DEPEND",
            State::Priority => "PRIORITY",
            State::Sched => "SCHED",
            State::Run => "RUN",
            State::Cleanup => "CLEANUP",
            State::Inactive => "INACTIVE",
        }
    }
}

// === impl Job ===

impl Job {
    /// A job before its submit event.
    pub fn new(id: JobId, jobspec: Rc<RawValue>) -> Job {
        Job {
            id,
            userid: u32::MAX,
            urgency: urgency::DEFAULT,
            priority: None,
            flags: 0,
            state: State::New,
            t_submit: 0.0,
            t_clean: 0.0,
            jobspec,
            r: None,
            dependencies: BTreeSet::new(),
            satisfied: BTreeSet::new(),
            perilog: BTreeMap::new(),
            has_resources: false,
            alloc_bypass: false,
            started: false,
            released: false,
            end_event: None,
            fatal_exception: false,
            is_refused: false,
            annotations: None,
            pending: Pending::default(),
            queued: VecDeque::new(),
            unsettled: None,
        }
    }

    pub fn is_active(&self) -> bool {
        self.state.is_in(states::ACTIVE)
    }

    /// The priority by which the queue is ordered.
    pub fn queue_priority(&self) -> u32 {
        self.priority.unwrap_or(priority::MIN)
    }

    /// How it ended; nothing before CLEANUP.
    pub fn result(&self) -> Option<JobResult> {
        Some(match self.end_event.as_ref()? {
            EndEvent::Finish { status: 0 } => JobResult::Completed,
            EndEvent::Finish { .. } => JobResult::Failed,
            EndEvent::Exception { kind, .. } => match kind.as_str() {
                "cancel" => JobResult::Canceled,
                "timeout" => JobResult::Timeout,
                _ => JobResult::Failed,
            },
        })
    }

    /// Take over an event.
    pub fn apply(&mut self, event: &Event) -> Result<(), ApplyError> {
        match event.name.as_str() {
            "submit" => self.apply_submit(event)?,
            "validate" => self.state = State::Depend,
            "dependency-add" if self.state <= State::Depend => {
                let DescriptionContext { description } = context(event)?;
                self.dependencies.insert(description);
            }
            "dependency-remove" if self.state <= State::Depend => {
                let DescriptionContext { description } = context(event)?;
                self.dependencies.remove(&description);
                self.satisfied.insert(description);
            }
            "set-flags" => self.apply_flags(&context::<FlagsContext>(event)?),
            "depend" if self.state == State::Depend => self.state = State::Priority,
            "priority" if matches!(self.state, State::Priority | State::Sched) => {
                self.priority = Some(context::<PriorityContext>(event)?.priority);
                self.state = State::Sched;
            }
            "urgency" => {
                self.urgency = context::<UrgencyContext>(event)?.urgency;
                self.reprioritize();
            }
            "jobspec-update" => {
                self.apply_jobspec_update(event)?;
                self.reprioritize();
            }
            "resource-update" => self.apply_resource_update(event)?,
            "flux-restart" => self.reprioritize(),
            "memo" => self.apply_memo(&context::<Map<String, Value>>(event)?),
            "alloc" => self.apply_alloc(event)?,
            "start" => self.started = true,
            "release" => self.released |= context::<ReleaseContext>(event)?.is_final,
            "free" => self.has_resources = false,
            "finish" if self.state == State::Run => {
                let FinishContext { status } = context(event)?;
                self.end_event.get_or_insert(EndEvent::Finish { status });
                self.state = State::Cleanup;
            }
            "exception" => self.apply_exception(context(event)?),
            "clean" if self.state == State::Cleanup => {
                self.state = State::Inactive;
                self.t_clean = event.timestamp;
            }
            "prolog-start" if !self.pending.start_sent => self.perilog_start(event)?,
            // Where a prolog failed, the epilog is announced before the exception is.
            "epilog-start" if matches!(self.state, State::Run | State::Cleanup) => {
                self.perilog_start(event)?;
            }
            "prolog-finish" | "epilog-finish" => self.perilog_finish(event)?,
            // Other events tell, but change nothing.
            _ => {}
        }
        Ok(())
    }

    fn apply_submit(&mut self, event: &Event) -> Result<(), ApplyError> {
        if self.state != State::New {
            let event = event.name.clone();
            return Err(ApplyError::Order { event, state: self.state.name() });
        }
        let SubmitContext { userid, urgency, flags } = context(event)?;
        self.userid = userid;
        self.urgency = urgency;
        self.flags = flags;
        self.t_submit = event.timestamp;
        Ok(())
    }

    fn apply_flags(&mut self, context: &FlagsContext) {
        use flux_protocol::rpc::job_ingest::flags;
        for flag in &context.flags {
            match flag.as_str() {
                "debug" => self.flags |= flags::DEBUG,
                "waitable" => self.flags |= flags::WAITABLE,
                "novalidate" => self.flags |= flags::NOVALIDATE,
                "alloc-bypass" => self.alloc_bypass = true,
                _ => {}
            }
        }
    }

    /// What has changed may matter for the priority, and for the scheduler's view of the job.
    fn reprioritize(&mut self) {
        if self.state == State::Sched {
            self.state = State::Priority;
        }
    }

    fn apply_alloc(&mut self, event: &Event) -> Result<(), ApplyError> {
        if event.context.is_some() {
            let AllocContext { annotations, bypass } = context(event)?;
            if let Some(annotations) = annotations {
                self.annotate(&annotations);
            }
            self.alloc_bypass |= bypass;
        }
        self.has_resources = true;
        if self.state == State::Sched {
            self.state = State::Run;
        }
        Ok(())
    }

    fn apply_exception(&mut self, context: ExceptionContext) {
        let ExceptionContext { kind, severity, note } = context;
        if severity != 0 || !self.is_active() {
            return;
        }
        if kind == "scheduler-restart" {
            // The scheduler does not have the allocation any more.
            self.has_resources = false;
        }
        self.fatal_exception = true;
        self.end_event.get_or_insert(EndEvent::Exception { kind, note });
        self.state = State::Cleanup;
    }

    fn perilog_start(&mut self, event: &Event) -> Result<(), ApplyError> {
        let DescriptionContext { description } = context(event)?;
        *self.perilog.entry(description).or_insert(0) += 1;
        Ok(())
    }

    fn perilog_finish(&mut self, event: &Event) -> Result<(), ApplyError> {
        let DescriptionContext { description } = context(event)?;
        if let Some(count) = self.perilog.get_mut(&description) {
            *count -= 1;
            if *count == 0 {
                self.perilog.remove(&description);
            }
        }
        Ok(())
    }

    /// Update annotations recursively; null removes (RFC 27).
    pub fn annotate(&mut self, update: &Value) {
        let annotations = self.annotations.get_or_insert_with(|| Value::Object(Map::new()));
        jpath::annotate(annotations, update);
        if annotations.as_object().is_some_and(Map::is_empty) {
            self.annotations = None;
        }
    }

    fn apply_memo(&mut self, memo: &Map<String, Value>) {
        let update = Map::from_iter([("user".to_owned(), Value::Object(memo.clone()))]);
        self.annotate(&Value::Object(update));
    }

    fn apply_jobspec_update(&mut self, event: &Event) -> Result<(), ApplyError> {
        let updates: Map<String, Value> = context(event)?;
        let error = |error| ApplyError::Context { event: event.name.clone(), error };
        let mut jobspec: Value = serde_json::from_str(self.jobspec.get()).map_err(error)?;
        for (path, value) in updates {
            jpath::set(&mut jobspec, &path, value);
        }
        self.jobspec = Rc::from(serde_json::value::to_raw_value(&jobspec).map_err(error)?);
        Ok(())
    }

    fn apply_resource_update(&mut self, event: &Event) -> Result<(), ApplyError> {
        let ResourceUpdateContext { expiration } = context(event)?;
        let error = |error| ApplyError::Context { event: event.name.clone(), error };
        if let (Some(expiration), Some(r)) = (expiration, &self.r) {
            let mut value: Value = serde_json::from_str(r.get()).map_err(error)?;
            jpath::set(&mut value, "execution.expiration", expiration.into());
            self.r = Some(Rc::from(serde_json::value::to_raw_value(&value).map_err(error)?));
        }
        Ok(())
    }

    /// What to do now, in the state that the job is in. Nothing while plugins decide.
    pub fn actions(&self) -> Vec<Action> {
        let queued = |name| self.queued.iter().any(|event| event.name == name);
        let pending = &self.pending;
        if pending.callbacks > 0 {
            return Vec::new();
        }
        let mut actions = Vec::new();
        match self.state {
            State::Depend if self.dependencies.is_empty() && !queued("dependency-add") => {
                if !pending.depend_posted {
                    actions.push(Action::PostDepend);
                }
            }
            State::New | State::Depend => {}
            State::Priority if pending.alloc_queued || pending.alloc_sent => {
                actions.push(Action::Dequeue);
            }
            State::Priority => {}
            State::Sched if !pending.alloc_queued && !pending.alloc_sent && !pending.admitting => {
                actions.push(Action::Enqueue);
            }
            State::Sched => {}
            State::Run => {
                let prolog = !self.perilog.is_empty() || queued("prolog-start");
                if !prolog && !pending.start_sent {
                    actions.push(Action::Start);
                }
            }
            State::Cleanup => self.cleanup_actions(&mut actions, queued("epilog-start")),
            State::Inactive => actions.push(Action::Retire),
        }
        actions
    }

    /// Resources go back when nothing runs on them any more; the job is clean when it has none.
    fn cleanup_actions(&self, actions: &mut Vec<Action>, epilog_queued: bool) {
        let pending = &self.pending;
        if pending.alloc_queued || pending.alloc_sent {
            actions.push(Action::Dequeue);
        }
        let busy = pending.start_sent || epilog_queued || !self.perilog.is_empty();
        if busy {
            return;
        }
        if pending.release.is_some() {
            actions.push(Action::PostRelease);
        } else if self.has_resources {
            if !pending.free_posted {
                actions.push(Action::Free);
            }
        } else if !pending.alloc_queued
            && !pending.alloc_sent
            && !pending.admitting
            && !pending.clean_posted
        {
            actions.push(Action::PostClean);
        }
    }
}

/// Of an event that has one.
pub(super) fn description(event: &Event) -> Option<String> {
    context::<DescriptionContext>(event).ok().map(|context| context.description)
}

fn context<'a, T: Deserialize<'a>>(event: &'a Event) -> Result<T, ApplyError> {
    let text = event.context.as_ref().map_or("{}", |context| context.get());
    serde_json::from_str(text)
        .map_err(|error| ApplyError::Context { event: event.name.clone(), error })
}
