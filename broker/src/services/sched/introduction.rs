//! What a scheduler plugin is told before the first request, and how many it says it takes.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{job_manager, kvs, resource};
use flux_protocol::treeobj::Treeobj;

use super::translate::{decode_r, targets};
use super::{Context, Sched, tell};
use crate::handle::Handle;
use crate::log::Severity;
use crate::plugin::types::{Change, Depth, RunningJob};
use crate::plugin::{Scheduler, resource_record};

/// Tell the plugin of the resources and of the jobs that hold some, before the first request.
pub(super) async fn introduce(context: &Context, scheduler: &Scheduler) -> Result<(), Failure> {
    let handle = context.handle();
    let mut updates =
        handle.stream::<resource::Acquire>(Nodeid(0), &resource::AcquireRequest { grow: true })?;
    let first = updates.next().await?;
    let inventory = first.resources.ok_or(Errno::EPROTO)?;
    let inventory = decode_r(&inventory.to_string())?;
    let mut changes = vec![Change::Resources(resource_record(&inventory))];
    changes.extend(first.up.filter(|up| !up.is_empty()).map(Change::Up));
    let running = running_jobs(handle).await?;
    let count = running.len() as u64;
    context.later(move |sched: &mut Sched| sched.allocated += count);
    changes.push(Change::Hello(running));
    tell(scheduler, changes).await?;
    let after = context.clone();
    tokio::task::spawn_local(async move {
        while let Ok(update) = updates.next().await {
            let then = after.clone();
            after.later(move |sched: &mut Sched| sched.resources_changed(&then, update));
        }
    });
    Ok(())
}

/// Jobs that hold resources; what they hold stands in the KVS.
async fn running_jobs(handle: &Handle) -> Result<Vec<RunningJob>, Failure> {
    let request = job_manager::SchedHelloRequest { partial_ok: false };
    let mut jobs = handle.stream::<job_manager::SchedHello>(Nodeid(0), &request)?;
    let mut hello = Vec::new();
    loop {
        match jobs.next().await {
            Ok(job) => hello.push(job),
            Err(failure) if failure.errno == Errno::ENODATA => break,
            Err(failure) => return Err(failure),
        }
    }
    let mut running = Vec::with_capacity(hello.len());
    for job in hello {
        let r = lookup_r(handle, job.id).await?;
        running.push(RunningJob {
            id: job.id.0,
            userid: job.userid,
            priority: u32::try_from(job.priority).unwrap_or(0),
            t_submit: job.t_submit,
            allocation: targets(&r),
            expiration: r.expiration,
        });
    }
    Ok(running)
}

async fn lookup_r(handle: &Handle, id: JobId) -> Result<ResourceSet, Failure> {
    let invalid = |text: String| Failure::new(Errno::EINVAL, format!("{}: R: {text}", id.f58()));
    let request = kvs::LookupRequest {
        key: format!("{}.R", id.kvs()),
        namespace: Some(kvs::PRIMARY.to_owned()),
        flags: 0,
        rootdir: None,
        rootseq: None,
    };
    let Treeobj::Val(data) = handle.rpc::<kvs::Lookup>(&request).await?.val else {
        return Err(invalid("not a value".to_owned()));
    };
    let bytes = data.decode().map_err(|error| invalid(error.to_string()))?;
    decode_r(&String::from_utf8_lossy(&bytes))
}

/// Say how many requests the plugin takes at a time.
pub(super) async fn be_ready(context: &Context, scheduler: &Scheduler) -> Result<(), Failure> {
    let depth = scheduler.ready().await;
    let depth = depth.map_err(|error| Failure::new(Errno::EIO, error.to_string()))?;
    context.handle().rpc::<job_manager::SchedReady>(&ready_request(depth)).await?;
    Ok(())
}

fn ready_request(depth: Depth) -> job_manager::SchedReadyRequest {
    let (mode, limit) = match depth {
        Depth::Unlimited => ("unlimited", None),
        Depth::Limited(limit) => ("limited", Some(limit.max(1))),
    };
    job_manager::SchedReadyRequest { mode: mode.to_owned(), limit }
}

/// The scheduler takes another number of requests at a time than it said.
pub(super) fn tell_depth(context: &Context, depth: Depth) {
    let (handle, after) = (context.handle().clone(), context.clone());
    context.spawn(
        async move { handle.rpc::<job_manager::SchedReady>(&ready_request(depth)).await },
        move |_: &mut Sched, result| {
            if let Err(failure) = result {
                after.log(Severity::Err, format!("sched-ready: {failure}"));
            }
        },
    );
}
