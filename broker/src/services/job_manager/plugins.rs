//! The plugins of the job manager: loading, listing, and the calls that go to them.
//!
//! Calls are collected over a turn of the service and sent as one batch to each plugin that wants
//! some of them, in load order. The jobs concerned wait meanwhile ([`super::job::Pending`]); all
//! others go on.

mod admin;
mod configure;
mod dispatch;
mod introduce;
mod lifetime;
mod listed;
mod notices;
mod outgoing;
mod request;
mod state;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event as LogEvent;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use serde_json::Value;

use super::job::{State, priority, states, urgency};
use super::{Context, JobManager, facts};
use crate::config::Config;
use crate::log::Severity;
use crate::plugin::types::{self, Event};
use crate::plugin::{
    HOST_ABI, Kind, LoadError, Notice, Plugin, PluginHost, PluginSpec, SharedJobs, dependencies,
    topic,
};

pub(super) use introduce::Introduction;
pub(crate) use listed::mistakes;

/// Loaded at every start, before those of the configuration, unless they are removed: the name that
/// they are listed and loaded as, and the file.
const BUILTIN: &[(&str, &str)] = &[
    (".priority-default", "priority-default.wasm"),
    (".limit-job-size", "limit-job-size.wasm"),
    (".limit-duration", "limit-duration.wasm"),
    (".dependency-after", "dependency-after.wasm"),
    (".dependency-singleton", "dependency-singleton.wasm"),
    (".begin-time", "begin-time.wasm"),
    (".validate-duration", "validate-duration.wasm"),
    (".update-duration", "update-duration.wasm"),
    (".history", "job-history.wasm"),
    (".post-event", "post-event.wasm"),
    (".update-queue", "update-queue.wasm"),
];

/// What a plugin is listed as: the name of its file, or of a builtin one as it was asked for.
fn listed_name(wanted: &str, file: &str) -> String {
    match BUILTIN.iter().find(|(name, _)| *name == wanted) {
        Some((name, _)) => (*name).to_owned(),
        None => file.to_owned(),
    }
}

/// The stack of plugins.
pub struct Plugins {
    host: PluginHost,
    loaded: Vec<Loaded>,
    jobs: SharedJobs,
    /// Calls of this turn.
    batch: Vec<Call>,
    scheduled: bool,
    /// Jobs that wait for a plugin that is down, as its `on-fault = "hold"` asks for.
    held: HashMap<String, Vec<Call>>,
    timers: HashMap<(String, String), tokio::task::JoinHandle<()>>,
    /// Requests to plugins that are answered later, by the token that the plugin has.
    requests: HashMap<u64, request::Open>,
    next_token: u64,
    /// Jobs whose events a plugin subscribed to.
    subscriptions: HashMap<JobId, Vec<String>>,
    notices: Option<tokio::sync::mpsc::UnboundedReceiver<Notice>>,
    /// What plugins keep over restarts.
    states: state::States,
    /// When the instance ends; 0 for never. None until that is known.
    expiration: Option<f64>,
    /// What those are configured with that are loaded now.
    config: Rc<Config>,
    changes: configure::Changes,
}

/// A plugin in the stack.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) plugin: Plugin,
    /// What it is listed as: the file's name, or `.name` of a builtin one.
    pub(super) name: String,
    pub(super) builtin: bool,
    /// What it is configured with.
    config: Rc<Config>,
}

/// One call that waits to be sent.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) id: JobId,
    pub(super) event: Event,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.loaded.iter().map(|loaded| &loaded.name)).finish()
    }
}

impl Plugins {
    /// Load the builtin plugins and those of `[job-manager] plugins`.
    pub(super) async fn load(context: &Context) -> Result<Plugins, Failure> {
        let jobs = SharedJobs::default();
        let (host, notices) = crate::plugin_host::plugin_host(context.broker(), jobs.clone());
        context.log(Severity::Info, format!("plugins: host ABI {HOST_ABI}"));
        let states = state::restore(context.handle()).await?;
        let (builtin, states) = load_builtin(&host, states).await;
        let mut plugins = Plugins {
            host,
            loaded: Vec::new(),
            jobs,
            batch: Vec::new(),
            scheduled: false,
            held: HashMap::new(),
            timers: HashMap::new(),
            requests: HashMap::new(),
            next_token: 1,
            subscriptions: HashMap::new(),
            notices: Some(notices),
            states,
            expiration: None,
            config: context.config(),
            changes: configure::Changes::default(),
        };
        for (name, loaded) in builtin {
            match loaded {
                Ok(plugin) => plugins.push(context, plugin, name),
                Err(error) => context.log(Severity::Err, format!("builtin plugin: {error}")),
            }
        }
        plugins.load_configured(context).await?;
        Ok(plugins)
    }

