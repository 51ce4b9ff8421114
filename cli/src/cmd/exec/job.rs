//! Where a job runs, and the service of its shell that starts processes there.

use flux_client::{Client, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::idset::Idset;
use flux_protocol::payload::{decode_json, encode_json};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Job state bit: RUN.
const RUNNING: u32 = 16;
/// Flag of `job-info.eventlog-watch`: wait until there is a log.
const WAITCREATE: u32 = 1;

pub(super) struct Job {
    pub(super) ranks: Idset,
    pub(super) service: String,
}

#[derive(Serialize)]
struct ListRequest {
    id: u64,
    attrs: [&'static str; 2],
}

#[derive(Deserialize)]
struct ListResponse {
    job: Listed,
}

#[derive(Deserialize)]
struct Listed {
    state: u32,
    #[serde(default)]
    ranks: String,
}

#[derive(Serialize)]
struct WatchRequest {
    id: u64,
    path: &'static str,
    flags: u32,
}

#[derive(Deserialize)]
struct WatchResponse {
    event: String,
}

#[derive(Deserialize)]
struct ShellInit {
    service: String,
}

pub(super) async fn find(flux: &Client, jobid: &str) -> Result<Job, Failure> {
    let id = JobId::parse(jobid)
        .map_err(|_| Failure::new(format_args!("error parsing jobid: \"{jobid}\"")))?;
    let unable =
        |e: RpcError| Failure::of(format_args!("unable to get info for job {jobid}"), e.errno());
    let request = ListRequest { id: id.0, attrs: ["ranks", "state"] };
    let request =
        Request::new("job-list.list-id").payload(encode_json(&request).map_err(Failure::new)?);
    let message = flux.rpc_raw(request).await.map_err(|e| match e.errno() {
        Errno::ENOENT => Failure::new(format_args!("job {jobid} not found")),
        _ => unable(e),
    })?;
    let job = decode_json::<ListResponse>(message.payload.as_ref()).map_err(Failure::new)?.job;
    if job.state != RUNNING {
        return Err(Failure::new(format_args!("job {jobid} is not currently running")));
    }
    let ranks = Idset::decode(&job.ranks).ok().filter(|ranks| !ranks.is_empty());
    let ranks = ranks
        .ok_or_else(|| Failure::new(format_args!("failed to get assigned ranks for {jobid}")))?;
    let service = shell_service(flux, id)
        .await
        .ok_or_else(|| Failure::new(format_args!("failed to get shell.init event for {jobid}")))?;
    Ok(Job { ranks, service: format!("{service}.rexec") })
}

/// The shell announces its service in the job's eventlog.
async fn shell_service(flux: &Client, id: JobId) -> Option<String> {
    let request = WatchRequest { id: id.0, path: "guest.exec.eventlog", flags: WAITCREATE };
    let request = Request::new("job-info.eventlog-watch").payload(encode_json(&request).ok()?);
    let mut stream = flux.stream_raw(request).ok()?;
    while let Ok(Some(message)) = stream.next().await {
        let response: WatchResponse = decode_json(message.payload.as_ref()).ok()?;
        let event = Event::decode(&response.event).ok()?;
        if event.name == "shell.init" {
            return Some(event.context_as::<ShellInit>().ok()?.service);
        }
    }
    None
}
