//! `job-list`: what users see of jobs, kept up to date from the job manager's journal.

mod attributes;
mod constraint;
mod demand;
mod job;
mod stats;
mod sync;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use flux_protocol::credential::{Credential, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::{Message, Nodeid};
use flux_protocol::payload::{Empty, decode_json};
use flux_protocol::rpc::{job_list as rpc, job_manager};
use serde::Deserialize;
use serde_json::Value;

use crate::call::{Call, Calls, Sender};
use crate::config::access::Access;
use crate::config::{self, Config};
use crate::methods::Methods;
use crate::service::Service;
use constraint::{Budget, Constraint};
use job::{ATTRS, Job, State};
use stats::Tally;

type Context = crate::context::Context<JobList>;

/// The service.
#[derive(Debug, Default)]
pub struct JobList {
    jobs: HashMap<JobId, Job>,
    /// By priority; then those with resources, the last that started first; then those that have
    /// ended, the last first.
    pending: BTreeSet<(Reverse<i64>, JobId)>,
    running: BTreeSet<(Reverse<u64>, Reverse<JobId>)>,
    inactive: BTreeSet<(Reverse<u64>, Reverse<JobId>)>,
    waiting: Calls<rpc::ListIdResponse, rpc::ListIdRequest>,
    /// Of jobs that the journal has not told of.
    lookups: usize,
    stats_watchers: Calls<rpc::Stats, ()>,
    tally: Tally,
    paused: Option<Vec<job_manager::JournalResponse>>,
    access: Access,
    config: config::job_list::JobList,
}

impl Service for JobList {
    const NAME: &'static str = "job-list";
    const SERVICES: &'static [&'static str] = &["job-list"];
    const RELOAD_REFUSAL: &'static str = "";

    async fn start(context: &Context, _: &[String]) -> Result<JobList, Failure> {
        context.subscribe("job-purge-inactive");
        let request = job_manager::JournalRequest { full: true, ..Default::default() };
        let mut journal = context.handle().stream::<job_manager::Journal>(Nodeid::ANY, &request)?;
        let mut list = JobList::default();
        list.configure(context, &context.config())?;
        // The past comes first, and ends with a response for no job.
        loop {
            let response = journal.next().await?;
            if response.id < 0 {
                break;
            }
            list.take(response);
        }
        let after = context.clone();
        tokio::task::spawn_local(async move {
            while let Ok(response) = journal.next().await {
                after.later(move |list: &mut JobList| list.journal(response));
            }
        });
        Ok(list)
    }

    fn methods() -> Methods<JobList> {
        Methods::default()
            .serve::<rpc::List>(JobList::list)
            .serve::<rpc::ListId>(JobList::list_id)
            .reply::<rpc::ListAttrs>(JobList::list_attrs)
            .serve::<rpc::JobStats>(JobList::job_stats)
            .reply::<rpc::StatePause>(JobList::pause)
            .reply::<rpc::StateUnpause>(JobList::unpause)
    }

    fn event(&mut self, _: &Context, event: &Message) {
        #[derive(Deserialize)]
        struct Purged {
            jobs: Vec<JobId>,
        }
        let Ok(purged) = decode_json::<Purged>(event.payload.as_ref()) else { return };
        for id in purged.jobs {
            if let Some(job) = self.jobs.remove(&id) {
                self.unlist(&job);
                self.tally.purged(&job);
            }
        }
    }

    fn disconnect(&mut self, _: &Context, sender: &Sender) {
        self.waiting.disconnect(sender);
        self.stats_watchers.disconnect(sender);
    }

    fn configure(&mut self, _: &Context, config: &Config) -> Result<(), Failure> {
        self.access = Access::parse(config)?;
        self.config = config::job_list::JobList::parse(config)?;
        self.tally.configure(config);
        Ok(())
    }

    fn shows_stats(&self, cred: Credential) -> bool {
        !self.access.hides_jobs_from(cred)
    }

