//! `flux uri`: the URI of an instance by job id, process id or place in the hierarchy, or by the
//! job of another batch system that it runs in.

mod foreign;

use std::path::Path;

use clap::Args;
use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::{job_info, job_list};
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::outln;

/// Job state bit: RUN.
const RUNNING: u64 = 16;

#[derive(Debug, Args)]
#[command(
    override_usage = "flux-uri [-h] [--remote] [--local] [--wait] TARGET",
    after_help = "Supported resolver schemes:
  jobid  the instance of a Flux job, by a path of job ids; the default
  pid    the instance of a local process, or of a broker
  slurm  the instance that runs in a job of Slurm
  lsf    the instance that runs in a job of IBM Spectrum LSF
  local, ssh
         are URIs already"
)]
pub(crate) struct Uri {
    /// convert a local URI to remote
    #[arg(long)]
    remote: bool,
    /// convert a remote URI to local
    #[arg(long)]
    local: bool,
    /// wait for a URI to become available, if supported
    #[arg(long)]
    wait: bool,
    /// A Flux jobid or URI in scheme:argument form (e.g. jobid:f1234)
    #[arg(value_name = "TARGET")]
    target: String,
}

/// Why a target has no URI.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("{0} is not a valid jobid")]
    NoJobid(String),
    #[error("jobid {0} not found")]
    NotFound(String),
    #[error("jobid {0} is not running")]
    NotRunning(String),
    #[error("URI not found for job {0}")]
    NoUri(String),
    #[error("PID {0} doesn't seem to have a FLUX_URI")]
    NoProcessUri(String),
    #[error("PID {0} is a flux-broker and no child found: it runs no initial program")]
    NoChild(String),
    #[error("No resolver for URI scheme {0}: use jobid, pid, slurm, lsf, local or ssh")]
    Scheme(String),
    #[error("only one of 'local' and 'remote' can be asked for")]
    LocalAndRemote,
    #[error("{0}")]
    Foreign(String),
    #[error("cannot convert {0} to a {1} URI")]
    Convert(String, &'static str),
    #[error("{0}")]
    Rpc(#[from] RpcError),
    #[error("{0}")]
    Open(String),
}

impl Uri {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let error = |e: ResolveError| Failure::new(format_args!("ERROR: {e}"));
        let uri = resolve(&context, &self.target, self.wait).await.map_err(error)?;
        let local = self.local || context.env.get("FLUX_URI_RESOLVE_LOCAL").is_some();
        let uri = match (self.remote, local) {
            (true, _) => to_remote(&uri).map_err(error)?,
            (false, true) => to_local(&uri).map_err(error)?,
            (false, false) => uri,
        };
        outln!("{uri}");
        Ok(0)
    }
}

/// The URI of the instance that `target` names; `wait` for a job that has none yet.
pub(crate) async fn resolve(
    context: &Context,
    target: &str,
    wait: bool,
) -> Result<String, ResolveError> {
    let (target, query) = target.split_once('?').unwrap_or((target, ""));
    let asks = |what: &str| query.split('&').any(|part| part == what);
    if asks("local") && asks("remote") {
        return Err(ResolveError::LocalAndRemote);
    }
    let (scheme, rest) = match target.split_once(':') {
        Some((scheme, rest)) => (scheme, rest),
        None => ("jobid", target),
    };
    let uri = match scheme {
        "local" | "ssh" => target.to_owned(),
        "jobid" => hierarchy(context, rest, wait || asks("wait"), asks("local")).await?,
        "pid" => process(rest)?,
        "slurm" => foreign::slurm(context, rest)?,
        "lsf" if asks("is_compute") => foreign::lsf_here(rest)?,
        "lsf" => foreign::lsf(context, rest)?,
        other => return Err(ResolveError::Scheme(other.to_owned())),
    };
    let force_local = context.env.get("FLUX_URI_RESOLVE_LOCAL").is_some();
    if asks("local") || (force_local && !asks("remote")) {
        to_local(&uri)
    } else if asks("remote") {
        to_remote(&uri)
    } else {
        Ok(uri)
    }
}

/// Job ids, `..` for the enclosing instance and a leading `/` for the outermost one.
async fn hierarchy(
    context: &Context,
    path: &str,
    wait: bool,
    local: bool,
) -> Result<String, ResolveError> {
    let local = local || context.env.get("FLUX_URI_RESOLVE_LOCAL").is_some();
    let uri = context.env.get("FLUX_URI").map(str::to_owned);
    let mut flux = open(&uri.unwrap_or_else(flux_client::default_uri)).await?;
    let mut steps: Vec<&str> = path.split('/').filter(|step| !matches!(*step, "" | ".")).collect();
    if path.starts_with('/') {
        steps.insert(0, "/");
    }
    let mut uri = flux.attr("local-uri").await?;
    // Of the last job on the way: what is local to it is not local to us.
    let mut host: Option<String> = None;
    for (n, step) in steps.iter().enumerate() {
        if n > 0 {
            let next = if local { to_local(&uri)? } else { uri.clone() };
            flux = open(&next).await?;
        }
        uri = match *step {
            "/" => outermost(flux.clone()).await?,
            ".." => {
                let parent = enclosing(&flux).await?;
                match &host {
                    Some(host) => to_remote_at(&parent, host)?,
                    None => parent,
                }
            }
            jobid => {
                let uri = job(&flux, jobid, wait).await?;
                host = authority(&uri).map(str::to_owned);
                uri
            }
        };
    }
    Ok(uri)
}

