//! Which task of a job runs where (RFC 34): taskmap.

use clap::Args;
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::r::ResourceSet;
use flux_protocol::taskmap::{Form, Taskmap};
use serde_json::Value;

use super::info::lookup;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{jobwatch, outln};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job taskmap [OPTION] JOBID|TASKMAP")]
pub(super) struct TaskmapCommand {
    /// Print idset of tasks on node NODEID
    #[arg(long, value_name = "NODEID")]
    taskids: Option<u32>,
    /// Print number of tasks on node NODEID
    #[arg(long, value_name = "NODEID")]
    ntasks: Option<u32>,
    /// Print the shell rank/nodeid on which a taskid executed
    #[arg(long, value_name = "TASKID")]
    nodeid: Option<u32>,
    /// Print the hostname on which a taskid executed
    #[arg(long, value_name = "TASKID")]
    hostname: Option<u32>,
    /// Convert an RFC 34 taskmap to another format (FORMAT can be raw, pmi, hosts, or multiline)
    #[arg(long, value_name = "FORMAT")]
    to: Option<String>,
    #[arg(required = true, value_name = "JOBID|TASKMAP")]
    target: String,
}

/// A job and the way to it.
struct Job {
    flux: Client,
    id: JobId,
}

impl TaskmapCommand {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let (map, job) = match JobId::parse(&self.target) {
            Ok(id) => {
                let job = Job { flux: context.connect().await?, id };
                (job.taskmap().await?, Some(job))
            }
            Err(_) => {
                let map = Taskmap::decode(&self.target)
                    .map_err(|e| Failure::of("error decoding taskmap", e))?;
                (map, None)
            }
        };
        if let Some(node) = self.taskids {
            let tasks = map.taskids(node);
            if tasks.is_empty() {
                return Err(Failure::new(format_args!("No taskids for node {node}")));
            }
            outln!("{}", tasks.encode());
        } else if let Some(node) = self.ntasks {
            let count = map.ntasks(node);
            if count == 0 {
                let text = format_args!("failed to get task count for node {node}");
                return Err(Failure::new(text));
            }
            outln!("{count}");
        } else if let Some(task) = self.nodeid.or(self.hostname) {
            let node = map.nodeid(task).ok_or_else(|| {
                Failure::new(format_args!("failed to get nodeid for task {task}"))
            })?;
            if self.hostname.is_none() {
                outln!("{node}");
                return Ok(0);
            }
            let job =
                job.ok_or_else(|| Failure::new("taskmap: can't use --hostname without a jobid"))?;
            outln!("{}", host(&job.hosts().await?, node)?);
        } else {
            self.convert(&map, job.as_ref()).await?;
        }
        Ok(0)
    }

    async fn convert(&self, map: &Taskmap, job: Option<&Job>) -> Result<(), Failure> {
        let form = match self.to.as_deref() {
            None => Form::Json,
            Some("raw") => Form::Raw,
            Some("pmi") => Form::Pmi,
            Some("multiline") => {
                for task in 0..map.total_ntasks().unwrap_or_default() {
                    let node = u32::try_from(task).ok().and_then(|task| map.nodeid(task));
                    outln!("{task}: {}", node.unwrap_or_default());
                }
                return Ok(());
            }
            Some("hosts") => {
                let job = job
                    .ok_or_else(|| Failure::new("taskmap: can't use --to=hosts without a jobid"))?;
                let hosts = job.hosts().await?;
                for node in 0..map.nnodes().unwrap_or_default() {
                    let node = u32::try_from(node).unwrap_or(u32::MAX);
                    outln!("{}: {}", host(&hosts, node)?, map.taskids(node).encode());
                }
                return Ok(());
            }
            Some(to) => return Err(Failure::new(format_args!("invalid value --to={to}"))),
        };
        let text = map.encode(form).map_err(|e| Failure::of("failed to convert taskmap", e))?;
        outln!("{text}");
        Ok(())
    }
}

impl Job {
    /// What the shell has announced.
    async fn taskmap(&self) -> Result<Taskmap, Failure> {
        let failed = |e: flux_client::RpcError| match e.errno() {
            Errno::ENOENT => Failure::new("Unable to get job taskmap: no such job"),
            _ => Failure::of("waiting for shell.start event", e),
        };
        let mut events = jobwatch::watch(&self.flux, self.id, "guest.exec.eventlog", 0)?;
        while let Some(event) = events.next().await.map_err(failed)? {
            if event.name != "shell.start" {
                continue;
            }
            let context: Value = event.context_as().unwrap_or_default();
            return context
                .get("taskmap")
                .and_then(|map| Taskmap::decode_json(map).ok())
                .ok_or_else(|| Failure::new("failed to get taskmap from shell.start event"));
        }
        Err(Failure::new("No taskmap found for job"))
    }

    async fn hosts(&self) -> Result<Hostlist, Failure> {
        let r = lookup(&self.flux, self.id, "R", 0).await?;
        let set =
            ResourceSet::decode(&r).map_err(|_| Failure::new("failed to get hostlist for job"))?;
        Ok(set.nodelist())
    }
}

fn host(hosts: &Hostlist, node: u32) -> Result<String, Failure> {
    hosts
        .nth(u64::from(node))
        .ok_or_else(|| Failure::new(format_args!("failed to get hostname for nodeid {node}")))
}
