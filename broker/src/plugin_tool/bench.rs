//! `bench`: how long a plugin takes, on this machine.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use flux_protocol::r::ResourceSet as R;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Given, Outcome, host_with, spec_of};
use crate::job_record;
use crate::plugin::types::{
    Change, Count, Entry, Event, Freed, Job, JobNew, JobState, Origin, Request, ResourceSet,
    StateChange, Submission, Targets,
};
use crate::plugin::{
    JobFacts, Kind, Plugin, PluginHost, Scheduler, SchedulerEvent, SharedJobs, resource_record,
    topic,
};

/// A jobspec has about this length.
const JOBSPEC: usize = 2048;
const BATCH: u64 = 128;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Calls to measure
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    calls: u64,
    /// Nodes that a scheduler gets
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    nodes: u32,
    /// Jobs that a scheduler gets
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    jobs: u64,
    /// Module: a path, or a name in the plugin path
    file: String,
    #[command(flatten)]
    given: Given,
}

impl Bench {
    pub(super) async fn run(self) -> Outcome {
        let (spec, kind) = spec_of(&self.file, self.given.conf()?)?;
        let folder = std::env::temp_dir().join(format!("flux-plugin-bench-{}", std::process::id()));
        let table = SharedJobs::default();
        let host =
            host_with(self.given.broker_config()?, table.clone(), None, Some(folder.clone()));
        let outcome = match kind {
            Kind::Scheduler => self.scheduler(&host, &spec).await,
            kind => self.plugin(&host, &spec, kind, &table).await,
        };
        let _ = std::fs::remove_dir_all(folder);
        outcome.map(|()| ExitCode::SUCCESS)
    }

    async fn plugin(
        &self,
        host: &PluginHost,
        spec: &crate::plugin::PluginSpec,
        kind: Kind,
        table: &SharedJobs,
    ) -> Result<(), String> {
        for what in ["load, compiled anew", "load, compiled before"] {
            let start = Instant::now();
            let plugin = host.load(spec, kind, Default::default()).await;
            plugin.map_err(|error| error.to_string())?;
            line(what, start.elapsed());
        }
        let plugin = host.load(spec, kind, Default::default()).await;
        let plugin = plugin.map_err(|error| error.to_string())?;
        let jobspec = jobspec();
        let job = job(&jobspec);
        table.put(JobFacts {
            job: job.clone(),
            jobspec: jobspec.as_str().into(),
            resources: None,
            events: ["submit".into()].into(),
        });
        let call = Call::of(&plugin, kind, job, jobspec).ok_or("it has no topic to call")?;
        say!("{}", call.name());
        let start = Instant::now();
        for _ in 0..self.calls {
            call.call(&plugin, 1).await;
        }
        line("  one at a time, there and back", start.elapsed() / count(self.calls));
        let start = Instant::now();
        for _ in 0..self.calls / BATCH {
            call.call(&plugin, BATCH).await;
        }
        let calls = self.calls / BATCH * BATCH;
        line("  in batches of 128, each", start.elapsed() / count(calls));
        in_the_sandbox(&plugin);
        say!("{:<44} {:>10}", "memory", plugin.stats().peak_memory);
        Ok(())
    }

    async fn scheduler(
        &self,
        host: &PluginHost,
        spec: &crate::plugin::PluginSpec,
    ) -> Result<(), String> {
        let start = Instant::now();
        let (scheduler, mut decisions) = self.idle(host, spec, "0-31").await?;
        line(&format!("load, inventory of {} nodes", self.nodes), start.elapsed());
        let jobs = (1..=self.jobs).map(|id| Job { priority: Some(16), ..one_core(id) }).collect();
        let start = Instant::now();
        scheduler.tell(vec![Change::Alloc(jobs)]).await.map_err(|error| error.to_string())?;
        let started = starts(&mut decisions, self.jobs).await.len() as u64;
        line(&format!("{started} jobs started, each"), start.elapsed() / count(started));
        drop(scheduler);
        self.turnover(host, spec).await
    }

    /// All nodes are taken and many jobs wait: one ends, another starts.
    async fn turnover(
        &self,
        host: &PluginHost,
        spec: &crate::plugin::PluginSpec,
    ) -> Result<(), String> {
        let (scheduler, mut decisions) = self.idle(host, spec, "0").await?;
        let nodes = u64::from(self.nodes);
        let jobs = (1..=nodes + self.jobs).map(|id| Job { priority: Some(16), ..one_core(id) });
        let tell =
            async |change| scheduler.tell(vec![change]).await.map_err(|error| error.to_string());
        tell(Change::Alloc(jobs.collect())).await?;
        let running = starts(&mut decisions, nodes).await;
        let start = Instant::now();
        let mut ended = 0;
        for (id, r) in running.into_iter().take(usize::try_from(self.jobs).unwrap_or(usize::MAX)) {
            let r = R::decode(&r).map_err(|error| error.to_string())?;
            let resources = resource_record(&r).targets;
            tell(Change::Free(vec![Freed { id, resources, final_: true }])).await?;
            ended += starts(&mut decisions, 1).await.len() as u64;
        }
        let what = format!("{ended} jobs ended, each with a start, {} waiting", self.jobs);
        line(&what, start.elapsed() / count(ended));
        in_the_sandbox(scheduler.plugin());
        Ok(())
    }

