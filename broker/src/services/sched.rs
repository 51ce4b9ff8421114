//! `sched-simple`: the scheduler's side of RFC 27 and RFC 28, around a scheduler plugin.
//!
//! The module's name is that of flux-core's; what decides is the plugin that `[sched] plugin`
//! names. Changes go to it in order; its decisions come back as events, and have passed the
//! host's own ledger by then.

mod effects;
mod introduction;
mod options;
mod translate;

use std::collections::{BTreeMap, HashMap, HashSet};

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::Empty;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{Who, resource, sched as rpc};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::call::{Call, Sender};
use crate::config::Config;
use crate::job_record;
use crate::log::Severity;
use crate::methods::Methods;
use crate::plugin::types::{Change, Freed};
use crate::plugin::{
    Kind, Mistake, Notice, NoticeKind, OnFault, PluginHost, PluginSpec, ResourceStatus, Scheduler,
    SchedulerEvent, SharedJobs, resource_record,
};
use crate::service::Service;
use introduction::{be_ready, introduce, tell_depth};
use options::{DEFAULT, spec};
use translate::{decode_r, record, spec_text, status_response, targets};

/// Changes that are passed on at a time.
const BATCH: usize = 1024;

type Context = crate::context::Context<Sched>;

/// The service.
#[derive(Debug)]
pub struct Sched {
    host: PluginHost,
    /// Arguments of the module.
    args: Vec<String>,
    spec: PluginSpec,
    scheduler: Scheduler,
    /// The plugin is quarantined, and `on-fault = "reject"`: requests are denied.
    rejecting: Option<String>,
    changes: mpsc::UnboundedSender<Change>,
    /// Alloc requests that are not answered.
    pending: HashMap<JobId, Call<rpc::AllocResponse>>,
    /// Those of them that were told why they wait.
    explained: HashSet<JobId>,
    timers: HashMap<String, tokio::task::JoinHandle<()>>,
    allocated: u64,
}

impl Service for Sched {
    const NAME: &'static str = "sched-simple";
    const SERVICES: &'static [&'static str] = &["sched", "feasibility"];
    const STATS: Who = Who::Owner;

    async fn start(context: &Context, args: &[String]) -> Result<Sched, Failure> {
        let spec = spec(&context.config(), args)?;
        let (mut host, mut notices) =
            crate::plugin_host::plugin_host(context.broker(), SharedJobs::default());
        let (events, mut decisions) = mpsc::unbounded_channel();
        let scheduler = host
            .load_scheduler(&spec, events, BTreeMap::new())
            .await
            .map_err(|error| Failure::new(Errno::EINVAL, format!("[sched] plugin: {error}")))?;
        host.set_config(context.config().object().clone());
        let after = context.clone();
        tokio::task::spawn_local(async move {
            while let Some(notice) = notices.recv().await {
                let then = after.clone();
                after.later(move |sched: &mut Sched| sched.notice(&then, &notice));
            }
        });
        let after = context.clone();
        tokio::task::spawn_local(async move {
            while let Some(decision) = decisions.recv().await {
                let answer = after.clone();
                after.later(move |sched: &mut Sched| sched.decided(&answer, decision));
            }
        });
        let sched = Sched {
            host,
            args: args.to_vec(),
            spec,
            changes: pump(context, scheduler.clone()),
            scheduler,
            rejecting: None,
            pending: HashMap::new(),
            explained: HashSet::new(),
            timers: HashMap::new(),
            allocated: 0,
        };
        sched.begin(context);
        Ok(sched)
    }

    fn methods() -> Methods<Sched> {
        Methods::default()
            .serve::<rpc::Alloc>(Sched::alloc)
            .reply::<rpc::Cancel>(Sched::cancel)
            .reply::<rpc::Free>(Sched::free)
            .reply::<rpc::Prioritize>(Sched::prioritize)
            .serve::<rpc::Expiration>(Sched::expiration)
            .serve::<rpc::ResourceStatus>(Sched::resource_status)
            .serve::<rpc::Feasibility>(Sched::feasibility)
    }

    /// Another plugin takes over from the one that runs, which stays if it can't; requests that wait
    /// are not lost.
    fn reconfigure(&mut self, context: &Context, config: Config, call: Call<Empty>) {
        let spec = match spec(&config, &self.args) {
            Ok(spec) => spec,
            Err(failure) => return call.fail(failure),
        };
        let mut host = self.host.clone();
        host.set_config(config.object().clone());
        if spec != self.spec {
            return self.replace(context, host, spec, |result| match result {
                Ok(()) => call.reply(&Empty),
                Err(Failure { errno, text }) => {
                    let text = text.unwrap_or_default();
                    call.fail(Failure::new(errno, format!("[sched] plugin: {text}")));
                }
            });
        }
        let plugin = self.scheduler.plugin().clone();
        context.spawn(
            async move { plugin.configure(&spec.conf, config.object()).await },
            move |sched: &mut Sched, answer| {
                let name = &sched.spec.load;
                let text = match answer {
                    Ok(Ok(())) => {
                        sched.host = host;
                        return call.reply(&Empty);
                    }
                    Ok(Err(text)) => format!("plugin {name} refuses: {text}"),
                    Err(error) => format!("plugin {name} could not be asked: {error}"),
                };
                call.fail(Failure::new(Errno::EINVAL, text));
            },
        );
    }

    fn stats(&self, _: &Context) -> Option<Value> {
        let facts = self.scheduler.plugin().facts();
        Some(serde_json::json!({
            "plugin": facts.file_name,
            "path": facts.path.to_string_lossy(),
            "sha256": facts.digest,
            "pending_jobs": self.pending.len(),
            "allocated": self.allocated,
            "calls": serde_json::to_value(self.scheduler.plugin().stats()).unwrap_or_default(),
        }))
    }
}

