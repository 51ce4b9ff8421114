//! `cron`: commands that run on rank 0, or another, at times and on events.
//!
//! ```text
//!  schedule says now -> Deferred -> Running -> Exited, Failed, Timeout
//!                          |  (sync event)        |
//!                          +--- Rexec Failure <---+
//! ```
//!
//! An entry runs one command at a time. With a sync event, by default the heartbeat, commands wait
//! for the next one, so that all that goes on periodically in a cluster goes on at once.

mod crontab;
mod datetime;
mod entry;
mod schedule;
mod task;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fsd;
use flux_protocol::message::{Message, Nodeid};
use flux_protocol::rpc::cron as rpc;
use flux_protocol::rpc::rexec::{self, ExecRequest, ExecResponse};

use crate::call::Sender;
use crate::config::periodic::Cron as Settings;
use crate::context::Context;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;
use entry::Entry;
use schedule::Schedule;
use task::{Task, now};

/// How long a timer waits before it looks at the clock again, which may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Too little to wait for.
const SOON: f64 = 1e-5;

#[derive(Debug)]
pub struct Cron {
    next_id: u64,
    entries: BTreeMap<u64, Entry>,
    /// Entries whose commands wait for the sync event, the first that came first.
    deferred: Vec<u64>,
    sync_event: Option<String>,
    /// When the sync event came last that was waited for.
    last_sync: f64,
    /// Seconds after a sync event in which commands need not wait.
    epsilon: f64,
}

impl Service for Cron {
    const NAME: &'static str = "cron";
    const SERVICES: &'static [&'static str] = &["cron"];

    async fn start(context: &Context<Cron>, args: &[String]) -> Result<Cron, Failure> {
        let mut cron = Cron {
            next_id: 1,
            entries: BTreeMap::new(),
            deferred: Vec::new(),
            sync_event: None,
            last_sync: 0.0,
            epsilon: 0.015,
        };
        for arg in args {
            cron.take_arg(context, arg)?;
        }
        let attr = context.broker().attrs().get("cron.directory");
        let directory = attr.or(Settings::parse(&context.config())?.directory);
        if let Some(directory) = directory.filter(|directory| !directory.is_empty()) {
            for request in crontab::load(Path::new(&directory))? {
                cron.add(context, request)?;
            }
        }
        Ok(cron)
    }

    fn methods() -> Methods<Cron> {
        Methods::default()
            .reply::<rpc::Create>(Cron::create)
            .reply::<rpc::Delete>(Cron::delete)
            .reply::<rpc::List>(Cron::list)
            .reply::<rpc::Start>(Cron::start_entry)
            .reply::<rpc::Stop>(Cron::stop_entry)
            .reply::<rpc::Sync>(Cron::sync)
    }

    fn event(&mut self, context: &Context<Cron>, event: &Message) {
        let topic = event.topic.as_str();
        let due: Vec<u64> = self
            .entries
            .values_mut()
            .filter(|entry| !entry.stopped)
            .filter_map(|entry| match &mut entry.schedule {
                Schedule::Event(event) if event.matches(topic) => {
                    let counted = event.count();
                    (counted && !entry.paused).then_some(entry.id)
                }
                _ => None,
            })
            .collect();
        for id in due {
            self.event_came(context, id);
        }
        let synchronizes = self.sync_event.as_deref() == Some(topic);
        if synchronizes && !self.deferred.is_empty() {
            self.run_deferred(context);
            self.last_sync = now();
        }
    }

    async fn stop(self, context: &Context<Cron>) {
        for entry in self.entries.values() {
            kill(context, entry);
        }
    }
}

// --- requests ---

impl Cron {
    fn create(
        &mut self,
        context: &Context<Cron>,
        request: rpc::CreateRequest,
        _: &Sender,
    ) -> Result<rpc::Entry, Failure> {
        let id = self.add(context, request)?;
        self.describe(id)
    }

