//! `job-manager`: the queue of jobs, from submission to the end (RFC 21).
//!
//! Every change of a job is an event. [`JobManager::post`] appends it to the job's eventlog,
//! [applies](job::Job::apply) it, asks the plugins that want to know, and then does what the new
//! state asks for ([`job::Job::actions`]). After a restart the eventlogs are applied again.
//!
//! | file | idea |
//! |---|---|
//! | [`job`] | a job, pure |
//! | [`store`] | eventlogs in the KVS, many changes in one commit |
//! | [`submit`], [`replay`] | new jobs; signed requests that come a second time |
//! | [`alloc`], [`admission`], [`start`] | the scheduler's and the execution's protocol |
//! | [`plugins`], [`facts`], [`effects`], `dependencies` | policy: what plugins are told, and what they want |
//! | [`commands`], [`housekeeping`], [`bulk`] | programs that run before and after jobs |
//! | [`queues`], `queue_access` | named queues, enable and start; whose jobs they take |
//! | [`journal`] | events for job-list and others |
//! | [`restart`], [`purge`] | what lasts, and what does not |
//! | `raise`, `kill`, `urgency`, `update`, `memo`, `wait`, `list`, `drain` | requests |

pub mod admission;
pub mod alloc;
pub mod bulk;
pub mod commands;
mod dependencies;
pub mod drain;
pub mod effects;
pub mod facts;
pub mod housekeeping;
pub mod job;
pub mod journal;
pub mod kill;
pub mod list;
pub mod memo;
pub mod plugins;
pub mod purge;
mod queue_access;
pub mod queues;
pub mod raise;
pub mod replay;
pub mod restart;
pub mod start;
pub mod store;
pub mod submit;
pub mod update;
pub mod urgency;
pub mod wait;
mod waiting;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::SystemTime;

use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Message;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::job_manager as rpc;
use serde::Serialize;

use crate::call::{Call, Sender};
use crate::config::Config;
use crate::config::access::Access;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;
use job::{Action, Job, State};

/// What handlers are given.
pub(crate) type Context = crate::context::Context<JobManager>;

/// The service.
#[derive(Debug)]
pub struct JobManager {
    jobs: HashMap<JobId, Job>,
    max_jobid: JobId,
    store: store::Store,
    replay: replay::Replay,
    alloc: alloc::Alloc,
    start: start::Start,
    plugins: plugins::Plugins,
    queues: queues::Queues,
    journal: journal::Journal,
    purge: purge::Purge,
    wait: wait::Wait,
    drain: drain::Drain,
    commands: commands::Commands,
    housekeeping: housekeeping::Housekeeping,
    access: Access,
}

/// What follows from the configuration, apart from what is the plugins'.
struct Settings {
    queues: queues::Queues,
    purge: purge::Purge,
    housekeeping: housekeeping::Housekeeping,
    access: Access,
}

impl Settings {
    fn parse(context: &Context, config: &Config) -> Result<Settings, Failure> {
        Ok(Settings {
            queues: queues::Queues::from_config(config, context.broker().owner().0)?,
            purge: purge::Purge::from_config(config)?,
            housekeeping: housekeeping::Housekeeping::from_config(context, config)?,
            access: Access::parse(config)?,
        })
    }
}