    async fn load_configured(&mut self, context: &Context) -> Result<(), Failure> {
        let config = context.config();
        let entries = match config.get("job-manager.plugins") {
            None => return Ok(()),
            Some(Value::Array(entries)) => entries.clone(),
            Some(_) => {
                let text = "[job-manager.plugins] config must be an array";
                return Err(Failure::new(Errno::EINVAL, text));
            }
        };
        for (index, entry) in entries.iter().enumerate() {
            self.load_entry(context, entry).await.map_err(|text| {
                Failure::new(Errno::EINVAL, format!("[job-manager.plugins][{index}]: {text}"))
            })?;
        }
        Ok(())
    }

    /// `{ remove = "..." }`, or how to load one.
    async fn load_entry(&mut self, context: &Context, entry: &Value) -> Result<(), String> {
        if let Some(remove) = entry.get("remove") {
            let name = remove.as_str().ok_or("remove: expected string")?;
            if self.remove(name).is_empty() && name != "all" {
                return Err(format!("remove: {name}: failed to find plugin to remove"));
            }
        }
        if entry.get("load").is_none() && entry.get("remove").is_some() {
            return Ok(());
        }
        let spec = self.spec(context, entry).map_err(|text| format!("load: {text}"))?;
        let loaded = load(&self.host, &spec, &self.states).await;
        let plugin = loaded.map_err(|error| listed::load_error(entry, &error))?;
        let wanted = entry.get("load").and_then(Value::as_str).unwrap_or_default();
        let name = listed_name(wanted, &plugin.facts().file_name);
        if self.find(&name).is_some() {
            return Err(format!("load: {name} already loaded"));
        }
        self.push(context, plugin, &name);
        Ok(())
    }

    /// Names that end in `.so` are those of an old configuration, names that begin with a dot those
    /// of builtin plugins.
    fn spec(&self, context: &Context, entry: &Value) -> Result<PluginSpec, String> {
        let spec = listed::spec(entry)?;
        match entry.get("load").and_then(Value::as_str) {
            Some(name) if name.ends_with(".so") && spec.load != name => {
                let text = format!("plugin {name}: {} is loaded in its place", spec.load);
                context.log(Severity::Notice, text);
            }
            _ => {}
        }
        Ok(spec)
    }

    fn push(&mut self, context: &Context, plugin: Plugin, name: &str) {
        outgoing::subscribe(context, &plugin.facts().manifest.capabilities);
        let builtin = name.starts_with('.');
        let (name, config) = (name.to_owned(), self.config.clone());
        self.loaded.push(Loaded { plugin, name, builtin, config });
    }

    fn find(&self, name: &str) -> Option<&Loaded> {
        let name = name.strip_suffix(".so").map_or(name.to_owned(), |stem| format!("{stem}.wasm"));
        self.loaded.iter().find(|loaded| loaded.name == name)
    }

    /// By the name that the plugin has for itself, which is that of its service.
    fn find_service(&self, name: &str) -> Option<&Loaded> {
        self.loaded.iter().rev().find(|loaded| loaded.plugin.name() == name)
    }

    /// Unload those that match: a name, a glob, or `all` (builtin ones stay then). With their
    /// places in the stack.
    fn remove(&mut self, pattern: &str) -> Vec<(usize, Loaded)> {
        let mut place = 0;
        let mut removed = Vec::new();
        self.loaded.retain(|loaded| {
            let stays = !listed::removes(pattern, &loaded.name);
            if !stays {
                removed.push((place, loaded.clone()));
            }
            place += 1;
            stays
        });
        removed
    }

    /// Put back what was removed, each to its place: of two that give a priority the later counts.
    fn restore(&mut self, removed: Vec<(usize, Loaded)>) {
        for (place, loaded) in removed {
            self.loaded.insert(place.min(self.loaded.len()), loaded);
        }
    }

    fn wants(&self, topic: &str) -> bool {
        self.loaded.iter().any(|loaded| loaded.plugin.facts().manifest.wants(topic))
    }

    fn wants_event(&self, event: &Event) -> bool {
        topic(event).is_some_and(|topic| self.wants(&topic))
    }
}