    fn delete(
        &mut self,
        context: &Context<Cron>,
        request: rpc::DeleteRequest,
        _: &Sender,
    ) -> Result<rpc::Entry, Failure> {
        let described = self.describe(request.id)?;
        let entry = self.entry(request.id)?;
        entry.stop();
        entry.deleted = true;
        if entry.task.is_none() {
            self.forget(context, request.id);
        } else if request.kill {
            kill(context, entry);
        }
        Ok(described)
    }

    fn list(
        &mut self,
        _: &Context<Cron>,
        _: rpc::ListRequest,
        _: &Sender,
    ) -> Result<rpc::ListResponse, Failure> {
        let entries = self.entries.values().map(|entry| {
            serde_json::to_value(entry.describe()).map_err(|_| Failure::from(Errno::EPROTO))
        });
        Ok(rpc::ListResponse { entries: entries.collect::<Result<_, _>>()? })
    }

    /// EINVAL: it is not stopped.
    fn start_entry(
        &mut self,
        context: &Context<Cron>,
        request: rpc::IdRequest,
        _: &Sender,
    ) -> Result<rpc::Entry, Failure> {
        if !self.entry(request.id)?.stopped {
            return Err(Errno::EINVAL.into());
        }
        self.activate(context, request.id);
        self.describe(request.id)
    }

    /// EINVAL: it is stopped.
    fn stop_entry(
        &mut self,
        _: &Context<Cron>,
        request: rpc::IdRequest,
        _: &Sender,
    ) -> Result<rpc::Entry, Failure> {
        if !self.entry(request.id)?.stop() {
            return Err(Errno::EINVAL.into());
        }
        self.describe(request.id)
    }

    fn sync(
        &mut self,
        context: &Context<Cron>,
        request: rpc::SyncRequest,
        _: &Sender,
    ) -> Result<rpc::SyncResponse, Failure> {
        if request.topic.is_some() || request.disable == Some(true) {
            self.synchronize(context, request.topic);
        }
        self.epsilon = request.sync_epsilon.unwrap_or(self.epsilon);
        Ok(match &self.sync_event {
            Some(event) => rpc::SyncResponse {
                sync_event: Some(event.clone()),
                sync_epsilon: Some(self.epsilon),
                sync_disabled: None,
            },
            None => rpc::SyncResponse { sync_disabled: Some(true), ..Default::default() },
        })
    }
}

// --- entries ---

impl Cron {
    fn take_arg(&mut self, context: &Context<Cron>, arg: &str) -> Result<(), Failure> {
        match arg.split_once('=') {
            Some(("sync", topic)) => self.synchronize(context, Some(topic.to_owned())),
            Some(("sync_epsilon", text)) => match fsd::parse(text) {
                Ok(epsilon) => self.epsilon = epsilon,
                Err(_) => context.log(Severity::Err, format!("option {arg} ignored")),
            },
            _ => {
                context.log(Severity::Err, format!("Unknown option `{arg}'"));
                return Err(Errno::EINVAL.into());
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        context: &Context<Cron>,
        request: rpc::CreateRequest,
    ) -> Result<u64, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry::new(id, request)?;
        if let Schedule::Event(event) = &entry.schedule {
            context.subscribe(event.prefix());
        }
        self.entries.insert(id, entry);
        self.activate(context, id);
        Ok(id)
    }

    fn entry(&mut self, id: u64) -> Result<&mut Entry, Failure> {
        self.entries.get_mut(&id).ok_or_else(|| Errno::ENOENT.into())
    }

    fn describe(&self, id: u64) -> Result<rpc::Entry, Failure> {
        self.entries.get(&id).map(Entry::describe).ok_or_else(|| Errno::ENOENT.into())
    }

    fn forget(&mut self, context: &Context<Cron>, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.deferred.retain(|other| *other != id);
        if let Schedule::Event(event) = &entry.schedule {
            context.unsubscribe(event.prefix());
        }
    }

    fn activate(&mut self, context: &Context<Cron>, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let next = entry.start();
        self.arm(context, id, next);
    }

    /// Wait for the next time; without one, an entry that goes by the clock has come to its end.
    fn arm(&mut self, context: &Context<Cron>, id: u64, next: Option<f64>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match next {
            Some(next) => {
                let again = context.clone();
                let timer = at(context, next, move |cron| cron.time_came(&again, id));
                entry.set_timer(Some(timer));
            }
            None if matches!(entry.schedule, Schedule::Datetime(_)) => {
                if entry.repeat() == 0 || entry.repeat() > entry.stats.count {
                    let text = format!("cron-{id}: Unable to get next wakeup. Stopping.");
                    context.log(Severity::Err, text);
                }
                entry.stop();
            }
            None => {}
        }
    }

    fn time_came(&mut self, context: &Context<Cron>, id: u64) {
        self.run(context, id);
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.stopped) else { return };
        let next = entry.schedule_next();
        self.arm(context, id, next);
    }