impl Service for JobManager {
    const NAME: &'static str = "job-manager";
    const SERVICES: &'static [&'static str] = &["job-manager"];
    const RELOAD_REFUSAL: &'static str = "Error unpacking config-reload request";

    async fn start(context: &Context, _: &[String]) -> Result<JobManager, Failure> {
        let plugins = plugins::Plugins::load(context).await?;
        let settings = Settings::parse(context, &context.config())?;
        let mut manager = JobManager {
            jobs: HashMap::new(),
            max_jobid: JobId(0),
            store: store::Store::new(context),
            replay: replay::Replay::default(),
            alloc: alloc::Alloc::default(),
            start: start::Start::default(),
            plugins,
            queues: settings.queues,
            journal: journal::Journal::new(&context.config()),
            purge: settings.purge,
            wait: wait::Wait::default(),
            drain: drain::Drain::default(),
            commands: commands::Commands::default(),
            housekeeping: settings.housekeeping,
            access: settings.access,
        };
        restart::restore(&mut manager, context).await?;
        manager.purge_periodically(context);
        manager.watch_lifetime(context);
        Ok(manager)
    }

    fn methods() -> Methods<JobManager> {
        Methods::default()
            .serve::<rpc::Submit>(JobManager::submit)
            .reply::<rpc::Raise>(JobManager::raise)
            .reply::<rpc::RaiseAll>(JobManager::raise_all)
            .reply::<rpc::Kill>(JobManager::kill)
            .reply::<rpc::KillAll>(JobManager::kill_all)
            .reply::<rpc::Urgency>(JobManager::urgency)
            .serve::<rpc::Update>(JobManager::update)
            .reply::<rpc::Memo>(JobManager::memo)
            .reply::<rpc::Explain>(JobManager::explain_for)
            .serve::<rpc::Wait>(JobManager::wait)
            .reply::<rpc::List>(JobManager::list)
            .reply::<rpc::Getattr>(JobManager::getattr)
            .reply::<rpc::Getinfo>(JobManager::getinfo)
            .serve::<rpc::Jobtap>(JobManager::jobtap)
            .serve::<rpc::JobtapQuery>(JobManager::jobtap_query)
            .serve::<rpc::JobtapRearm>(JobManager::jobtap_rearm)
            .reply::<rpc::QueueList>(JobManager::queue_list)
            .reply::<rpc::QueueStatus>(JobManager::queue_status)
            .serve::<rpc::QueueEnable>(JobManager::queue_enable)
            .serve::<rpc::QueueStart>(JobManager::queue_start)
            .serve::<rpc::Drain>(JobManager::drain)
            .serve::<rpc::Idle>(JobManager::idle)
            .reply::<rpc::AllocQuery>(JobManager::alloc_query)
            .reply::<rpc::ResourceStatus>(JobManager::resource_status)
            .serve::<rpc::SchedHello>(JobManager::sched_hello)
            .reply::<rpc::SchedReady>(JobManager::sched_ready)
            .reply::<rpc::ExecHello>(JobManager::exec_hello)
            .serve::<rpc::Journal>(JobManager::journal)
            .reply::<rpc::JournalCancel>(JobManager::journal_cancel)
            .serve::<rpc::Purge>(JobManager::purge)
            .serve::<rpc::PurgeId>(JobManager::purge_id)
            .reply::<rpc::HousekeepingKill>(JobManager::housekeeping_kill)
            .reply::<rpc::SetBatchTimeout>(JobManager::set_batch_timeout)
    }

    fn unknown(&mut self, context: &Context, message: Message) -> Result<(), Message> {
        self.plugin_request(context, message)
    }

    fn response(&mut self, context: &Context, response: Message) {
        match response.topic.as_str() {
            "sched.alloc" => self.alloc_response(context, &response),
            topic if topic.ends_with(".start") => self.start_response(context, &response),
            _ => {}
        }
    }

    fn event(&mut self, context: &Context, event: &Message) {
        self.plugin_event(context, event);
    }

    fn disconnect(&mut self, context: &Context, sender: &Sender) {
        self.journal.disconnect(sender);
        self.wait.disconnect(sender);
        self.drain.disconnect(sender);
        self.alloc_disconnect(context, sender);
        self.start_disconnect(context, sender);
    }

    /// Nothing of it is in force before all plugins have agreed to it.
    fn reconfigure(&mut self, context: &Context, config: Config, call: Call<Empty>) {
        let settings = match Settings::parse(context, &config) {
            Ok(settings) => settings,
            Err(failure) => return call.fail(failure),
        };
        let after = context.clone();
        self.plugins_configure(context, Rc::new(config), move |manager, asked| {
            if asked.is_ok() {
                manager.take_over(&after, settings);
            }
            call.finish(asked.map(|()| Empty));
        });
    }

    fn shows_stats(&self, cred: Credential) -> bool {
        !self.access.hides_jobs_from(cred)
    }

    fn stats(&self, _: &Context) -> Option<serde_json::Value> {
        let inactive = self.purge.len();
        Some(serde_json::json!({
            "journal": self.journal.stats(),
            "active_jobs": self.jobs.len() - inactive,
            "inactive_jobs": inactive,
            "max_jobid": self.max_jobid,
            "commits": self.store.commits(),
            "housekeeping": self.housekeeping.stats(),
        }))
    }

    async fn stop(mut self, context: &Context) {
        self.commands_stop(context);
        self.housekeeping.stop(context);
        // Events that are on their way are part of what the next start finds.
        self.store.finish(context).await;
    }
}

impl JobManager {
    fn take_over(&mut self, context: &Context, settings: Settings) {
        self.access = settings.access;
        self.housekeeping.update(settings.housekeeping);
        self.queues.update(settings.queues);
        self.purge.update(settings.purge);
        self.alloc_all(context);
    }

    /// ENOENT "unknown job id", "job is inactive".
    fn active_job(&self, id: JobId) -> Result<&Job, Failure> {
        match self.jobs.get(&id) {
            Some(job) if job.state == State::Inactive => {
                Err(Failure::new(Errno::ENOENT, "job is inactive"))
            }
            Some(job) => Ok(job),
            None => Err(Failure::new(Errno::ENOENT, "unknown job id")),
        }
    }