    fn stats(&self, _: &Context) -> Option<Value> {
        let awaited: BTreeSet<JobId> = self.waiting.iter().map(|(_, request)| request.id).collect();
        Some(serde_json::json!({
            "jobs": {
                "pending": self.pending.len(),
                "running": self.running.len(),
                "inactive": self.inactive.len(),
            },
            "idsync": { "lookups": self.lookups, "waits": awaited.len() },
            "stats_watchers": self.stats_watchers.len(),
        }))
    }
}

impl JobList {
    fn journal(&mut self, response: job_manager::JournalResponse) {
        match &mut self.paused {
            Some(held) => held.push(response),
            None => {
                let changed = self.take(response);
                if let Some(id) = changed {
                    self.tell(id);
                }
            }
        }
    }

    /// Apply events of one job.
    fn take(&mut self, response: job_manager::JournalResponse) -> Option<JobId> {
        let id = JobId(u64::try_from(response.id).ok()?);
        let mut job = self.jobs.remove(&id).unwrap_or_else(|| Job::new(id));
        self.unlist(&job);
        if let Some(jobspec) = &response.jobspec {
            job.set_jobspec(jobspec.get());
        }
        if let Some(r) = &response.r {
            job.set_r(r.get());
        }
        for event in &response.events {
            if let Ok(event) = Event::decode(event.get()) {
                job.apply(&event);
            }
        }
        // A job that was refused had a submit event for the journal alone.
        if job.state != State::New {
            self.enlist(&job);
        }
        self.jobs.insert(id, job);
        Some(id)
    }

    fn enlist(&mut self, job: &Job) {
        self.tally.add(job);
        match job.state {
            State::Run | State::Cleanup => {
                self.running.insert((Reverse(job.t_run.to_bits()), Reverse(job.id)));
            }
            State::Inactive => {
                self.inactive.insert((Reverse(job.t_inactive.to_bits()), Reverse(job.id)));
            }
            _ => {
                self.pending.insert((Reverse(job.priority), job.id));
            }
        }
    }

    fn unlist(&mut self, job: &Job) {
        self.tally.remove(job);
        match job.state {
            State::Run | State::Cleanup => {
                self.running.remove(&(Reverse(job.t_run.to_bits()), Reverse(job.id)));
            }
            State::Inactive => {
                self.inactive.remove(&(Reverse(job.t_inactive.to_bits()), Reverse(job.id)));
            }
            _ => {
                self.pending.remove(&(Reverse(job.priority), job.id));
            }
        }
    }

    /// Tell those who wait for the job, and for numbers.
    fn tell(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let ready = self.waiting.take(|_, request| {
            request.id == id && request.state.is_none_or(|state| job.has_reached(state))
        });
        for (call, request) in ready {
            let shown = self.show(job, call.cred(), &request.attrs);
            call.finish(shown);
        }
        if !self.stats_watchers.is_empty() {
            let stats = self.tally.encode();
            for (call, ()) in self.stats_watchers.iter() {
                if self.shows_stats(call.cred()) {
                    call.send(&stats);
                }
            }
        }
    }

    fn is_shown(&self, job: &Job, cred: Credential) -> bool {
        cred.authorizes(Userid(job.userid)) || !self.access.hides_jobs_from(cred)
    }

    /// ENOENT for a job that this user may not see, as if there were none.
    fn show(
        &self,
        job: &Job,
        cred: Credential,
        attrs: &[String],
    ) -> Result<rpc::ListIdResponse, Failure> {
        match self.is_shown(job, cred) {
            true => Ok(rpc::ListIdResponse { job: job.select(attrs)? }),
            false => Err(Errno::ENOENT.into()),
        }
    }

    fn in_order(&self) -> impl Iterator<Item = &Job> {
        let pending = self.pending.iter().map(|(_, id)| *id);
        let running = self.running.iter().map(|(_, id)| id.0);
        let inactive = self.inactive.iter().map(|(_, id)| id.0);
        pending.chain(running).chain(inactive).filter_map(|id| self.jobs.get(&id))
    }

