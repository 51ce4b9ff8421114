//! `flux job hostpids`: the processes of a job's tasks, for tools that attach to them.

use std::time::Duration;

use clap::Args;
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::proctable::Row;
use flux_protocol::rpc::job_info::watch;
use flux_protocol::rpc::job_list::{self, ListIdRequest};
use serde::Deserialize;
use serde_json::Value;

use crate::args::{duration, within};
use crate::attach::debugger;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::joblist::ACTIVE;
use crate::{jobid, jobwatch, outln};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job hostpids [OPTIONS] JOBID")]
pub(super) struct Hostpids {
    /// Set output delimiter (default=",")
    #[arg(short, long, value_name = "STRING", default_value = ",", hide_default_value = true)]
    delimiter: String,
    /// Include only task ranks in IDSET
    #[arg(short, long, value_name = "IDSET", default_value = "all", hide_default_value = true)]
    ranks: String,
    /// timeout after DURATION
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    #[arg(required = true, value_name = "JOBID")]
    id: String,
}

/// What the job's shell says of itself.
#[derive(Deserialize)]
struct ShellInit {
    service: String,
    #[serde(rename = "leader-rank")]
    leader_rank: u32,
}

impl Hostpids {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let ranks: Option<Idset> = match self.ranks.as_str() {
            "all" => None,
            ranks => {
                Some(ranks.parse().map_err(|e| Failure::of(format_args!("--ranks={ranks}"), e))?)
            }
        };
        let id = jobid::parse(&self.id)?;
        let flux = context.connect().await?;
        self.check(&flux, id).await?;
        let rows = within(self.timeout, processes(&flux, id)).await;
        let rows =
            rows.ok_or_else(|| Failure::new("hostpids: timeout waiting for shell.start event"))??;
        let is_wanted = |row: &&Row| {
            ranks
                .as_ref()
                .is_none_or(|ranks| u32::try_from(row.task).is_ok_and(|task| ranks.contains(task)))
        };
        let shown: Vec<String> =
            rows.iter().filter(is_wanted).map(|row| format!("{}:{}", row.host, row.pid)).collect();
        // Shells pass the two characters on as they are.
        let delimiter = if self.delimiter == "\\n" { "\n" } else { &self.delimiter };
        outln!("{}", shown.join(delimiter));
        Ok(0)
    }

    async fn check(&self, flux: &Client, id: JobId) -> Result<(), Failure> {
        let request = ListIdRequest { id, attrs: vec!["state".to_owned()], state: None };
        let listed = flux.rpc::<job_list::ListId>(Nodeid::ANY, &request).await;
        let job = listed.map_err(|e| match e.errno() {
            Errno::ENOENT => Failure::of(&self.id, "No such job"),
            _ => Failure::of(format_args!("job list failed for {}", self.id), e),
        })?;
        let state = job.job.get("state").and_then(Value::as_u64).unwrap_or_default();
        if state & u64::from(ACTIVE) == 0 {
            return Err(Failure::new(format_args!("hostpids: job {} is inactive", self.id)));
        }
        Ok(())
    }
}

/// Once the tasks have been started.
async fn processes(flux: &Client, id: JobId) -> Result<Vec<Row>, Failure> {
    let failed = |e: flux_client::RpcError| match e.errno() {
        Errno::EPERM => Failure::new("hostpids: Permission denied"),
        _ => Failure::of("flux_job_event_watch_get", e),
    };
    let mut events = jobwatch::watch(flux, id, "guest.exec.eventlog", watch::WAITCREATE)?;
    let mut shell: Option<ShellInit> = None;
    while let Some(event) = events.next().await.map_err(failed)? {
        match (event.name.as_str(), &shell) {
            ("shell.init", _) => {
                let decoded = event.context_as();
                shell = Some(decoded.map_err(|e| Failure::of("shell.init", e))?);
            }
            ("shell.start", Some(shell)) => {
                return debugger::processes(flux, &shell.service, Nodeid(shell.leader_rank)).await;
            }
            _ => {}
        }
    }
    Err(Failure::new("failed to get MPIR_proctable from job shell"))
}
