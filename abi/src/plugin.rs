//! What an author implements.

use crate::types::{
    Change, Context, Decision, Depth, DrainNodes, Edit, Effect, Event, ExecSignal, ExecStart,
    JobEvent, JobException, JobId, JobJson, JobNote, JobPriority, KeyValue, Measure, Pass,
    PerilogFinish, PerilogStart, Publication, Refusal, Reply, RpcAnswer, RpcCall, Submission,
    Timer, Verdict,
};

/// What every kind has in common.
pub trait Plugin: Sized + 'static {
    /// Starts the plugin. An error is the text that whoever loads it reads.
    ///
    /// # Errors
    ///
    /// A configuration that cannot be used.
    fn init(context: &Context) -> Result<Self, String>;

    /// Takes a new configuration (JSON objects, as in [`Context`]), or refuses the reload.
    ///
    /// # Errors
    ///
    /// A configuration that cannot be used; it is then called again with the one before.
    fn configure(&mut self, _config: &str, _broker_config: &str) -> Result<(), String> {
        Ok(())
    }

    /// JSON object that `flux jobtap query` shows.
    fn query(&self) -> String {
        "{}".to_owned()
    }

    /// State for the instance that replaces this one ([`Context::saved`]).
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A job manager plugin: priority, limits, dependencies, prolog and epilog.
///
/// It is only called for the topics that its macro lists.
pub trait Jobtap: Plugin {
    /// One callback.
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply;
}

/// A scheduler (RFC 27).
pub trait Scheduler: Plugin {
    /// How many requests it wants to see at once. Called when all running jobs were announced.
    fn ready(&mut self) -> Depth {
        Depth::Unlimited
    }

    /// Takes note of a change; may answer at once.
    fn update(&mut self, change: Change, decisions: &mut Vec<Decision>);

    /// Decides, for `seconds` at most; with [`Pass::more`] it is called again soon.
    fn schedule(&mut self, seconds: f64) -> Pass;
}

/// Judges jobs before they are accepted.
pub trait Validator: Plugin {
    /// One job.
    fn validate(&mut self, submission: &Submission) -> Verdict;
}

/// Edits jobs before they are validated.
pub trait Frobnicator: Plugin {
    /// One job.
    fn frobnicate(&mut self, submission: &Submission) -> Edit;
}

/// A refusal with the text that the user reads.
pub fn refuse_with(errnum: u32, text: impl Into<String>) -> Refusal {
    Refusal { errnum, text: text.into() }
}

/// A validator's refusal.
pub fn refuse(errnum: u32, text: impl Into<String>) -> Verdict {
    Verdict::Refuse(refuse_with(errnum, text))
}

/// A frobnicator's refusal.
pub fn refuse_edit(errnum: u32, text: impl Into<String>) -> Edit {
    Edit::Refuse(refuse_with(errnum, text))
}

/// The list of things that a callback wants done, in order.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Effects {
    list: Vec<Effect>,
}

impl Effects {
    /// What was asked for so far.
    pub fn list(&self) -> &[Effect] {
        &self.list
    }

    /// Hands the list over.
    pub fn into_list(self) -> Vec<Effect> {
        self.list
    }

    /// Adds any effect.
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Gives a job its priority.
    pub fn set_priority(&mut self, id: JobId, priority: u32) {
        self.push(Effect::SetPriority(JobPriority { id, priority }));
    }

    /// Asks for the priorities of these jobs again.
    pub fn reprioritize(&mut self, ids: Vec<JobId>) {
        self.push(Effect::Reprioritize(ids));
    }

    /// Asks for all priorities again.
    pub fn reprioritize_all(&mut self) {
        self.push(Effect::ReprioritizeAll);
    }

    /// Keeps a job in DEPEND until the dependency of this text is removed.
    pub fn add_dependency(&mut self, id: JobId, text: impl Into<String>) {
        self.push(Effect::DependencyAdd(JobNote { id, text: text.into() }));
    }

    /// Removes a dependency.
    pub fn remove_dependency(&mut self, id: JobId, text: impl Into<String>) {
        self.push(Effect::DependencyRemove(JobNote { id, text: text.into() }));
    }

    /// Raises an exception; severity 0 ends the job.
    pub fn raise(&mut self, id: JobId, kind: &str, severity: u8, note: impl Into<String>) {
        self.push(Effect::Raise(JobException {
            id,
            type_: kind.to_owned(),
            severity,
            note: note.into(),
        }));
    }

    /// Posts an event, `context` being a JSON object.
    pub fn post_event(&mut self, id: JobId, name: &str, context: impl Into<String>) {
        self.push(Effect::PostEvent(JobEvent {
            id,
            name: name.to_owned(),
            context: context.into(),
        }));
    }