async fn enclosing(flux: &Client) -> Result<String, ResolveError> {
    let level = flux.attr("instance-level").await?;
    Ok(flux.attr(if level == "0" { "local-uri" } else { "parent-uri" }).await?)
}

async fn outermost(mut flux: Client) -> Result<String, ResolveError> {
    while flux.attr("instance-level").await? != "0" {
        flux = open(&enclosing(&flux).await?).await?;
    }
    Ok(flux.attr("local-uri").await?)
}

/// The URI that the broker of a job has left in its annotations.
async fn job(flux: &Client, jobid: &str, wait: bool) -> Result<String, ResolveError> {
    let id = JobId::parse(jobid).map_err(|_| ResolveError::NoJobid(jobid.to_owned()))?;
    if wait {
        return wait_for_memo(flux, id, jobid).await;
    }
    let request = job_list::ListIdRequest {
        id,
        attrs: vec!["state".to_owned(), "annotations".to_owned()],
        state: None,
    };
    let job = match flux.rpc::<job_list::ListId>(Nodeid::ANY, &request).await {
        Ok(response) => response.job,
        Err(e) if e.errno() == Errno::ENOENT => {
            return Err(ResolveError::NotFound(jobid.to_owned()));
        }
        Err(e) => return Err(e.into()),
    };
    if job.get("state").and_then(Value::as_u64) != Some(RUNNING) {
        return Err(ResolveError::NotRunning(jobid.to_owned()));
    }
    let user = job.get("annotations").and_then(|annotations| annotations.get("user"));
    let uri = user.and_then(|user| user.get("uri")).and_then(Value::as_str);
    uri.map(str::to_owned).ok_or_else(|| ResolveError::NoUri(jobid.to_owned()))
}

async fn wait_for_memo(flux: &Client, id: JobId, jobid: &str) -> Result<String, ResolveError> {
    let request = job_info::EventlogWatchRequest { id, path: "eventlog".to_owned(), flags: 0 };
    let mut events = flux.stream::<job_info::EventlogWatch>(Nodeid::ANY, &request)?;
    loop {
        let response = match events.next().await {
            Ok(Some(response)) => response,
            Ok(None) => return Err(ResolveError::NoUri(jobid.to_owned())),
            Err(e) if e.errno() == Errno::ENOENT => {
                return Err(ResolveError::NotFound(jobid.to_owned()));
            }
            Err(e) => return Err(e.into()),
        };
        let Ok(event) = Event::decode(&response.event) else { continue };
        let uri = event
            .context_as::<Value>()
            .ok()
            .and_then(|context| context.get("uri")?.as_str().map(str::to_owned));
        match (event.name.as_str(), uri) {
            ("memo", Some(uri)) => return Ok(uri),
            ("finish", _) => return Err(ResolveError::NoUri(jobid.to_owned())),
            _ => {}
        }
    }
}

/// From the environment of a process, or of a broker's first child.
fn process(pid: &str) -> Result<String, ResolveError> {
    let missing = || ResolveError::NoProcessUri(pid.to_owned());
    let proc = Path::new("/proc");
    let name = std::fs::read_to_string(proc.join(pid).join("comm")).map_err(|_| missing())?;
    let child = match name.trim().starts_with("flux-broker") {
        true => {
            let children = proc.join(pid).join("task").join(pid).join("children");
            let children = std::fs::read_to_string(children).map_err(|_| missing())?;
            let first = children.split_whitespace().next();
            first.ok_or_else(|| ResolveError::NoChild(pid.to_owned()))?.to_owned()
        }
        false => pid.to_owned(),
    };
    let environ = std::fs::read(proc.join(child).join("environ")).map_err(|_| missing())?;
    let uri = environ.split(|&byte| byte == 0).find_map(|var| var.strip_prefix(b"FLUX_URI="));
    uri.map(|uri| String::from_utf8_lossy(uri).into_owned()).ok_or_else(missing)
}

async fn open(uri: &str) -> Result<Client, ResolveError> {
    Client::open(Some(uri)).await.map_err(|e| ResolveError::Open(format!("{uri}: {e}")))
}

/// `HOST` of `ssh://HOST/PATH`.
pub(crate) fn authority(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix("ssh://")?;
    rest.split_once('/').map(|(authority, _)| authority)
}

fn to_remote(uri: &str) -> Result<String, ResolveError> {
    if uri.starts_with("ssh://") {
        return Ok(uri.to_owned());
    }
    let host = nix::unistd::gethostname().unwrap_or_default();
    to_remote_at(uri, &host.to_string_lossy())
}

fn to_remote_at(uri: &str, host: &str) -> Result<String, ResolveError> {
    match uri.strip_prefix("local://") {
        Some(path) => Ok(format!("ssh://{host}{path}")),
        None if uri.starts_with("ssh://") => Ok(uri.to_owned()),
        None => Err(ResolveError::Convert(uri.to_owned(), "remote")),
    }
}

pub(crate) fn to_local(uri: &str) -> Result<String, ResolveError> {
    if uri.starts_with("local://") {
        return Ok(uri.to_owned());
    }
    match uri.strip_prefix("ssh://").and_then(|rest| rest.split_once('/')) {
        Some((_, path)) => Ok(format!("local:///{path}")),
        None => Err(ResolveError::Convert(uri.to_owned(), "local")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_convert_both_ways() {
        assert_eq!(to_remote_at("local:///run/x", "h").unwrap(), "ssh://h/run/x");
        assert_eq!(to_local("ssh://u@h:22/run/x").unwrap(), "local:///run/x");
        assert_eq!(authority("ssh://u@h:22/run/x"), Some("u@h:22"));
        assert!(to_local("tcp://x").is_err());
    }
}
