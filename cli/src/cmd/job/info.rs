//! What is kept about jobs: info, stats, memo, timeleft.

use std::io::Read;

use clap::Args;
use flux_client::{Client, Request};
use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object, text};
use flux_protocol::rpc::job_info::{self, LookupRequest};
use flux_protocol::rpc::job_list::{self, ListIdRequest};
use flux_protocol::rpc::job_manager::{self, MemoRequest};
use flux_protocol::rpc::resource;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::joblist::{JobInfo, State};
use crate::{jobid, outln, when};

#[derive(Debug, Args)]
#[command(override_usage = "flux job info id key
some useful keys are:
  J                    - signed jobspec
  R                    - allocated resources
  eventlog             - primary job eventlog
  jobspec              - job specification
  guest.exec.eventlog  - execution eventlog
  guest.input          - job input log
  guest.output         - job output log
Use flux job info -h to list available options")]
pub(super) struct Info {
    /// For key "jobspec", return the original submitted jobspec
    #[arg(short, long)]
    original: bool,
    /// For key "jobspec" or "R", do not apply updates from eventlog
    #[arg(short, long)]
    base: bool,
    #[arg(required = true)]
    id: String,
    #[arg(required = true)]
    key: String,
}

#[derive(Debug, Args)]
pub(super) struct Stats {}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job memo [--volatile] id key=value [key=value, ...]")]
pub(super) struct Memo {
    /// Memo will not appear in eventlog (will be lost on restart)
    #[arg(long)]
    volatile: bool,
    #[arg(required = true)]
    id: String,
    #[arg(required = true, value_name = "key=value")]
    values: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job timeleft [JOBID]")]
pub(super) struct Timeleft {
    /// Output in Flux Standard Duration instead of seconds.
    #[arg(short = 'H', long)]
    human: bool,
    id: Option<String>,
}

impl Info {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let id = jobid::parse(&self.id)?;
        let flux = context.connect().await?;
        let key = self.key.as_str();
        if self.original && key == "jobspec" {
            let signed = lookup(&flux, id, "J", 0).await?;
            let unwrap =
                |e: &dyn std::fmt::Display| Failure::of("Failed to unwrap J to get jobspec", e);
            let envelope = flux_sign::decode(signed.trim()).map_err(|e| unwrap(&e))?;
            let jobspec = String::from_utf8(envelope.payload).map_err(|e| unwrap(&e))?;
            outln!("{jobspec}");
            return Ok(0);
        }
        let current = !self.base && ["R", "jobspec"].contains(&key);
        let flags = if current { job_info::lookup::CURRENT } else { 0 };
        outln!("{}", lookup(&flux, id, key, flags).await?);
        Ok(0)
    }
}

/// A value of the job's directory as text.
pub(super) async fn lookup(
    flux: &Client,
    id: JobId,
    key: &str,
    flags: u32,
) -> Result<String, Failure> {
    let request = LookupRequest { id, keys: vec![key.to_owned()], flags: i64::from(flags) };
    let response = flux.rpc::<job_info::Lookup>(Nodeid::ANY, &request).await?;
    Ok(response.get(key).and_then(Value::as_str).unwrap_or_default().to_owned())
}

impl Stats {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let request = Request::new("job-list.job-stats");
        let response = flux.rpc_raw(request).await.map_err(|e| Failure::of("stats", e))?;
        outln!("{}", text(response.payload.as_ref()).map_err(Failure::new)?);
        Ok(0)
    }
}

