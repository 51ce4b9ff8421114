//! `flux update`: change attributes of jobs that are active.

use clap::Args;
use flux_client::Client;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::fsd;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Object;
use flux_protocol::rpc::{job_info, job_manager};
use serde_json::{Value, json};

use super::jobs::bad_id;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{jobid, outln, when};

#[derive(Debug, Args)]
#[command(override_usage = "flux-update [OPTIONS] JOBID KEY=VALUE [KEY=VALUE...]")]
pub(crate) struct Update {
    /// Do not apply any updates, just emit update payload to stdout
    #[arg(short = 'n', long, alias = "dry")]
    dry_run: bool,
    /// Be more verbose. Log updated items after success.
    #[arg(short, long)]
    verbose: bool,
    /// Wait for updates to appear in job eventlog before exiting
    #[arg(long)]
    wait: bool,
    /// Target jobid
    #[arg(value_name = "JOBID", required = true)]
    jobid: String,
    /// Requested jobspec updates in KEY=VALUE form
    #[arg(value_name = "KEY=VALUE", required = true)]
    updates: Vec<String>,
}

const DURATION: &str = "attributes.system.duration";

impl Update {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let id = JobId::parse(&self.jobid).map_err(|_| bad_id("flux-update", &self.jobid))?;
        let start = when::now();
        let mut flux = None;
        let mut updates: Vec<(String, Value)> = Vec::new();
        for update in &self.updates {
            let (key, value) = update.split_once('=').unwrap_or((update, ""));
            let key = full_key(key);
            let value = if key != DURATION {
                serde_json::from_str(value).unwrap_or_else(|_| json!(value))
            } else if value.starts_with(['+', '-']) {
                let flux = connected(&context, &mut flux).await?;
                json!(changed_duration(flux, id, value).await?)
            } else {
                json!(limit(duration(value)?))
            };
            updates.retain(|(known, _)| *known != key);
            updates.push((key, value));
        }
        let object: Object = updates.iter().cloned().collect();
        if self.dry_run {
            let texts = updates.iter().map(|(key, value)| format!("{}: {value}", json!(key)));
            outln!("{{{}}}", texts.collect::<Vec<_>>().join(", "));
            return Ok(0);
        }
        let flux = connected(&context, &mut flux).await?;
        let request = job_manager::UpdateRequest { id, updates: object };
        flux.rpc::<job_manager::Update>(Nodeid::ANY, &request).await.map_err(error)?;
        if self.wait {
            wait_for(flux, id, start, &request.updates).await?;
        }
        if self.verbose {
            for (key, value) in &updates {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                eprintln!("flux-update: INFO: updated {key} to {value}");
            }
        }
        Ok(0)
    }
}

async fn connected<'a>(
    context: &Context,
    flux: &'a mut Option<Client>,
) -> Result<&'a Client, Failure> {
    let client = match flux.take() {
        Some(client) => client,
        None => context.connect().await?,
    };
    Ok(flux.insert(client))
}

/// Keys stand below `attributes.system` unless they say otherwise.
fn full_key(key: &str) -> String {
    if key == "name" {
        return "attributes.system.job.name".to_owned();
    }
    if ["attributes.", "resources.", "tasks."].iter().any(|prefix| key.starts_with(prefix)) {
        return key.to_owned();
    }
    format!("attributes.system.{key}")
}

fn duration(text: &str) -> Result<f64, Failure> {
    fsd::python_parse(text).map_err(error)
}

/// No limit is 0 in a jobspec.
fn limit(duration: f64) -> f64 {
    if duration.is_infinite() { 0.0 } else { duration }
}

/// The job's duration, longer or shorter by `change`.
async fn changed_duration(flux: &Client, id: JobId, change: &str) -> Result<f64, Failure> {
    let request = job_info::LookupRequest {
        id,
        keys: vec!["jobspec".to_owned()],
        flags: i64::from(job_info::lookup::CURRENT),
    };
    let response = flux.rpc::<job_info::Lookup>(Nodeid::ANY, &request).await.map_err(error)?;
    let jobspec = response.get("jobspec").and_then(Value::as_str).unwrap_or_default();
    let jobspec: Value = serde_json::from_str(jobspec).map_err(error)?;
    let current = DURATION.split('.').try_fold(&jobspec, |json, name| json.get(name));
    let current = current.and_then(Value::as_f64).unwrap_or_default();
    let name = jobid::f58(id);
    if current == 0.0 {
        return Err(error(format_args!(
            "duration for {name} is unlimited, can't update by {change}"
        )));
    }
    let by = duration(change.get(1..).unwrap_or_default())?;
    if change.starts_with('+') {
        return Ok(limit(current + by));
    }
    if current - by <= 0.0 {
        return Err(error(format_args!(
            "current duration for {name} ({}) cannot be reduced by {}",
            fsd::python_format(current),
            change.get(1..).unwrap_or_default()
        )));
    }
    Ok(current - by)
}

/// Wait for the event that tells of these updates; older ones may say the same.
async fn wait_for(flux: &Client, id: JobId, start: f64, updates: &Object) -> Result<(), Failure> {
    let request = job_info::EventlogWatchRequest { id, path: "eventlog".to_owned(), flags: 0 };
    let mut events = flux.stream::<job_info::EventlogWatch>(Nodeid::ANY, &request)?;
    while let Some(response) = events.next().await.map_err(error)? {
        let Ok(event) = Event::decode(&response.event) else { continue };
        if event.name != "jobspec-update" || event.timestamp <= start {
            continue;
        }
        let context: Object = event.context_as().unwrap_or_default();
        if updates.iter().all(|(key, value)| context.get(key) == Some(value)) {
            return Ok(());
        }
    }
    Ok(())
}

fn error(text: impl std::fmt::Display) -> Failure {
    Failure::new(format_args!("ERROR: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_keys_are_attributes_of_the_system() {
        assert_eq!(full_key("duration"), DURATION);
        assert_eq!(full_key("name"), "attributes.system.job.name");
        assert_eq!(full_key("attributes.user.x"), "attributes.user.x");
    }

    #[test]
    fn no_limit_is_zero() {
        assert_eq!(limit(duration("inf").unwrap()), 0.0);
        assert_eq!(limit(duration("1m").unwrap()), 60.0);
        assert!(duration("soon").is_err());
    }
}