    // --- methods ---

    fn list(
        &mut self,
        context: &Context,
        request: rpc::ListRequest,
        call: Call<rpc::ListResponse>,
    ) {
        let limit = match usize::try_from(request.max_entries) {
            Ok(0) => usize::MAX,
            Ok(limit) => limit,
            Err(_) => {
                let text = "invalid payload: max_entries < 0 not allowed";
                return call.fail(Failure::new(Errno::EPROTO, text));
            }
        };
        let queues = context.config().get("queues").and_then(Value::as_object).cloned();
        if request.since < 0.0 {
            let text = "invalid payload: since < 0.0 not allowed";
            return call.fail(Failure::new(Errno::EPROTO, text));
        }
        let constraint = match Constraint::from_request(&request) {
            Ok(constraint) => constraint.with_virtual_queues(&queues.unwrap_or_default()),
            Err(text) => {
                let text = format!("invalid payload: {text}");
                return call.fail(Failure::new(Errno::EPROTO, text));
            }
        };
        let mut budget = Budget::new(self.config.max_comparisons);
        let candidates = self
            .in_order()
            .filter(|job| request.since <= 0.0 || job.is_since(request.since))
            .filter(|job| self.is_shown(job, call.cred()));
        let mut jobs = Vec::new();
        let mut version = Some(1);
        let mut count = 0;
        for job in candidates {
            match constraint.matches(job, &mut budget) {
                Ok(true) => count += 1,
                Ok(false) => continue,
                Err(error) => return call.fail(Failure::new(Errno::EINVAL, error.to_string())),
            }
            let object = match job.select(&request.attrs) {
                Ok(object) => Value::Object(object),
                Err(failure) => return call.fail(failure),
            };
            if call.is_streaming() {
                call.send(&rpc::ListResponse { jobs: vec![object], version: version.take() });
            } else {
                jobs.push(object);
            }
            if count == limit {
                break;
            }
        }
        if call.is_streaming() {
            call.end();
        } else {
            call.reply(&rpc::ListResponse { jobs, version: None });
        }
    }

    fn list_id(
        &mut self,
        context: &Context,
        request: rpc::ListIdRequest,
        call: Call<rpc::ListIdResponse>,
    ) {
        let is_ready = |job: &Job| request.state.is_none_or(|state| job.has_reached(state));
        match self.jobs.get(&request.id) {
            Some(job) if is_ready(job) || !self.is_shown(job, call.cred()) => {
                let shown = self.show(job, call.cred(), &request.attrs);
                call.finish(shown);
            }
            Some(_) => self.waiting.insert(call, request),
            None => self.await_unknown(context, request, call),
        }
    }

    fn list_attrs(
        &mut self,
        _: &Context,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::AttrsResponse, Failure> {
        Ok(rpc::AttrsResponse { attrs: ATTRS.iter().map(|attr| (*attr).to_owned()).collect() })
    }

    fn job_stats(&mut self, _: &Context, _: Empty, call: Call<rpc::Stats>) {
        if !self.shows_stats(call.cred()) {
            return call.fail(Errno::EPERM);
        }
        let stats = self.tally.encode();
        if call.is_streaming() {
            call.send(&stats);
            self.stats_watchers.insert(call, ());
        } else {
            call.reply(&stats);
        }
    }

    fn pause(&mut self, _: &Context, _: Empty, _: &Sender) -> Result<Empty, Failure> {
        self.paused.get_or_insert_with(Vec::new);
        Ok(Empty)
    }

    fn unpause(&mut self, _: &Context, _: Empty, _: &Sender) -> Result<Empty, Failure> {
        for response in self.paused.take().unwrap_or_default() {
            self.journal(response);
        }
        Ok(Empty)
    }
}