impl Memo {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let id = jobid::parse(&self.id)?;
        let mut memo = Object::new();
        for pair in &self.values {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Failure::new(format_args!("memo: no value for key={pair}")))?;
            let value = match value {
                "-" => {
                    let mut text = String::new();
                    std::io::stdin()
                        .read_to_string(&mut text)
                        .map_err(|e| Failure::of("read_all", crate::failure::strerror(&e)))?;
                    text
                }
                value => value.to_owned(),
            };
            let value = serde_json::from_str(&value).unwrap_or_else(|_| json!(value));
            set_path(&mut memo, key, value);
        }
        let request = MemoRequest { id, memo, volatile: self.volatile };
        flux.rpc::<job_manager::Memo>(Nodeid::ANY, &request)
            .await
            .map_err(|e| Failure::of("memo", e))?;
        Ok(0)
    }
}

/// `a.b=1` is an object in an object.
fn set_path(object: &mut Object, path: &str, value: Value) {
    let Some((name, rest)) = path.split_once('.') else {
        object.insert(path.to_owned(), value);
        return;
    };
    let inner = object.entry(name).or_insert_with(|| json!({}));
    if !inner.is_object() {
        *inner = json!({});
    }
    if let Some(inner) = inner.as_object_mut() {
        set_path(inner, rest, value);
    }
}

impl Timeleft {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let id = self.id.as_deref().or_else(|| context.env.get("FLUX_JOB_ID"));
        let expiration = match id {
            Some(id) => job_expiration(&flux, id).await?,
            None => instance_expiration(&flux).await?,
        };
        let left =
            if expiration == 0.0 { f64::INFINITY } else { (expiration - when::now()).max(0.0) };
        if self.human {
            outln!("{}", flux_protocol::fsd::format(left).map_err(Failure::new)?);
        } else {
            outln!("{}", whole_seconds(left));
        }
        Ok(0)
    }
}

/// A job with a bit of time left has not expired.
fn whole_seconds(left: f64) -> u64 {
    if left.is_infinite() {
        return u64::from(u32::MAX);
    }
    if left > 0.0 && left < 1.0 { 1 } else { left as u64 }
}

/// Seconds since 1970; 0 is never.
async fn job_expiration(flux: &Client, text: &str) -> Result<f64, Failure> {
    let id = JobId::parse(text)
        .map_err(|_| Failure::new(format_args!("failed to parse jobid {text}")))?;
    let attrs = vec!["expiration".to_owned(), "state".to_owned()];
    let request = ListIdRequest { id, attrs, state: None };
    let response =
        flux.rpc::<job_list::ListId>(Nodeid::ANY, &request).await.map_err(|e| match e.errno() {
            Errno::ENOENT => Failure::new(format_args!("{text}: no such jobid")),
            _ => Failure::new(format_args!("flux_job_list_id: {text}: {e}")),
        })?;
    let job = JobInfo::new(Value::Object(response.job));
    match job.as_ref().and_then(JobInfo::state) {
        Some(State::Run) => Ok(job.map_or(0.0, |job| job.float("expiration"))),
        Some(State::Cleanup | State::Inactive) => Ok(1.0),
        _ => Err(Failure::new(format_args!("job {text} has not started"))),
    }
}

async fn instance_expiration(flux: &Client) -> Result<f64, Failure> {
    let status = flux
        .rpc::<resource::Status>(Nodeid::ANY, &Empty)
        .await
        .map_err(|_| Failure::new("failed to get instance expiration"))?;
    let execution = status.r.get("execution");
    Ok(execution.and_then(|e| e.get("expiration")).and_then(Value::as_f64).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_in_memos_lead_into_objects() {
        let mut memo = Object::new();
        set_path(&mut memo, "a.b", json!(1));
        set_path(&mut memo, "a.c", json!("x"));
        set_path(&mut memo, "d", Value::Null);
        assert_eq!(Value::Object(memo), json!({ "a": { "b": 1, "c": "x" }, "d": null }));
    }

    #[test]
    fn a_bit_of_time_is_a_second() {
        assert_eq!(whole_seconds(0.2), 1);
        assert_eq!(whole_seconds(61.9), 61);
        assert_eq!(whole_seconds(0.0), 0);
        assert_eq!(whole_seconds(f64::INFINITY), 4_294_967_295);
    }
}
