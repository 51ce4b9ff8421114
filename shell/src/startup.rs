//! Connecting to the broker and learning about the job, in as few round trips as there can be.

use flux_client::{Client, Events, Request, Service};
use flux_protocol::fluid::JobId;
use flux_protocol::message::{Nodeid, Topic};
use flux_protocol::payload::{Object, Payload as _, decode_json};
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{Method as _, job_info};
use serde_json::Value;

use crate::fatal::Fatal;
use crate::job::{self, Job};
use crate::jobspec::Jobspec;
use crate::layout::Layout;
use crate::log::Log;

/// Set by the IMP, in an environment that nobody else can set it in.
const VERIFY: &str = "FLUX_SHELL_VERIFY";

/// A shell that is ready to be set up.
pub(crate) struct Startup {
    pub(crate) flux: Client,
    /// `shell-ID.` events.
    pub(crate) events: Events,
    pub(crate) service: Service,
    pub(crate) job: Job,
    /// The broker's directory.
    pub(crate) rundir: Option<String>,
    /// Ids of the enclosing jobs.
    pub(crate) jobid_path: String,
}

/// A shell that has failed early, with its connection if there is one.
#[derive(Debug)]
pub(crate) struct EarlyFatal {
    pub(crate) fatal: Fatal,
    pub(crate) flux: Option<Client>,
}

impl Startup {
    pub(crate) async fn new(id: JobId, log: &Log) -> Result<Startup, EarlyFatal> {
        let flux = Client::open(None).await.map_err(|e| EarlyFatal {
            fatal: Fatal::new(None, format!("flux_open: {e}")),
            flux: None,
        })?;
        let connected = flux.clone();
        Startup::connected(flux, id, log)
            .await
            .map_err(|fatal| EarlyFatal { fatal, flux: Some(connected) })
    }

    async fn connected(flux: Client, id: JobId, log: &Log) -> Result<Startup, Fatal> {
        let userid = nix::unistd::getuid().as_raw();
        let name = format!("{userid}-shell-{}", id.f58_plain());
        let keys = vec!["J".to_owned(), "R".to_owned()];
        let lookup = job_info::LookupRequest { id, keys, flags: 0 };
        let payload = lookup.encode().map_err(|e| Fatal::new(None, e))?;
        let topic = Topic::from_static(job_info::Lookup::TOPIC);
        let lookup = Request::new(topic).to(Nodeid::ANY).payload(payload);

        // None waits for another: all are sent before the first answer comes.
        let prefix = format!("shell-{}.", id.0);
        let (info, rank, events, service, rundir, jobid_path) = tokio::join!(
            flux.rpc_raw(lookup),
            flux.attr("rank"),
            flux.subscribe(&prefix),
            flux.register(&name),
            flux.attr("rundir"),
            flux.attr("jobid-path"),
        );
        let info = info.map_err(|e| failed(log, format_args!("job-info: {e}")))?;
        let owner = info.cred.userid.0;
        let info: Object = decode_json(info.payload.as_ref())
            .map_err(|e| failed(log, format_args!("job-info: {e}")))?;
        let rank =
            rank.map_err(|e| failed(log, format_args!("error fetching broker rank: {e}")))?;
        let (jobspec, r) = parse(&info).map_err(|text| failed(log, text))?;
        if jobspec.version != 1 {
            let version = jobspec.version;
            log.warn(None, format_args!("Unsupported jobspec version: expected 1 got {version}"));
        }
        let job = assemble(id, name, (userid, owner), &rank, jobspec, &r)
            .map_err(|text| failed(log, text))?;
        let events = events
            .map_err(|e| Fatal::new(None, format!("shell subscribe: flux_event_subscribe: {e}")))?;
        let service = service.map_err(|e| Fatal::new(None, format!("shell_svc_create: {e}")))?;
        Ok(Startup {
            flux,
            events,
            service,
            job,
            rundir: rundir.ok(),
            jobid_path: jobid_path.unwrap_or_else(|_| "/".to_owned()),
        })
    }
}

fn parse(info: &Object) -> Result<(Jobspec, ResourceSet), String> {
    let text = |key: &str| {
        let value = info.get(key).and_then(Value::as_str);
        value.ok_or_else(|| format!("job-info: no {key} in response"))
    };
    let r = ResourceSet::decode(text("R")?).map_err(|e| format!("error decoding R: {e}"))?;
    let j = text("J")?;
    if std::env::var_os(VERIFY).is_some() {
        verify(j)?;
    }
    let jobspec = Jobspec::unwrap(j).map_err(|e| e.to_string())?;
    Ok((jobspec, r))
}

/// The IMP has started this shell as the user that signed a job request. That it is this one, as
/// it comes from an instance of somebody else, is for the shell to find out.
fn verify(j: &str) -> Result<(), String> {
    let userid = nix::unistd::getuid().as_raw();
    let signed = flux_sign::Config::load(0)
        .and_then(|config| flux_sign::unwrap(&config, j, userid))
        .map_err(|error| format!("signature validation failed: {error}"))?;
    match signed.userid == userid {
        true => Ok(()),
        false => Err(format!("the job request of user {} is not ours to run", signed.userid)),
    }
}

fn assemble(
    id: JobId,
    service: String,
    (userid, owner): (u32, u32),
    rank: &str,
    jobspec: Jobspec,
    r: &ResourceSet,
) -> Result<Job, String> {
    let layout = Layout::new(&jobspec, r).map_err(|e| e.to_string())?;
    let broker_rank: u32 = rank.parse().map_err(|_| format!("broker rank {rank:?} is invalid"))?;
    let shell_rank = layout
        .shell_rank(broker_rank)
        .ok_or_else(|| format!("error fetching rankinfo for rank {broker_rank}"))?;
    let hostname = nix::unistd::gethostname()
        .map_err(|e| format!("gethostname: {}", e.desc()))?
        .to_string_lossy()
        .into_owned();
    let namespace = std::env::var("FLUX_KVS_NAMESPACE").unwrap_or_else(|_| format!("job-{}", id.0));
    Ok(Job {
        id,
        f58: job::f58(id, &jobspec.environment),
        namespace,
        service,
        hostname,
        userid,
        owner,
        broker_rank,
        shell_rank,
        jobspec,
        layout,
        expiration: r.expiration,
    })
}

/// Say why, and that this is the end.
fn failed(log: &Log, why: impl std::fmt::Display) -> Fatal {
    log.error(None, why);
    Fatal::new(None, "failed to initialize shell info")
}