    /// A scheduler with the nodes that were asked for, and these cores on each.
    async fn idle(
        &self,
        host: &PluginHost,
        spec: &crate::plugin::PluginSpec,
        cores: &str,
    ) -> Result<(Scheduler, UnboundedReceiver<SchedulerEvent>), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (events, decisions) = tokio::sync::mpsc::unbounded_channel();
        let scheduler = host.load_scheduler(spec, events, Default::default()).await;
        let scheduler = scheduler.map_err(|error| text(&error))?;
        let changes = vec![
            Change::Resources(inventory(self.nodes, cores)),
            Change::Up(format!("0-{}", self.nodes.saturating_sub(1))),
            Change::Hello(Vec::new()),
        ];
        scheduler.tell(changes).await.map_err(|error| text(&error))?;
        scheduler.ready().await.map_err(|error| text(&error))?;
        Ok((scheduler, decisions))
    }
}

/// What the host measured of each callback.
fn in_the_sandbox(plugin: &Plugin) {
    for (name, report) in &plugin.stats().callbacks {
        line(&format!("  {name} in the sandbox, p50"), micros(report.p50_us));
        line(&format!("  {name} in the sandbox, p99"), micros(report.p99_us));
    }
}

/// Waits until so many jobs are started or denied; those that are started, with their R.
async fn starts(
    decisions: &mut UnboundedReceiver<SchedulerEvent>,
    jobs: u64,
) -> Vec<(u64, String)> {
    let (mut started, mut denied) = (Vec::new(), 0);
    while started.len() as u64 + denied < jobs {
        match decisions.recv().await {
            Some(SchedulerEvent::Allocated { id, r, .. }) => started.push((id, r)),
            Some(SchedulerEvent::Denied { .. }) => denied += 1,
            Some(_) => {}
            None => break,
        }
    }
    started
}

/// What is called again and again.
enum Call {
    Jobtap(Event),
    Validate(Submission),
    Frobnicate(Submission),
}

impl Call {
    fn of(plugin: &Plugin, kind: Kind, job: Job, jobspec: String) -> Option<Call> {
        let submission =
            Submission { job: Some(job.clone()), userid: 1000, urgency: 16, flags: 0, jobspec };
        match kind {
            Kind::Validator => return Some(Call::Validate(submission)),
            Kind::Frobnicator => return Some(Call::Frobnicate(submission)),
            Kind::Jobtap | Kind::Scheduler => {}
        }
        let entry = Entry { timestamp: 0.0, name: "depend".to_owned(), context: "{}".to_owned() };
        let priority = Job { state: JobState::Priority, ..job.clone() };
        let events = [
            Event::PriorityGet(priority.clone()),
            Event::Validate(job.clone()),
            Event::State(StateChange { job: priority, previous: JobState::Depend, entry }),
            Event::New(JobNew { job, origin: Origin::Submitted }),
        ];
        let wants =
            |event: &Event| topic(event).is_some_and(|topic| plugin.facts().manifest.wants(&topic));
        events.into_iter().find(wants).map(Call::Jobtap)
    }

    fn name(&self) -> String {
        match self {
            Call::Jobtap(event) => topic(event).unwrap_or_default(),
            Call::Validate(_) => "validate".to_owned(),
            Call::Frobnicate(_) => "frobnicate".to_owned(),
        }
    }

    async fn call(&self, plugin: &Plugin, times: u64) {
        let times = usize::try_from(times).unwrap_or(1);
        match self {
            Call::Jobtap(event) => drop(plugin.handle(vec![event.clone(); times]).await),
            Call::Validate(job) => drop(plugin.validate(vec![job.clone(); times]).await),
            Call::Frobnicate(job) => drop(plugin.frobnicate(vec![job.clone(); times]).await),
        }
    }
}

fn jobspec() -> String {
    let text = |fill: &str| {
        serde_json::json!({
            "version": 1,
            "resources": [{"type": "node", "count": 2, "with": [{"type": "slot", "count": 1,
                "label": "task", "with": [{"type": "core", "count": 4}]}]}],
            "tasks": [{"command": ["app", fill], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": 3600.0, "cwd": "/home/user", "queue": "batch"}},
        })
        .to_string()
    };
    let empty = text("").len();
    text(&"x".repeat(JOBSPEC.saturating_sub(empty)))
}

fn job(jobspec: &str) -> Job {
    let record = job_record::from_jobspec(jobspec).unwrap_or_else(job_record::blank);
    Job { id: 1, userid: 1000, ..record }
}

fn one_core(id: u64) -> Job {
    let one = Count { min: 1, max: Some(1), step: None };
    let request =
        Request { nodes: None, slots: one, cores_per_slot: 1, gpus_per_slot: 0, exclusive: false };
    Job { id, duration: 60.0, request: Some(request), ..job_record::blank() }
}

fn inventory(nodes: u32, cores: &str) -> ResourceSet {
    let last = nodes.saturating_sub(1);
    let children = vec![("core".to_owned(), cores.to_owned())];
    ResourceSet {
        targets: vec![Targets { ranks: format!("0-{last}"), children }],
        nodelist: format!("node[0-{last}]"),
        properties: Vec::new(),
        starttime: 0.0,
        expiration: 0.0,
        scheduling: None,
    }
}

fn count(calls: u64) -> u32 {
    u32::try_from(calls).unwrap_or(u32::MAX).max(1)
}

fn micros(micros: f64) -> Duration {
    Duration::try_from_secs_f64(micros / 1e6).unwrap_or_default()
}

fn line(what: &str, time: Duration) {
    say!("{what:<44} {:>10}", format!("{time:.2?}"));
}
