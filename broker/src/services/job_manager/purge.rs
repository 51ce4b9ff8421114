//! Inactive jobs: kept until they are too old or too many.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::{Empty, encode_json};
use flux_protocol::rpc::job_manager as rpc;
use flux_protocol::rpc::kvs;
use serde_json::{Value, json};

use super::job::{Job, State};
use super::{Context, JobManager};
use crate::call::{Call, Sender};
use crate::config::Config;
use crate::log::Severity;

/// Jobs removed in one commit.
const BATCH: usize = 100;
/// How often limits are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Inactive jobs, the first that ended first.
#[derive(Debug, Default)]
pub struct Purge {
    order: VecDeque<(f64, JobId)>,
    members: std::collections::HashSet<JobId>,
    /// `job-manager.inactive-age-limit` in seconds.
    age_limit: Option<f64>,
    /// `job-manager.inactive-num-limit`
    num_limit: Option<usize>,
}

impl Purge {
    pub(super) fn from_config(config: &Config) -> Result<Purge, Failure> {
        let age_limit = match config.get("job-manager.inactive-age-limit") {
            None => None,
            Some(value) => Some(age(value)?),
        };
        let num_limit = match config.get("job-manager.inactive-num-limit") {
            None => None,
            Some(value) => Some(number(value)?),
        };
        Ok(Purge { age_limit, num_limit, ..Purge::default() })
    }

    pub(super) fn update(&mut self, new: Purge) {
        self.age_limit = new.age_limit;
        self.num_limit = new.num_limit;
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// False when it is here already.
    pub(super) fn add(&mut self, job: &Job) -> bool {
        if !self.members.insert(job.id) {
            return false;
        }
        let at = self.order.partition_point(|(t, _)| *t <= job.t_clean);
        self.order.insert(at, (job.t_clean, job.id));
        true
    }

    /// Whether it is here.
    pub(super) fn has(&self, id: JobId) -> bool {
        self.members.contains(&id)
    }

    fn remove(&mut self, id: JobId) {
        self.members.remove(&id);
        self.order.retain(|(_, other)| *other != id);
    }

    /// What the limits say goes, the oldest first, `batch` at most.
    fn due(
        &self,
        now: f64,
        age_limit: Option<f64>,
        num_limit: Option<usize>,
        batch: usize,
    ) -> Vec<JobId> {
        let excess = num_limit.map_or(0, |limit| self.order.len().saturating_sub(limit));
        self.order
            .iter()
            .enumerate()
            .take_while(|(index, (t_clean, _))| {
                *index < excess || age_limit.is_some_and(|limit| now - t_clean > limit)
            })
            .map(|(_, (_, id))| *id)
            .take(batch)
            .collect()
    }
}

fn age(value: &Value) -> Result<f64, Failure> {
    let parsed = value.as_str().and_then(|text| flux_protocol::fsd::parse(text).ok());
    parsed.ok_or_else(|| {
        let text = "job-manager: inactive-age-limit is not a valid FSD";
        Failure::new(Errno::EINVAL, text)
    })
}

fn number(value: &Value) -> Result<usize, Failure> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| {
        let text = "job-manager: inactive-num-limit must be a number >= 0";
        Failure::new(Errno::EINVAL, text)
    })
}

/// Age in seconds and number of jobs to keep, each if there is a limit (-1: none), and how many
/// jobs to remove at a time.
fn limits(request: &rpc::PurgeRequest) -> Result<(Option<f64>, Option<usize>, usize), String> {
    let age = match request.age_limit {
        -1.0 => None,
        limit if limit >= 0.0 => Some(limit),
        _ => return Err("if set, age limit must be >= 0".to_owned()),
    };
    let num = match (request.num_limit, usize::try_from(request.num_limit)) {
        (-1, _) => None,
        (_, Ok(limit)) => Some(limit),
        (_, Err(_)) => return Err("if set, num limit must be >= 0".to_owned()),
    };
    match usize::try_from(request.batch) {
        Ok(batch @ 1..=BATCH) => Ok((age, num, batch)),
        _ => Err(format!("batch must be >= 1 and <= {BATCH}")),
    }
}

