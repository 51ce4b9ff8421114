//! Throughput of jobs: submit many at once, and follow the journal until the last is inactive.

use std::collections::HashSet;
use std::time::Instant;

use clap::Args;
use flux_client::Client;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::jobspec::{Extras, Jobspec, TaskRequest};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{job_ingest, job_manager, resource};
use serde::Deserialize;
use serde_json::{Value, json};

use super::figures::{figure, percentiles};
use super::rounds::rate;
use crate::failure::Failure;
use crate::signing;

#[derive(Debug, Args)]
#[command(override_usage = "flux-bench jobs [OPTIONS] [COMMAND [ARGS...]]")]
pub(crate) struct Jobs {
    /// Number of jobs
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000)]
    count: usize,
    /// Simulate jobs that run for so many milliseconds, in place of processes
    #[arg(long, value_name = "MS")]
    simulate: Option<f64>,
    /// Submit, and do not wait for the jobs, as anybody but the owner has to
    #[arg(long)]
    submit_only: bool,
    /// What each job runs [default: true]
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Jobs {
    pub(super) async fn run(self, flux: &Client) -> Result<(), Failure> {
        let jobspec = self.jobspec()?;
        if !self.submit_only {
            // As many jobs run at a time, so that their number bounds the rate.
            figure("cores of the instance", cores(flux).await? as f64, "cores");
        }
        let following = match self.submit_only {
            true => None,
            false => Some(follow(flux.clone()).await?),
        };
        let begin = Instant::now();
        let mut open = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            // Each is signed, so that what signing costs is counted.
            let j = signing::sign(flux, jobspec.as_bytes()).await.map_err(Failure::new)?;
            let request = job_ingest::SubmitRequest { j, urgency: 16, flags: 0 };
            open.push(flux.start::<job_ingest::Submit>(Nodeid::ANY, &request)?);
        }
        let mut ids = Vec::with_capacity(self.count);
        for pending in open {
            ids.push(pending.await?.id);
        }
        let submitted = begin.elapsed();
        figure("submitted", rate(self.count, submitted), "jobs/s");
        let Some((following, ended)) = following else { return Ok(()) };
        let ends = until_inactive(following, ended, &ids).await?;
        let last = ends.iter().max().copied().unwrap_or(begin);
        let total = last.saturating_duration_since(begin);
        figure("submit to inactive", rate(self.count, total), "jobs/s");
        let times = ends.iter().map(|end| end.saturating_duration_since(begin)).collect();
        percentiles("time to inactive", times);
        Ok(())
    }

    fn jobspec(&self) -> Result<String, Failure> {
        let command = match self.command.is_empty() {
            true => vec!["true".to_owned()],
            false => self.command.clone(),
        };
        let extras = Extras {
            cwd: Some("/".to_owned()),
            environment: std::env::vars()
                .filter(|(name, _)| name == "PATH")
                .map(|(name, value)| (name, Value::String(value)))
                .collect(),
            ..Extras::default()
        };
        let mut jobspec = Jobspec::from_command(&TaskRequest::new(command), &extras)
            .and_then(|jobspec| jobspec.encode())
            .map_err(Failure::new)
            .and_then(|text| serde_json::from_str::<Value>(&text).map_err(Failure::new))?;
        if let Some(milliseconds) = self.simulate
            && let Some(system) = jobspec.pointer_mut("/attributes/system")
            && let Some(system) = system.as_object_mut()
        {
            let run_duration = format!("{}s", milliseconds / 1e3);
            system.insert("exec".to_owned(), json!({ "test": { "run_duration": run_duration } }));
        }
        Ok(jobspec.to_string())
    }
}

async fn cores(flux: &Client) -> Result<u64, Failure> {
    let resources = flux.rpc::<resource::SchedStatus>(Nodeid::ANY, &Empty).await?;
    Ok(ResourceSet::deserialize(&resources.all).map_or(0, |all| all.ncores()))
}

type Ended = tokio::sync::mpsc::UnboundedReceiver<(JobId, Instant)>;
type Following = tokio::task::JoinHandle<Result<(), Failure>>;

/// Report each job that ends from now on.
async fn follow(flux: Client) -> Result<(Following, Ended), Failure> {
    let request = job_manager::JournalRequest {
        full: false,
        allow: serde_json::from_value(json!({ "clean": 1 })).ok(),
        deny: None,
    };
    let mut journal = flux.stream::<job_manager::Journal>(Nodeid::ANY, &request)?;
    // The backlog of active jobs comes first, and an entry for job -1 after it.
    while let Some(entry) = journal.next().await? {
        if entry.id < 0 {
            break;
        }
    }
    let (sender, ended) = tokio::sync::mpsc::unbounded_channel();
    let following = tokio::spawn(async move {
        while let Some(entry) = journal.next().await? {
            let Ok(id) = u64::try_from(entry.id) else { continue };
            for event in &entry.events {
                let event: Event = serde_json::from_str(event.get()).map_err(Failure::new)?;
                if event.name == "clean" && sender.send((JobId(id), Instant::now())).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    });
    Ok((following, ended))
}

/// When each of these jobs became inactive.
async fn until_inactive(
    following: Following,
    mut ended: Ended,
    ids: &[JobId],
) -> Result<Vec<Instant>, Failure> {
    let mut waiting: HashSet<JobId> = ids.iter().copied().collect();
    let mut ends = Vec::with_capacity(ids.len());
    while !waiting.is_empty() {
        let Some((id, time)) = ended.recv().await else {
            return match following.await {
                Ok(Err(failure)) => Err(failure),
                _ => Err(Failure::new("the journal of the job manager ended early")),
            };
        };
        if waiting.remove(&id) {
            ends.push(time);
        }
    }
    following.abort();
    Ok(ends)
}
