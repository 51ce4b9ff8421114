//! Start: jobs are read back from the KVS, and their eventlogs applied again.

use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::{self, Event};
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::kvs;
use flux_protocol::treeobj::Treeobj;
use serde_json::Value;
use serde_json::value::RawValue;

use super::job::{Job, ReleaseContext, State};
use super::{Context, JobManager, queues};
use crate::handle::{Handle, Responses};
use crate::log::Severity;

/// Lookups under way at a time.
const WINDOW: usize = 256;

/// Fill the manager with the jobs of the KVS.
pub(super) async fn restore(manager: &mut JobManager, context: &Context) -> Result<(), Failure> {
    let handle = context.handle();
    let checkpoint = lookup(handle, queues::KEY).await?;
    manager.queues_begin(context, checkpoint.as_deref());
    if is_to_be_safe(context).await? {
        context.log(Severity::Err, queues::SAFE_MODE);
        manager.queues.enter_safe_mode();
    }
    let ids = job_ids(handle).await?;
    let count = ids.len();
    for window in ids.chunks(WINDOW) {
        let mut lookups = Vec::with_capacity(window.len());
        for id in window {
            lookups.push((*id, JobLookups::send(handle, *id)?));
        }
        for (id, lookups) in lookups {
            let added = lookups.wait(id).await.and_then(|(job, events)| {
                add(manager, job, &events).map_err(|text| Failure::new(Errno::EINVAL, text))
            });
            match added {
                Ok(()) => {}
                // The former instance ended before anybody was told of this job.
                Err(failure) if failure.errno == Errno::ENOENT => {
                    let op = kvs::Op { key: id.kvs(), flags: 0, dirent: None };
                    manager.store.push(context, op);
                }
                Err(failure) => {
                    let text = format!("job {} not replayed: {failure}", id.f58());
                    context.log(Severity::Err, text);
                    if failure.errno == Errno::EINVAL
                        && let Err(failure) = set_aside(manager, context, id).await
                    {
                        context.log(Severity::Err, format!("{}: {failure}", id.kvs()));
                    }
                }
            }
        }
    }
    if count > 0 {
        context.log(Severity::Debug, format!("restart: {count} jobs"));
    }
    let active: Vec<JobId> = manager.active_jobs().map(|job| job.id).collect();
    manager.plugins_remember(context);
    manager.plugins_restarted(context, &active);
    for id in active {
        resume(manager, context, id);
    }
    Ok(())
}

/// After a crash nobody knows why, and whether it will not happen again with the next job: an
/// administrator is to have a look first. A module that is loaded again in a running instance has
/// not been through a crash, whatever the log says.
async fn is_to_be_safe(context: &Context) -> Result<bool, Failure> {
    let broker = context.broker();
    let starts =
        broker.life().is_some_and(|life| *life.state().borrow() == crate::state::State::Init);
    if !starts || broker.attrs().get("broker.safe-mode").is_some_and(|value| value == "0") {
        return Ok(false);
    }
    crate::startlog::has_crashed(context.handle()).await
}

/// What can't be understood of a job is kept where an administrator can have a look at it, and where
/// no later start comes across it.
async fn set_aside(manager: &mut JobManager, context: &Context, id: JobId) -> Result<(), Failure> {
    let request = lookup_request(&id.kvs(), kvs::lookup::TREEOBJ);
    let found = context.handle().rpc::<kvs::Lookup>(&request).await?;
    let kept = format!("job-lost+found.job.{}", id.f58());
    manager.store.push(context, kvs::Op { key: kept, flags: 0, dirent: Some(found.val) });
    manager.store.push(context, kvs::Op { key: id.kvs(), flags: 0, dirent: None });
    Ok(())
}

fn add(manager: &mut JobManager, mut job: Job, events: &[Event]) -> Result<(), String> {
    let id = job.id;
    if let Some(first) = events.first().filter(|event| event.name != "submit") {
        return Err(format!("eventlog begins with {}", first.name));
    }
    let mut states = Vec::with_capacity(events.len());
    for event in events {
        let before = job.state;
        job.apply(event).map_err(|error| error.to_string())?;
        states.push((before, job.state));
    }
    for (before, after) in states {
        manager.drain.state_changed(before, after);
        manager.alloc_state_changed(id, before, after);
    }
    if job.state == State::New {
        // It was refused before the former instance could remove it.
        return Ok(());
    }
    manager.journal.restore(id, events);
    manager.max_jobid = manager.max_jobid.max(id);
    if job.state == State::Inactive {
        manager.purge.add(&job);
    } else {
        manager.wait.job_new(&job);
    }
    job.pending.restored = matches!(job.state, State::Run | State::Cleanup);
    manager.jobs.insert(id, job);
    Ok(())
}