/// What a start with this configuration would say of the scheduler.
pub(crate) async fn mistake(host: &PluginHost, config: &Config) -> Option<Mistake> {
    let mut keys = ["sched.plugin", "sched-simple"].into_iter();
    let key = keys.find(|key| config.get(key).is_some())?;
    let (text, is_missing) = match spec(config, &[]) {
        Err(failure) => (failure.to_string(), false),
        Ok(spec) => match host.try_out(&spec, Kind::Scheduler).await {
            Ok(_) => return None,
            Err(error) => (format!("[sched] plugin: {error}"), error.is_missing()),
        },
    };
    let key = if text.starts_with("[sched-simple]") { "sched-simple" } else { key };
    Some(Mistake { key: key.to_owned(), text, is_missing })
}

async fn tell(scheduler: &Scheduler, changes: Vec<Change>) -> Result<(), Failure> {
    scheduler
        .tell(changes)
        .await
        .map_err(|error| Failure::new(Errno::EIO, format!("scheduler: {error}")))
}

/// Pass changes on in order, as fast as the plugin takes them.
fn pump(context: &Context, scheduler: Scheduler) -> mpsc::UnboundedSender<Change> {
    let (changes, mut queue) = mpsc::unbounded_channel();
    let after = context.clone();
    tokio::task::spawn_local(async move {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            if let Err(failure) = tell(&scheduler, std::mem::take(&mut batch)).await {
                after.log(Severity::Err, failure.to_string());
            }
        }
    });
    changes
}

impl Sched {
    /// Resources are known only when all brokers have told theirs, which they do after this one
    /// is up: nobody may wait for it.
    fn begin(&self, context: &Context) {
        let (scheduler, begun) = (self.scheduler.clone(), context.clone());
        let after = context.clone();
        context.spawn(
            async move {
                introduce(&begun, &scheduler).await?;
                be_ready(&begun, &scheduler).await
            },
            move |_: &mut Sched, result: Result<(), Failure>| {
                if let Err(failure) = result {
                    after.log(Severity::Err, format!("scheduler is not ready: {failure}"));
                }
            },
        );
    }

    /// Put another plugin in the place of the one that runs. The host tells it of the resources,
    /// of the jobs that run and of those that wait.
    fn replace(
        &mut self,
        context: &Context,
        host: PluginHost,
        spec: PluginSpec,
        then: impl FnOnce(Result<(), Failure>) + 'static,
    ) {
        let (old, wanted) = (self.scheduler.clone(), spec.clone());
        let after = context.clone();
        context.spawn(
            async move {
                let new = host.replace_scheduler(&old, &wanted).await;
                let new = new.map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
                Ok((new.ready().await, new, host))
            },
            move |sched: &mut Sched, result: Result<_, Failure>| match result {
                Ok((depth, new, host)) => {
                    if let Ok(depth) = depth {
                        tell_depth(&after, depth);
                    }
                    let name = &new.plugin().facts().file_name;
                    after.log(Severity::Info, format!("scheduler {name} has taken over"));
                    (sched.scheduler, sched.spec, sched.rejecting) = (new, spec, None);
                    sched.host = host;
                    sched.timers.drain().for_each(|(_, timer)| timer.abort());
                    then(Ok(()));
                }
                Err(failure) => {
                    let text = format!("scheduler {} stays: {failure}", sched.spec.load);
                    after.log(Severity::Err, text);
                    then(Err(failure));
                }
            },
        );
    }

