//! `flux housekeeping`: what is done on nodes after a job, before others may have them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use flux_client::{Client, Request};
use flux_protocol::fluid::JobId;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::decode_json;
use flux_protocol::rpc::job_manager as rpc;
use serde::Deserialize;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::listing::named::{Builtin, Formats};
use crate::listing::{Listing, Print, Row, Value};
use crate::{jobid, target};

const FORMATS: Formats = Formats {
    command: "flux-housekeeping",
    subcommand: Some("list"),
    tables: &["list"],
    builtin: &[
        Builtin {
            name: "default",
            description: "Default flux-housekeeping format string",
            format: "{id.f58:>12} {nnodes:>6} {pending.nnodes:>7} {runtime!F:>8} {nodelist}",
        },
        Builtin {
            name: "pending",
            description: "flux-housekeeping format string including active nodes only",
            format: "{id.f58:>12} {pending.nnodes:>7} {runtime!F:>8} {pending.nodelist}",
        },
    ],
};

#[derive(Debug, Args)]
#[command(override_usage = "flux-housekeeping list|kill [OPTIONS]")]
pub(crate) struct Housekeeping {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List running housekeeping
    #[command(override_usage = "flux-housekeeping list [OPTIONS]")]
    List(List),
    /// Send a signal to housekeeping
    #[command(override_usage = "flux-housekeeping kill [OPTIONS]")]
    Kill(Kill),
}

#[derive(Debug, Args)]
struct List {
    /// Limit output to housekeeping jobs on HOSTS|RANKS
    #[arg(short, long, value_name = "HOSTS|RANKS")]
    include: Option<String>,
    /// Suppress printing of header line
    #[arg(short, long)]
    no_header: bool,
    /// Specify output format using Python's string format syntax or a defined format by name (use
    /// 'help' to get a list of names)
    #[arg(short = 'o', long, default_value = "default", hide_default_value = true)]
    format: String,
}

#[derive(Debug, Args)]
struct Kill {
    /// Specify signal number to send to housekeeping task
    #[arg(short, long, value_name = "SIGNUM", default_value_t = 15)]
    signal: i64,
    /// Only target specific ranks or hostnames
    #[arg(short, long, value_name = "RANKS|HOSTS")]
    targets: Option<String>,
    /// Target housekeeping tasks for this jobid
    #[arg(short, long)]
    jobid: Option<String>,
    /// Kill all active housekeeping tasks
    #[arg(long)]
    all: bool,
}

#[derive(Deserialize)]
struct Stats {
    housekeeping: Running,
}

#[derive(Deserialize)]
struct Running {
    /// By job id in F58.
    running: BTreeMap<String, OfJob>,
}

#[derive(Deserialize)]
struct OfJob {
    t_start: f64,
    pending: String,
    allocated: String,
}

/// Housekeeping of a job.
struct Line {
    id: JobId,
    t_start: f64,
    runtime: f64,
    /// Where it still runs.
    pending: Nodes,
    /// What is not free yet.
    allocated: Nodes,
}

struct Nodes {
    ranks: Idset,
    hosts: Hostlist,
}

impl Housekeeping {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        match self.command {
            Command::List(list) => list.run(&context, &flux).await,
            Command::Kill(kill) => kill.run(&flux).await,
        }
    }
}

impl List {
    async fn run(self, context: &Context, flux: &Client) -> Outcome {
        let Some(format) = FORMATS.choose(&context.env, &self.format)? else { return Ok(0) };
        let listing = Listing::parse(&format, heading).map_err(Failure::new)?;
        let hosts = target::hostlist(flux).await?;
        let include = match &self.include {
            Some(include) => Some(target::ranks(&hosts, include).map_err(Failure::new)?),
            None => None,
        };
        let response = flux.rpc_raw(Request::new("job-manager.stats-get")).await?;
        let stats: Stats = decode_json(response.payload.as_ref()).map_err(Failure::new)?;
        let mut lines = Vec::new();
        for (id, of_job) in stats.housekeeping.running {
            let line = Line::new(jobid::parse(&id)?, &of_job, &hosts, include.as_ref())?;
            if !line.allocated.ranks.is_empty() {
                lines.push(line);
            }
        }
        let print = Print { no_header: self.no_header, width: None };
        listing.print(&mut lines, print).map_err(Failure::new)?;
        Ok(0)
    }
}