/// Go on where the former instance ended.
fn resume(manager: &mut JobManager, context: &Context, id: JobId) {
    let Some(job) = manager.jobs.get_mut(&id) else { return };
    job.pending.reattach = job.state == State::Run && job.started;
    if job.state == State::Cleanup && job.started && !job.released {
        // It was to be posted when the epilog had ended.
        job.pending.release = Some(ReleaseContext { ranks: "all".to_owned(), is_final: true });
    }
    let started = job.pending.reattach;
    match job.state {
        State::Run if !started => manager.plugins_run_again(context, id),
        State::Sched => manager.post(context, id, "flux-restart"),
        State::Priority => manager.plugins_reprioritize(context, &[id]),
        _ => manager.act(context, id),
    }
}

/// The lookups of one job, on their way at once.
struct JobLookups {
    eventlog: Responses<kvs::Lookup>,
    jobspec: Responses<kvs::Lookup>,
    r: Responses<kvs::Lookup>,
}

impl JobLookups {
    fn send(handle: &Handle, id: JobId) -> Result<JobLookups, Failure> {
        let dir = id.kvs();
        Ok(JobLookups {
            eventlog: send_lookup(handle, &format!("{dir}.eventlog"))?,
            jobspec: send_lookup(handle, &format!("{dir}.jobspec"))?,
            r: send_lookup(handle, &format!("{dir}.R"))?,
        })
    }

    async fn wait(mut self, id: JobId) -> Result<(Job, Vec<Event>), Failure> {
        let invalid = |text: String| Failure::new(Errno::EINVAL, text);
        let eventlog = text_of(self.eventlog.next().await?.val)?;
        let events = eventlog::decode(&eventlog).map_err(|error| invalid(error.to_string()))?;
        let jobspec = self.jobspec.next().await.map_err(|failure| match failure.errno {
            Errno::ENOENT => invalid("there is no jobspec".to_owned()),
            _ => failure,
        })?;
        let jobspec = without_environment(&text_of(jobspec.val)?)?;
        let mut job = Job::new(id, jobspec);
        job.r = match self.r.next().await {
            Ok(response) => Some(raw(text_of(response.val)?)?),
            Err(failure) if failure.errno == Errno::ENOENT => None,
            Err(failure) => return Err(failure),
        };
        Ok((job, events))
    }
}

/// Ids of all jobs: the directories at the fourth level below `job`.
async fn job_ids(handle: &Handle) -> Result<Vec<JobId>, Failure> {
    let mut dirs = vec!["job".to_owned()];
    for _ in 0..4 {
        let mut below = Vec::new();
        for dir in dirs {
            for name in readdir(handle, &dir).await? {
                below.push(format!("{dir}.{name}"));
            }
        }
        dirs = below;
    }
    let mut ids: Vec<JobId> = dirs.iter().filter_map(|dir| dir.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

async fn readdir(handle: &Handle, key: &str) -> Result<Vec<String>, Failure> {
    let request = lookup_request(key, kvs::lookup::READDIR);
    match handle.rpc_to::<kvs::Lookup>(Nodeid::ANY, &request).await {
        Ok(response) => Ok(response
            .val
            .as_dir()
            .map(|dir| dir.keys().map(|name| name.to_string()).collect())
            .unwrap_or_default()),
        Err(failure) if failure.errno == Errno::ENOENT => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

/// The text of a key, or nothing when it does not exist.
pub(super) async fn lookup(handle: &Handle, key: &str) -> Result<Option<String>, Failure> {
    match handle.rpc::<kvs::Lookup>(&lookup_request(key, 0)).await {
        Ok(response) => Ok(Some(text_of(response.val)?)),
        Err(failure) if failure.errno == Errno::ENOENT => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn send_lookup(handle: &Handle, key: &str) -> Result<Responses<kvs::Lookup>, Failure> {
    handle.send::<kvs::Lookup>(Nodeid::ANY, Default::default(), &lookup_request(key, 0))
}

fn lookup_request(key: &str, flags: u32) -> kvs::LookupRequest {
    kvs::LookupRequest {
        key: key.to_owned(),
        namespace: Some(kvs::PRIMARY.to_owned()),
        flags,
        rootdir: None,
        rootseq: None,
    }
}

fn text_of(value: Treeobj) -> Result<String, Failure> {
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let Treeobj::Val(data) = value else {
        return Err(invalid("not a value".to_owned()));
    };
    let bytes = data.decode().map_err(|error| invalid(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| invalid(error.to_string()))
}

fn raw(text: String) -> Result<Rc<RawValue>, Failure> {
    RawValue::from_string(text)
        .map(Rc::from)
        .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))
}

/// The environment is long, and nobody here needs it.
fn without_environment(jobspec: &str) -> Result<Rc<RawValue>, Failure> {
    let invalid = |error: serde_json::Error| Failure::new(Errno::EINVAL, error.to_string());
    let mut value: Value = serde_json::from_str(jobspec).map_err(invalid)?;
    if let Some(system) = value.pointer_mut("/attributes/system").and_then(Value::as_object_mut) {
        system.shift_remove("environment");
    }
    serde_json::value::to_raw_value(&value).map(Rc::from).map_err(invalid)
}