    fn notice(&mut self, context: &Context, notice: &Notice) {
        match &notice.what {
            // The host has logged it, in the plugin's name.
            NoticeKind::Fault(_) => {}
            NoticeKind::Quarantined => self.quarantined(context),
            NoticeKind::Restarted => self.restarted(context),
            NoticeKind::Effects(_) => {}
        }
    }

    /// The plugin has faulted too often. By its `on-fault`, jobs are denied, or wait until an
    /// administrator puts another one in its place, or the bundled one takes over at once.
    fn quarantined(&mut self, context: &Context) {
        let text = format!("scheduler {} is quarantined", self.spec.load);
        match self.scheduler.plugin().on_fault() {
            OnFault::Reject => {
                let waiting: Vec<JobId> = self.pending.keys().copied().collect();
                for id in waiting {
                    self.change(Change::Cancel(vec![id.0]));
                    self.deny(id, &text);
                }
                self.rejecting = Some(text);
            }
            OnFault::Skip if self.spec.load != DEFAULT => {
                let host = self.host.clone();
                self.replace(context, host, PluginSpec::named(DEFAULT), drop);
            }
            OnFault::Hold | OnFault::Skip => {
                let waiting: Vec<JobId> = self.pending.keys().copied().collect();
                waiting.into_iter().for_each(|id| self.tell_reason(id, &text));
            }
        }
    }

    /// What the plugin that faulted had said of how much it takes does not hold for the new one.
    fn restarted(&mut self, context: &Context) {
        self.rejecting = None;
        let scheduler = self.scheduler.clone();
        let after = context.clone();
        context.spawn(async move { scheduler.ready().await }, move |_: &mut Sched, depth| {
            if let Ok(depth) = depth {
                tell_depth(&after, depth);
            }
        });
    }

    fn deny(&mut self, id: JobId, note: &str) {
        self.answer(id, rpc::AllocType::Deny, |response| response.note = Some(note.to_owned()));
    }

    /// In order with all other changes; the pump is there as long as the service is.
    fn change(&self, change: Change) {
        let _ = self.changes.send(change);
    }

    fn resources_changed(&mut self, context: &Context, update: resource::AcquireResponse) {
        if let Some(resources) = update.resources {
            return self.resources_grew(context, &resources, update.up.unwrap_or_default());
        }
        let changes = [
            update.up.map(Change::Up),
            update.down.map(Change::Down),
            update.shrink.map(Change::Shrink),
            update.expiration.map(Change::Expiration),
        ];
        for change in changes.into_iter().flatten() {
            self.change(change);
        }
    }

    /// A plugin hears of its resources once. So it takes over from itself, as another would, and
    /// no request that waits is lost.
    fn resources_grew(&mut self, context: &Context, resources: &Value, up: String) {
        let inventory = match decode_r(&resources.to_string()) {
            Ok(inventory) => resource_record(&inventory),
            Err(failure) => {
                return context.log(Severity::Err, format!("more resources: {failure}"));
            }
        };
        let (scheduler, after) = (self.scheduler.clone(), context.clone());
        context.spawn(
            async move { scheduler.grow(inventory, up).await },
            move |sched: &mut Sched, result| match result {
                // As it is configured: the same reload may have named another plugin.
                Ok(()) => match spec(&after.config(), &sched.args) {
                    Ok(spec) => sched.replace(&after, sched.host.clone(), spec, drop),
                    Err(failure) => after.log(Severity::Err, failure.to_string()),
                },
                Err(failure) => after.log(Severity::Err, format!("more resources: {failure}")),
            },
        );
    }

    // --- requests ---

    fn alloc(
        &mut self,
        context: &Context,
        request: rpc::AllocRequest,
        call: Call<rpc::AllocResponse>,
    ) {
        let id = request.id;
        let record = record(&request);
        context.log(Severity::Debug, format!("req: {}: {}", id.f58(), spec_text(&record)));
        self.pending.insert(id, call);
        if let Some(text) = self.rejecting.clone() {
            return self.deny(id, &text);
        }
        self.change(Change::Alloc(vec![record]));
    }

    fn cancel(
        &mut self,
        _: &Context,
        request: rpc::CancelRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        self.change(Change::Cancel(vec![request.id.0]));
        Ok(Empty)
    }

    fn free(
        &mut self,
        context: &Context,
        request: rpc::FreeRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        let r = decode_r(request.r.get())?;
        let last = if request.is_final { " (final)" } else { "" };
        context.log(Severity::Debug, format!("free: {}{last}", r.dumps()));
        self.allocated = self.allocated.saturating_sub(u64::from(request.is_final));
        let freed = Freed { id: request.id.0, resources: targets(&r), final_: request.is_final };
        self.change(Change::Free(vec![freed]));
        Ok(Empty)
    }