    fn event_came(&mut self, context: &Context<Cron>, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Schedule::Event(event) = &entry.schedule else { return };
        let until = entry.stats.lastrun + event.min_interval;
        let left = until - now();
        if left <= SOON {
            self.run(context, id);
            return;
        }
        entry.paused = true;
        let again = context.clone();
        entry.set_timer(Some(at(context, until, move |cron| {
            if let Some(entry) = cron.entries.get_mut(&id) {
                entry.paused = false;
            }
            cron.run(&again, id);
        })));
        let text = format!("cron-{id}: delaying {left:.3}s due to min interval");
        context.log(Severity::Debug, text);
    }

    fn synchronize(&mut self, context: &Context<Cron>, topic: Option<String>) {
        if let Some(old) = self.sync_event.take() {
            context.unsubscribe(&old);
        }
        match topic {
            Some(topic) => {
                let text = format!("synchronizing cron tasks to event {topic}");
                context.log(Severity::Info, text);
                context.subscribe(&topic);
                self.sync_event = Some(topic);
            }
            // Nothing is left to wait for.
            None => self.run_deferred(context),
        }
    }
}

// --- runs ---

impl Cron {
    /// Run an entry's command, now or at the next sync event.
    fn run(&mut self, context: &Context<Cron>, id: u64) {
        let waits = self.sync_event.is_some() && now() - self.last_sync >= self.epsilon;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.task.is_some() {
            let text = format!("cron-{id}: {}: task still running or scheduled", entry.name());
            context.log(Severity::Info, text);
            return;
        }
        entry.task = Some(Task::new());
        entry.stats.total += 1;
        entry.stats.count += 1;
        if entry.stats.count == entry.repeat() {
            entry.stop();
        }
        if !waits {
            self.start_task(context, id);
            return;
        }
        entry.stats.deferred += 1;
        self.deferred.push(id);
        let event = self.sync_event.as_deref().unwrap_or_default();
        context.log(Severity::Debug, format!("deferring cron-{id} to next {event} event"));
    }

    fn run_deferred(&mut self, context: &Context<Cron>) {
        for id in std::mem::take(&mut self.deferred) {
            self.start_task(context, id);
        }
    }

    fn start_task(&mut self, context: &Context<Cron>, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(task) = entry.task.as_mut().filter(|task| !task.is_started()) else { return };
        task.start();
        entry.stats.lastrun = now();
        let flags = rexec::flags::STDOUT | rexec::flags::STDERR;
        let request = ExecRequest { cmd: entry.shell_command(), flags, local_flags: 0 };
        let rank = entry.rank();
        let context = context.clone();
        entry.set_follower(tokio::task::spawn_local(async move {
            let failed = follow(&context, id, rank, &request).await.err();
            let again = context.clone();
            context.later(move |cron: &mut Cron| cron.task_ended(&again, id, failed.as_ref()));
        }));
    }