    /// Merges a JSON object into the job's annotations.
    pub fn annotate(&mut self, id: JobId, json: impl Into<String>) {
        self.push(Effect::Annotate(JobJson { id, json: json.into() }));
    }

    /// Updates a jobspec, by a JSON object of dotted keys.
    pub fn update_jobspec(&mut self, id: JobId, json: impl Into<String>) {
        self.push(Effect::UpdateJobspec(JobJson { id, json: json.into() }));
    }

    /// Makes a job waitable.
    pub fn set_flag(&mut self, id: JobId, flag: &str) {
        self.push(Effect::SetFlag(JobNote { id, text: flag.to_owned() }));
    }

    /// Asks for the job's events.
    pub fn subscribe(&mut self, id: JobId) {
        self.push(Effect::Subscribe(id));
    }

    /// No more events of the job.
    pub fn unsubscribe(&mut self, id: JobId) {
        self.push(Effect::Unsubscribe(id));
    }

    /// Starts a prolog action.
    pub fn prolog_start(&mut self, id: JobId, description: &str) {
        self.push(Effect::PrologStart(PerilogStart { id, description: description.to_owned() }));
    }

    /// Ends a prolog action.
    pub fn prolog_finish(&mut self, id: JobId, description: &str, status: i32) {
        let description = description.to_owned();
        self.push(Effect::PrologFinish(PerilogFinish { id, description, status }));
    }

    /// Starts an epilog action.
    pub fn epilog_start(&mut self, id: JobId, description: &str) {
        self.push(Effect::EpilogStart(PerilogStart { id, description: description.to_owned() }));
    }

    /// Ends an epilog action.
    pub fn epilog_finish(&mut self, id: JobId, description: &str, status: i32) {
        let description = description.to_owned();
        self.push(Effect::EpilogFinish(PerilogFinish { id, description, status }));
    }

    /// Sets a timer, by absolute time, and moves it if it is set already.
    pub fn set_timer(&mut self, name: impl Into<String>, at: f64, every: Option<f64>) {
        self.push(Effect::SetTimer(Timer { name: name.into(), at, every }));
    }

    /// Cancels a timer.
    pub fn cancel_timer(&mut self, name: impl Into<String>) {
        self.push(Effect::CancelTimer(name.into()));
    }

    /// Stores a value of the plugin's own state.
    pub fn put(&mut self, key: impl Into<String>, value: Vec<u8>) {
        self.push(Effect::Put(KeyValue { key: key.into(), value: Some(value) }));
    }

    /// Removes a value of the plugin's own state.
    pub fn remove(&mut self, key: impl Into<String>) {
        self.push(Effect::Put(KeyValue { key: key.into(), value: None }));
    }

    /// Answers an RPC, with a JSON object or an error.
    pub fn respond(&mut self, token: u64, outcome: Result<String, Refusal>) {
        self.push(Effect::Respond(RpcAnswer { token, outcome }));
    }

    /// Sends an RPC to the nearest broker that has the service; the answer comes back under `tag`.
    pub fn rpc(&mut self, tag: u64, topic: &str, payload: impl Into<String>) {
        self.push(Effect::Rpc(RpcCall {
            tag,
            topic: topic.to_owned(),
            nodeid: None,
            payload: payload.into(),
        }));
    }

    /// Runs a configured command.
    pub fn exec(&mut self, exec: ExecStart) {
        self.push(Effect::Exec(exec));
    }

    /// Signals a command.
    pub fn exec_kill(&mut self, tag: impl Into<String>, signal: u32) {
        self.push(Effect::ExecKill(ExecSignal { tag: tag.into(), signal }));
    }

    /// Drains nodes, given as an idset.
    pub fn drain(&mut self, ranks: impl Into<String>, reason: impl Into<String>) {
        self.push(Effect::Drain(DrainNodes { ranks: ranks.into(), reason: reason.into() }));
    }

    /// Publishes an event, `payload` being a JSON object.
    pub fn publish(&mut self, topic: &str, payload: impl Into<String>) {
        self.push(Effect::Publish(Publication {
            topic: topic.to_owned(),
            payload: payload.into(),
            private: false,
        }));
    }

    /// Adds to a counter.
    pub fn count(&mut self, name: &str, value: f64) {
        self.push(Effect::Count(Measure { name: name.to_owned(), value }));
    }

    /// Says why a decision was taken.
    pub fn explain(&mut self, id: JobId, text: impl Into<String>) {
        self.push(Effect::Explain(JobNote { id, text: text.into() }));
    }
}