    fn prioritize(
        &mut self,
        _: &Context,
        request: rpc::PrioritizeRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        let jobs = request
            .jobs
            .into_iter()
            .map(|(id, priority)| (id.0, u32::try_from(priority).unwrap_or(0)))
            .collect();
        self.change(Change::Prioritize(jobs));
        Ok(Empty)
    }

    fn expiration(
        &mut self,
        context: &Context,
        request: rpc::ExpirationRequest,
        call: Call<Empty>,
    ) {
        let scheduler = self.scheduler.clone();
        context.spawn(
            async move { scheduler.expiration(request.id.0, request.expiration).await },
            |_: &mut Sched, result| match result {
                Ok(Ok(())) => call.reply(&Empty),
                Ok(Err(refusal)) => {
                    call.fail(Failure::new(Errno(refusal.errnum), refusal.text));
                }
                Err(error) => call.fail(Failure::new(Errno::EIO, error.to_string())),
            },
        );
    }

    fn resource_status(
        &mut self,
        context: &Context,
        _: Empty,
        call: Call<rpc::ResourceStatusResponse>,
    ) {
        let scheduler = self.scheduler.clone();
        context.spawn(
            async move { scheduler.status().await },
            |_: &mut Sched, result| match result {
                Ok(ResourceStatus { all, allocated, down }) => {
                    call.finish(status_response(&all, &allocated, &down));
                }
                Err(error) => call.fail(Failure::new(Errno::EIO, error.to_string())),
            },
        );
    }

    fn feasibility(
        &mut self,
        context: &Context,
        request: rpc::FeasibilityRequest,
        call: Call<Empty>,
    ) {
        let jobspec = request.jobspec.get().to_owned();
        let Some(record) = job_record::from_jobspec(&jobspec) else {
            return call.fail(Failure::new(Errno::EINVAL, "malformed jobspec"));
        };
        let scheduler = self.scheduler.clone();
        context.spawn(
            async move { scheduler.feasibility(record, jobspec).await },
            |_: &mut Sched, result| match result {
                Ok(Ok(())) => call.reply(&Empty),
                Ok(Err(refusal)) => {
                    call.fail(Failure::new(Errno(refusal.errnum), refusal.text));
                }
                Err(error) => call.fail(Failure::new(Errno::EIO, error.to_string())),
            },
        );
    }

    // --- decisions ---

    fn decided(&mut self, context: &Context, event: SchedulerEvent) {
        match event {
            SchedulerEvent::Allocated { id, r, annotations } => {
                let id = JobId(id);
                if let Ok(r) = ResourceSet::decode(&r) {
                    context.log(Severity::Debug, format!("alloc: {}: {}", id.f58(), r.dumps()));
                }
                self.allocated += 1;
                let withdrawn = self.explained.contains(&id);
                self.answer(id, rpc::AllocType::Success, |response| {
                    response.r = RawValue::from_string(r).ok();
                    response.annotations = annotations.and_then(parse);
                    if withdrawn {
                        effects::withdraw_reason(&mut response.annotations);
                    }
                });
            }
            SchedulerEvent::Denied { id, note } => {
                let id = JobId(id);
                context.log(Severity::Debug, format!("alloc: {}: {note}", id.f58()));
                self.answer(id, rpc::AllocType::Deny, |response| response.note = Some(note));
            }
            SchedulerEvent::Canceled { id } => {
                self.answer(JobId(id), rpc::AllocType::Cancel, |_| {});
            }
            SchedulerEvent::Annotated { id, annotations } => {
                if let Some(annotations) = parse(annotations) {
                    self.annotate(JobId(id), annotations);
                }
            }
            SchedulerEvent::Effect(effect) => self.effect(context, effect),
        }
    }

    /// The last answer to an alloc request.
    fn answer(
        &mut self,
        id: JobId,
        kind: rpc::AllocType,
        fill: impl FnOnce(&mut rpc::AllocResponse),
    ) {
        self.explained.remove(&id);
        if let Some(call) = self.pending.remove(&id) {
            let mut response = blank(id, kind);
            fill(&mut response);
            call.reply(&response);
        }
    }
}

fn blank(id: JobId, kind: rpc::AllocType) -> rpc::AllocResponse {
    rpc::AllocResponse { id, kind, r: None, annotations: None, note: None }
}

fn parse(json: String) -> Option<Value> {
    serde_json::from_str(&json).ok()
}