impl Kill {
    async fn run(self, flux: &Client) -> Outcome {
        if self.jobid.is_none() && self.targets.is_none() && !self.all {
            return Err(Failure::new("specify at least one of --targets, --jobid, or --all"));
        }
        if self.jobid.is_some() && self.all {
            return Err(Failure::new("do not specify --jobid with --all"));
        }
        let ranks = match &self.targets {
            None => None,
            Some(targets) => {
                let hosts = target::hostlist(flux).await?;
                Some(target::ranks(&hosts, targets).map_err(Failure::new)?.encode())
            }
        };
        let jobid = self.jobid.as_deref().map(jobid::parse).transpose()?;
        let request = rpc::HousekeepingKillRequest { signum: self.signal, jobid, ranks };
        flux.rpc::<rpc::HousekeepingKill>(Nodeid(0), &request).await?;
        Ok(0)
    }
}

impl Line {
    fn new(
        id: JobId,
        of_job: &OfJob,
        hosts: &Hostlist,
        include: Option<&Idset>,
    ) -> Result<Line, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Line {
            id,
            t_start: of_job.t_start,
            runtime: now.as_secs_f64() - of_job.t_start,
            pending: Nodes::new(&of_job.pending, hosts, include)?,
            allocated: Nodes::new(&of_job.allocated, hosts, include)?,
        })
    }
}

impl Nodes {
    fn new(ranks: &str, all: &Hostlist, include: Option<&Idset>) -> Result<Nodes, Failure> {
        let ranks = Idset::decode(ranks).map_err(|e| Failure::of("ranks", e))?;
        let ranks = include.map_or(ranks.clone(), |include| ranks.intersect(include));
        let mut hosts = Hostlist::new();
        for host in ranks.iter().filter_map(|rank| all.nth(u64::from(rank))) {
            hosts.push_host(&host);
        }
        Ok(Nodes { ranks, hosts })
    }

    fn field(&self, name: &str) -> Value {
        match name {
            "ranks" => self.ranks.encode().into(),
            "nodelist" => self.hosts.encode().into(),
            "nnodes" => i64::try_from(self.ranks.count()).map_or(Value::None, Value::Int),
            _ => Value::None,
        }
    }
}

impl Row for Line {
    fn field(&self, name: &str) -> Value {
        match name.split_once('.') {
            Some(("id", encoding)) => jobid::field(self.id, encoding),
            Some(("allocated", name)) => self.allocated.field(name),
            Some(("pending", name)) => self.pending.field(name),
            Some(_) => Value::None,
            None => match name {
                "id" => Value::Id(self.id),
                "t_start" => Value::Float(self.t_start),
                "runtime" => Value::Float(self.runtime),
                name => self.allocated.field(name),
            },
        }
    }
}

fn heading(field: &str) -> Option<Cow<'static, str>> {
    let heading = match field.strip_prefix("allocated.").unwrap_or(field) {
        "ranks" => "RANKS",
        "nodelist" => "NODELIST",
        "nnodes" => "NNODES",
        "t_start" => "T_START",
        "runtime" => "RUNTIME",
        "pending.ranks" => "ACTIVE_RANKS",
        "pending.nodelist" => "ACTIVE_NODES",
        "pending.nnodes" => "#ACTIVE",
        "id" | "id.dec" | "id.hex" | "id.f58" | "id.f58plain" | "id.emoji" | "id.kvs"
        | "id.words" | "id.dothex" => "JOBID",
        _ => return None,
    };
    Some(Cow::Borrowed(heading))
}
