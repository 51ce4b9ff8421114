//! Storing jobs and handing them to the job manager, many at a time.

use std::time::SystemTime;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::job_ingest::SubmitResponse;
use flux_protocol::rpc::{job_manager, kvs};
use flux_protocol::treeobj::Treeobj;
use serde_json::value::RawValue;

use super::pipeline::without_environment;
use super::request::Request;
use super::{Context, JobIngest, MANAGER};
use crate::call::Call;
use crate::handle::Handle;

/// Jobs in one batch at most.
const LIMIT: usize = 1000;

/// Jobs that wait for the batch before them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    waiting: Vec<Entry>,
    busy: bool,
}

#[derive(Debug)]
struct Entry {
    request: Request,
    t_submit: f64,
    call: Call<SubmitResponse>,
}

impl Batch {
    pub(super) fn add(&mut self, context: &Context, request: Request, call: Call<SubmitResponse>) {
        let t_submit = crate::time::unix_seconds(SystemTime::now());
        self.waiting.push(Entry { request, t_submit, call });
        self.send_later(context);
    }

    /// In a later turn, so that requests that came together go together.
    fn send_later(&mut self, context: &Context) {
        if !self.busy && !self.waiting.is_empty() {
            self.busy = true;
            let after = context.clone();
            context.later(move |ingest: &mut JobIngest| ingest.batch.send(&after));
        }
    }

    fn send(&mut self, context: &Context) {
        // Plugins may be done with a later one first.
        self.waiting.sort_by_key(|entry| entry.request.id);
        let rest = self.waiting.split_off(self.waiting.len().min(LIMIT));
        let entries = std::mem::replace(&mut self.waiting, rest);
        let handle = context.handle().clone();
        let after = context.clone();
        context.spawn(
            async move {
                let result = hand_over(&handle, &entries).await;
                (entries, result)
            },
            move |ingest: &mut JobIngest, (entries, result)| {
                let spans = after.broker().spans();
                if spans.wanted() {
                    for Entry { request, .. } in &entries {
                        let submit = request.began.end("job-ingest.submit", None);
                        spans.step(request.id, &submit, &request.judged);
                    }
                }
                answer(entries, &result);
                ingest.batch.busy = false;
                ingest.batch.send_later(&after);
            },
        );
    }
}

/// Store, then submit. What the job manager refuses is removed again, and what it never got; one
/// that it got and could not store has an eventlog, and stays.
async fn hand_over(
    handle: &Handle,
    entries: &[Entry],
) -> Result<job_manager::SubmitResponse, Failure> {
    commit(handle, entries.iter().flat_map(store_ops).collect()).await?;
    let mut jobs = Vec::with_capacity(entries.len());
    for entry in entries {
        jobs.push(new_job(entry)?);
    }
    let submitted =
        handle.rpc_to::<job_manager::Submit>(MANAGER, &job_manager::SubmitRequest { jobs }).await;
    let refused: Vec<JobId> = match &submitted {
        Ok(response) => response.errors.iter().map(|(id, _)| *id).collect(),
        Err(failure) if failure.errno == Errno::ENOSYS => {
            entries.iter().map(|entry| entry.request.id).collect()
        }
        Err(_) => Vec::new(),
    };
    if !refused.is_empty() {
        let ops = refused
            .into_iter()
            .map(|id| kvs::Op { key: id.kvs(), flags: 0, dirent: None })
            .collect();
        commit(handle, ops).await?;
    }
    submitted
}

fn answer(entries: Vec<Entry>, result: &Result<job_manager::SubmitResponse, Failure>) {
    match result {
        Err(failure) => {
            for entry in entries {
                entry.call.fail(failure.clone());
            }
        }
        Ok(response) => {
            for entry in entries {
                match response.errors.iter().find(|(id, _)| *id == entry.request.id) {
                    None => entry.call.reply(&SubmitResponse { id: entry.request.id }),
                    Some((_, text)) => {
                        entry.call.fail(Failure::new(Errno::EINVAL, text.clone()));
                    }
                }
            }
        }
    }
}

fn store_ops(entry: &Entry) -> [kvs::Op; 2] {
    let dir = entry.request.id.kvs();
    let op = |key: &str, text: &str| kvs::Op {
        key: format!("{dir}.{key}"),
        flags: 0,
        dirent: Some(Treeobj::val(text.as_bytes())),
    };
    [op("J", &entry.request.j), op("jobspec", &entry.request.jobspec.to_string())]
}

async fn commit(handle: &Handle, ops: Vec<kvs::Op>) -> Result<(), Failure> {
    let namespace = kvs::PRIMARY.to_owned();
    handle.rpc::<kvs::Commit>(&kvs::CommitRequest { namespace, flags: 0, ops }).await?;
    Ok(())
}

fn new_job(entry: &Entry) -> Result<job_manager::NewJob, Failure> {
    let jobspec = RawValue::from_string(without_environment(&entry.request.jobspec))
        .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
    Ok(job_manager::NewJob {
        id: entry.request.id,
        userid: entry.request.userid,
        urgency: entry.request.urgency,
        t_submit: entry.t_submit,
        flags: entry.request.flags,
        jobspec,
        signed: entry.request.signed.clone(),
    })
}