impl JobManager {
    /// An event was applied: tell the plugins, and let the job wait for them.
    pub(super) fn plugins_notify(
        &mut self,
        context: &Context,
        id: JobId,
        before: State,
        event: &LogEvent,
    ) {
        let Some(job) = self.jobs.get(&id) else { return };
        let known = self.plugins.jobs.update(id.0, |facts| {
            facts::refresh(&mut facts.job, job);
            facts.resources = job.r.as_ref().map(|r| r.get().into());
            facts.events.insert(event.name.as_str().into());
        });
        if !known {
            self.plugins.jobs.put(facts::facts(job));
        }
        let (after, is_subscribed) = (job.state, self.plugins.subscriptions.contains_key(&id));
        if is_subscribed {
            self.call_plugins(context, id, |job| {
                Event::Posted(types::EventPosted { job, entry: entry(event) })
            });
        }
        if before == after {
            // A job that waits for its priority is asked for again: it may not wait any more.
            if after == State::Priority && event.name == "urgency" {
                self.plugins_reprioritize(context, &[id]);
            }
            return;
        }
        if after == State::Priority && self.fixed_priority(context, id) {
            return;
        }
        self.call_plugins(context, id, |job| {
            let previous = facts::state(before);
            Event::State(types::StateChange { job, previous, entry: entry(event) })
        });
    }

    /// Held and expedited jobs have their priority whatever plugins think.
    fn fixed_priority(&mut self, context: &Context, id: JobId) -> bool {
        let fixed = match self.jobs.get(&id).map(|job| job.urgency) {
            Some(urgency::HOLD) => priority::MIN,
            Some(urgency::EXPEDITE) => priority::MAX,
            _ => return false,
        };
        self.set_priority(context, id, fixed);
        true
    }

    /// Post a priority, unless it is what the job has.
    pub(super) fn set_priority(&mut self, context: &Context, id: JobId, wanted: u32) {
        let Some(job) = self.jobs.get(&id) else { return };
        let wanted = match job.urgency {
            urgency::HOLD => priority::MIN,
            urgency::EXPEDITE => priority::MAX,
            _ => wanted,
        };
        match job.state {
            State::Priority => {}
            State::Sched if job.priority != Some(wanted) => {}
            _ => return,
        }
        let in_queue = job.state == State::Sched;
        self.post_with(context, id, "priority", &serde_json::json!({ "priority": wanted }));
        if in_queue {
            self.alloc_reorder(context, id, wanted);
        }
    }

    /// Call the plugins that want this event, if any; the job waits.
    fn call_plugins(
        &mut self,
        context: &Context,
        id: JobId,
        event: impl FnOnce(types::Job) -> Event,
    ) {
        let Some(record) = self.plugins.jobs.read(id.0, |facts| facts.job.clone()) else { return };
        let event = event(record);
        if !self.plugins.wants_event(&event) {
            return;
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.pending.callbacks += 1;
        }
        self.enqueue_call(context, Call { id, event });
    }

    /// The job has left the queue for good.
    pub(super) fn plugins_retire(&mut self, context: &Context, id: JobId) {
        self.call_plugins(context, id, Event::InactiveAdd);
        if self.plugins.wants("job.destroy") {
            self.enqueue_call(context, Call { id, event: Event::Destroy(id.0) });
        }
        self.plugins.subscriptions.remove(&id);
    }

    /// The job is purged.
    pub(super) fn plugins_forget(&mut self, context: &Context, id: JobId) {
        if self.plugins.wants("job.inactive-remove") {
            self.enqueue_call(context, Call { id, event: Event::InactiveRemove(id.0) });
        }
        self.plugins.jobs.remove(id.0);
    }

    /// Jobs that a former instance left: plugins hear of them as new, once.
    pub(super) fn plugins_restarted(&mut self, context: &Context, ids: &[JobId]) {
        for id in ids {
            if let Some(job) = self.jobs.get(id) {
                let mut facts = facts::facts(job);
                let names = self.journal.names(*id);
                facts.events = names.into_iter().map(|name| name.as_str().into()).collect();
                self.plugins.jobs.put(facts);
            }
        }
        for id in ids {
            let Some(job) = self.jobs.get(id) else { continue };
            let waits = job.state == State::Depend;
            let jobspec = job.jobspec.clone();
            let news = |job| types::JobNew { job, origin: types::Origin::Restarted };
            self.call_plugins(context, *id, |job| Event::Create(news(job)));
            self.call_plugins(context, *id, |job| Event::New(news(job)));
            // What a job waits for is known to plugins alone.
            for (scheme, value, dependency) in dependencies(jobspec.get()) {
                if waits {
                    self.call_plugins(context, *id, |job| {
                        let request = types::DependencyRequest { job, scheme, value, dependency };
                        Event::Dependency(request)
                    });
                }
            }
        }
        self.watch_notices(context);
    }

    /// Jobs that had ended before the restart, for plugins that keep account of them.
    pub(super) fn plugins_remember(&mut self, context: &Context) {
        if !self.plugins.wants("job.inactive-add") {
            return;
        }
        let inactive = self.jobs.values().filter(|job| job.state == State::Inactive);
        let calls: Vec<Call> = inactive
            .map(|job| Call { id: job.id, event: Event::InactiveAdd(facts::facts(job).job) })
            .collect();
        for call in calls {
            self.enqueue_call(context, call);
        }
    }