impl JobManager {
    /// Look at the limits now and then, for as long as the service lives.
    pub(super) fn purge_periodically(&mut self, context: &Context) {
        let again = context.clone();
        context.spawn(tokio::time::sleep(PERIOD), move |manager: &mut JobManager, ()| {
            let (age, num) = (manager.purge.age_limit, manager.purge.num_limit);
            if age.is_some() || num.is_some() {
                let due = manager.purge.due(now(), age, num, BATCH);
                if !due.is_empty() {
                    again.log(Severity::Debug, format!("purged {} inactive jobs", due.len()));
                    manager.purge_jobs(&again, &due, |_, _| {});
                }
            }
            manager.purge_periodically(&again);
        });
    }

    pub(super) fn purge(
        &mut self,
        context: &Context,
        request: rpc::PurgeRequest,
        call: Call<rpc::CountResponse>,
    ) {
        let (age_limit, num_limit, batch) = match limits(&request) {
            Ok(limits) => limits,
            Err(text) => return call.fail(Failure::new(Errno::EINVAL, text)),
        };
        // Who only asks is told of all.
        let most = if request.force { batch } else { usize::MAX };
        let due = self.purge.due(now(), age_limit, num_limit, most);
        let count = due.len() as u64;
        if !request.force || due.is_empty() {
            return call.reply(&rpc::CountResponse { count });
        }
        self.purge_jobs(context, &due, move |result, _| {
            call.finish(result.clone().map(|()| rpc::CountResponse { count }));
        });
    }

    pub(super) fn purge_id(
        &mut self,
        context: &Context,
        request: rpc::PurgeIdRequest,
        call: Call<rpc::CountResponse>,
    ) {
        let force = match &request.force {
            Value::Bool(force) => *force,
            Value::Number(number) => number.as_i64() != Some(0),
            _ => false,
        };
        match self.jobs.get(&request.id) {
            None => call.fail(Failure::new(Errno::ENOENT, "id not found")),
            Some(job) if job.state != State::Inactive => {
                call.fail(Failure::new(Errno::EINVAL, "cannot purge active job"));
            }
            Some(_) if !force => call.reply(&rpc::CountResponse { count: 1 }),
            Some(_) => self.purge_jobs(context, &[request.id], move |result, _| {
                call.finish(result.clone().map(|()| rpc::CountResponse { count: 1 }));
            }),
        }
    }

    /// It is gone for all who ask before it is gone from the disk, which may be full.
    pub(super) fn purge_refused(&mut self, context: &Context, id: JobId) {
        publish(context, &[id]);
        self.purge_jobs(context, &[id], |_, _| {});
    }

    fn purge_jobs(
        &mut self,
        context: &Context,
        ids: &[JobId],
        done: impl FnOnce(&Result<(), Failure>, &Context) + 'static,
    ) {
        for id in ids {
            self.store.push(context, kvs::Op { key: id.kvs(), flags: 0, dirent: None });
            self.purge.remove(*id);
            self.journal.forget(*id);
            self.jobs.remove(id);
            self.plugins_forget(context, *id);
        }
        if ids.contains(&self.max_jobid) {
            // No job is left to tell where ids go on after a restart.
            self.checkpoint(context);
        }
        let ids = ids.to_vec();
        self.store.then(context, move |_, context, result| {
            if result.is_ok() {
                publish(context, &ids);
            }
            done(result, context);
        });
    }

    /// Commits are made as soon as the one before is done; there is no time to set.
    pub(super) fn set_batch_timeout(
        &mut self,
        _: &Context,
        request: rpc::BatchTimeoutRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        match request.timeout >= 0.0 {
            true => Ok(Empty),
            false => Err(Errno::EPROTO.into()),
        }
    }
}

/// Tell those who list jobs.
fn publish(context: &Context, ids: &[JobId]) {
    let payload = encode_json(&json!({ "jobs": ids })).ok().flatten();
    if let Err(failure) = context.handle().publish("job-purge-inactive", payload) {
        context.log(Severity::Err, format!("job-purge-inactive event: {failure}"));
    }
}

fn now() -> f64 {
    crate::time::unix_seconds(SystemTime::now())
}