    /// Jobs that are not inactive, in no order.
    fn active_jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(|job| job.is_active())
    }

    /// Post an event without a context.
    fn post(&mut self, context: &Context, id: JobId, name: &str) {
        self.post_event(context, id, new_event(name));
    }

    /// Post an event with a context.
    fn post_with<T: Serialize>(&mut self, context: &Context, id: JobId, name: &str, with: &T) {
        match new_event(name).with_context(with) {
            Ok(event) => self.post_event(context, id, event),
            Err(error) => context.log(Severity::Err, format!("{name} event of {id}: {error}")),
        }
    }

    /// Post an event: at once, or when the plugins are done with those before.
    fn post_event(&mut self, context: &Context, id: JobId, event: Event) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.queued.push_back(event);
        self.process(context, id);
    }

    /// Apply the events that are posted, then do what the state asks for.
    fn process(&mut self, context: &Context, id: JobId) {
        loop {
            let Some(job) = self.jobs.get_mut(&id) else { return };
            if job.pending.callbacks > 0 {
                return;
            }
            let Some(event) = job.queued.pop_front() else { break };
            let before = job.state;
            if let Err(error) = job.apply(&event) {
                context.log(Severity::Err, format!("{id}: {error}"));
                continue;
            }
            let after = job.state;
            self.journal.event(&self.jobs, id, &event);
            context.broker().spans().event(id, &event);
            self.alloc_state_changed(id, before, after);
            self.drain.state_changed(before, after);
            if after == job::State::Priority && before != after {
                // It may have its new priority, or be held, before anybody looks at what is to be
                // done; whom it was sent to is not to go by the old one.
                self.alloc_dequeue(context, id);
            }
            if event.name == "exception" && self.jobs.get(&id).is_some_and(|j| j.fatal_exception) {
                self.commands_exception(id);
            }
            // What is posted on hearing of this event comes after it.
            self.hold(id, 1);
            self.plugins_notify(context, id, before, &event);
            self.hold(id, -1);
            match self.jobs.get_mut(&id) {
                Some(job) if job.pending.callbacks > 0 => job.unsettled = Some(event),
                _ => self.store.append(context, id, &event),
            }
        }
        self.act(context, id);
    }

    /// A call of plugins is over. When it was the last: store the event that it was about, and go
    /// on with those that have come since.
    fn callback_done(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.pending.callbacks = job.pending.callbacks.saturating_sub(1);
        if job.pending.callbacks == 0 {
            self.store_unsettled(context, id);
            self.process(context, id);
        }
    }

    fn hold(&mut self, id: JobId, change: i32) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.pending.callbacks = job.pending.callbacks.saturating_add_signed(change);
        }
    }

    fn store_unsettled(&mut self, context: &Context, id: JobId) {
        if let Some(event) = self.jobs.get_mut(&id).and_then(|job| job.unsettled.take()) {
            self.store.append(context, id, &event);
        }
    }

    fn act(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        for action in job.actions() {
            self.perform(context, id, action);
        }
    }

    fn perform(&mut self, context: &Context, id: JobId, action: Action) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match action {
            Action::PostDepend => {
                job.pending.depend_posted = true;
                self.post(context, id, "depend");
            }
            Action::Dequeue => self.alloc_dequeue(context, id),
            Action::Enqueue => self.alloc_enqueue(context, id),
            Action::Start => self.start_job(context, id),
            Action::PostRelease => {
                if let Some(release) = job.pending.release.take() {
                    self.post_with(context, id, "release", &release);
                }
            }
            Action::Free => {
                job.pending.free_posted = true;
                if !self.housekeeping_start(context, id) {
                    self.alloc_free(context, id);
                }
                self.post(context, id, "free");
            }
            Action::PostClean => {
                job.pending.clean_posted = true;
                self.post(context, id, "clean");
            }
            Action::Retire => self.retire(context, id),
        }
    }

    /// The job is inactive now.
    fn retire(&mut self, context: &Context, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !self.purge.add(job) {
            return;
        }
        job.annotations = None;
        self.wait.job_inactive(job);
        let is_refused = job.is_refused;
        self.plugins_retire(context, id);
        if is_refused {
            let after = context.clone();
            context.later(move |manager: &mut JobManager| manager.purge_refused(&after, id));
        }
    }
}

/// An event of now.
fn new_event(name: &str) -> Event {
    Event::new(crate::time::unix_seconds(SystemTime::now()), name)
}