    /// A restart found a job that has resources, but was not started: plugins that were not told
    /// before the former instance ended, or were, and had no time, are told now.
    pub(super) fn plugins_run_again(&mut self, context: &Context, id: JobId) {
        let acted = self.journal.names(id).iter().any(|name| name.starts_with("prolog-"));
        if !acted {
            let timestamp = crate::time::unix_seconds(std::time::SystemTime::now());
            let (name, context_text) = ("alloc".to_owned(), "{}".to_owned());
            let entry = types::Entry { timestamp, name, context: context_text };
            let previous = types::JobState::Sched;
            self.call_plugins(context, id, |job| {
                Event::State(types::StateChange { job, previous, entry })
            });
        }
        self.act(context, id);
    }

    /// Ask for priorities again.
    pub(super) fn plugins_reprioritize(&mut self, context: &Context, ids: &[JobId]) {
        for id in ids {
            let pending = self
                .jobs
                .get(id)
                .is_some_and(|job| matches!(job.state, State::Priority | State::Sched));
            if pending && !self.fixed_priority(context, *id) {
                self.call_plugins(context, *id, Event::PriorityGet);
            }
        }
    }

    /// Pending jobs whose priority a plugin may want to change.
    pub(super) fn pending_jobs(&self) -> Vec<JobId> {
        let mut ids: Vec<JobId> = self
            .active_jobs()
            .filter(|job| job.state.is_in(states::PENDING))
            .map(|job| job.id)
            .collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn plugin_name(&self, place: usize) -> String {
        self.plugins.loaded.get(place).map_or("a plugin", |loaded| loaded.plugin.name()).to_owned()
    }

    pub(super) fn subscribe_plugin(&mut self, id: JobId, plugin: &str) {
        let names = self.plugins.subscriptions.entry(id).or_default();
        if !names.iter().any(|name| name == plugin) {
            names.push(plugin.to_owned());
        }
    }

    pub(super) fn unsubscribe_plugin(&mut self, id: JobId, plugin: &str) {
        if let Some(names) = self.plugins.subscriptions.get_mut(&id) {
            names.retain(|name| name != plugin);
            if names.is_empty() {
                self.plugins.subscriptions.remove(&id);
            }
        }
    }

    /// Why a job waits, for `flux job why`.
    pub(crate) fn explain(&mut self, context: &Context, id: JobId, plugin: &str, text: &str) {
        let reason = serde_json::json!({ "why": { (identifier(plugin)): text } });
        self.annotate(context, id, &reason);
    }

    /// It no longer does.
    pub(crate) fn unexplain(&mut self, context: &Context, id: JobId, plugin: &str) {
        let nothing = serde_json::json!({ "why": { (identifier(plugin)): null } });
        self.annotate(context, id, &nothing);
    }
}

/// Names of annotations are identifiers: Flux's Python library refuses whole listings otherwise.
fn identifier(name: &str) -> String {
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

/// Load a plugin with what it has kept.
/// All of them side by side: an instance that starts waits for them.
async fn load_builtin(
    host: &PluginHost,
    states: state::States,
) -> (Vec<(&'static str, Result<Plugin, LoadError>)>, state::States) {
    let states = Rc::new(states);
    let start = |file: &'static str| {
        let (host, states) = (host.clone(), states.clone());
        tokio::task::spawn_local(
            async move { load(&host, &PluginSpec::named(file), &states).await },
        )
    };
    let loads: Vec<_> = BUILTIN.iter().map(|(name, file)| (*name, *file, start(file))).collect();
    let mut loaded = Vec::with_capacity(loads.len());
    for (name, file, load) in loads {
        let outcome = load.await.unwrap_or_else(|error| {
            Err(LoadError::Module { name: file.to_owned(), reason: error.to_string() })
        });
        loaded.push((name, outcome));
    }
    (loaded, Rc::unwrap_or_clone(states))
}

async fn load(
    host: &PluginHost,
    spec: &PluginSpec,
    states: &state::States,
) -> Result<Plugin, LoadError> {
    // Whose name is in the file is needed only where there is anything by a name.
    let values = match states.is_empty() {
        true => BTreeMap::new(),
        false => states.get(&host.manifest(spec).await?.name).cloned().unwrap_or_default(),
    };
    host.load(spec, Kind::Jobtap, values).await
}

/// An event of an eventlog, for plugins.
fn entry(event: &LogEvent) -> types::Entry {
    types::Entry {
        timestamp: event.timestamp,
        name: event.name.clone(),
        context: event.context.as_ref().map_or("{}", |context| context.get()).to_owned(),
    }
}