    fn task_said(&mut self, context: &Context<Cron>, id: u64, said: ExecResponse) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (rank, timeout) = (entry.rank(), entry.timeout());
        let Some(task) = entry.task.as_mut() else { return };
        match said {
            ExecResponse::Started { pid } => {
                task.runs(rank, pid);
                if let Some(timeout) = timeout {
                    let again = context.clone();
                    // A later run is another process.
                    at(context, now() + timeout, move |cron| cron.timed_out(&again, id, pid));
                }
            }
            ExecResponse::Output { io, .. } => {
                let lines = task.lines(&io);
                let severity = if io.stream == "stderr" { Severity::Err } else { Severity::Info };
                let (name, command) = (entry.name(), entry.command());
                for line in lines {
                    let text = format!(
                        "cron-{id}[{name}]: rank={rank}: command=\"{command}\": \"{line}\""
                    );
                    context.log(severity, text);
                }
            }
            ExecResponse::Finished { status } => task.exit(status),
            _ => {}
        }
    }

    fn timed_out(&mut self, context: &Context<Cron>, id: u64, pid: i64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Some(task) = entry.task.as_mut().filter(|task| task.pid == pid && task.is_running())
        {
            task.timed_out = true;
            kill(context, entry);
        }
    }

    fn task_ended(&mut self, context: &Context<Cron>, id: u64, failed: Option<&Failure>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(mut task) = entry.task.take() else { return };
        task.end(failed.map(|failure| failure.errno));
        entry.keep(&task);
        let command = entry.command();
        let text = match failed {
            Some(failure) => Some(format!("cron-{id}: failure running {command}: {failure}")),
            None if task.status != 0 => {
                Some(format!("cron-{id}: \"{command}\": Failed: {}", task.outcome()))
            }
            None => None,
        };
        match text {
            None => entry.stats.success += 1,
            Some(text) => {
                context.log(Severity::Err, text);
                if let Some(limit) = entry.count_failure() {
                    let text = format!("cron-{id}: exceeded failure limit of {limit}. stopping");
                    context.log(Severity::Err, text);
                    entry.stop();
                }
            }
        }
        if entry.deleted {
            self.forget(context, id);
        }
    }
}

/// Tell the service what a process does, until its end.
async fn follow(
    context: &Context<Cron>,
    id: u64,
    rank: u32,
    request: &ExecRequest,
) -> Result<(), Failure> {
    let mut responses = context.handle().stream::<rexec::Exec>(Nodeid(rank), request)?;
    loop {
        match responses.next().await {
            Ok(said) => {
                let again = context.clone();
                context.later(move |cron: &mut Cron| cron.task_said(&again, id, said));
            }
            Err(failure) if failure.errno == Errno::ENODATA => return Ok(()),
            Err(failure) => return Err(failure),
        }
    }
}

/// Call `then` when the clock shows `time`, in seconds since 1970.
fn at(
    context: &Context<Cron>,
    time: f64,
    then: impl FnOnce(&mut Cron) + 'static,
) -> tokio::task::JoinHandle<()> {
    let context = context.clone();
    tokio::task::spawn_local(async move {
        loop {
            let left = time - now();
            if left <= 0.0 {
                break;
            }
            let left = Duration::try_from_secs_f64(left).unwrap_or(LOOK_AGAIN);
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        }
        context.later(then);
    })
}

fn kill(context: &Context<Cron>, entry: &Entry) {
    let Some(task) = entry.task.as_ref().filter(|task| task.is_running()) else { return };
    let request = rexec::KillRequest { pid: task.pid, label: None, signum: libc::SIGTERM };
    let (handle, rank) = (context.handle().clone(), entry.rank());
    tokio::task::spawn_local(async move {
        // It may have ended meanwhile.
        let _ = handle.rpc_to::<rexec::Kill>(Nodeid(rank), &request).await;
    });
}
