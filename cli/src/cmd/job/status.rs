//! The end of jobs: status, wait.

use clap::{ArgAction, Args};
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_manager::{self, WaitRequest, WaitResponse};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::jobwatch::{self, End};
use crate::signal::Ended;
use crate::{jobid, outln};

/// Any job that can be waited for.
const ANY: i64 = -1;

#[derive(Debug, Args)]
#[command(override_usage = "flux-job status id [id...]")]
pub(super) struct Status {
    /// Increase verbosity
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Set the default exit code for any jobs that terminate solely due to an exception (e.g.
    /// canceled jobs or jobs rejected by the scheduler) to N [default=1]
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    exception_exit_code: u8,
    /// Dump job result information gleaned from eventlog to stdout
    #[arg(short, long)]
    json: bool,
    #[arg(required = true, value_name = "id")]
    ids: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job wait [--all] [id]")]
pub(super) struct Wait {
    /// Wait for all (waitable) jobs
    #[arg(short, long)]
    all: bool,
    /// Emit a line of output for all jobs, not just failing ones
    #[arg(short, long)]
    verbose: bool,
    id: Option<String>,
}

impl Status {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let mut ids = Vec::new();
        for text in &self.ids {
            ids.push((text, jobid::parse(text)?));
        }
        let many = self.verbose > 0 && ids.len() > 1;
        if many {
            eprintln!("flux-job: fetching status for {} jobs", ids.len());
        }
        let mut ends = Vec::new();
        for (text, id) in ids {
            let end = jobwatch::result(&flux, id).await.map_err(|e| match e.errno() {
                Errno::ENOENT => Failure::new(format_args!("{text}: No such job")),
                _ => Failure::new(format_args!("{text}: flux_job_wait_status_get: {e}")),
            })?;
            ends.push((text, id, end));
        }
        if many {
            eprintln!("flux-job: all done.");
        }
        let mut code = 0;
        for (text, id, end) in &ends {
            if self.json {
                outln!("{}", end.to_json(*id));
            }
            code = code.max(end.code(self.exception_exit_code));
            if self.verbose > 0 {
                self.tell(text, end);
            }
        }
        Ok(code)
    }

    fn tell(&self, text: &str, end: &End) {
        let ended = Ended::from_status(end.waitstatus.unwrap_or_default());
        match (ended, end.fatal()) {
            (Ended::Killed(signal), _) => {
                eprintln!("flux-job: {text}: job shell died by signal {signal}");
            }
            (Ended::Exited(0), _) if self.verbose == 1 => {}
            (_, Some(exception)) => {
                eprintln!("flux-job: {text}: exception type={}", exception.kind);
            }
            (Ended::Exited(code), None) => {
                eprintln!("flux-job: {text}: exited with exit code {code}");
            }
        }
    }
}

impl Wait {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let id = self.id.as_deref().map(jobid::parse).transpose()?;
        if self.all && id.is_some() {
            return Err(Failure::new("jobid not supported with --all"));
        }
        let flux = context.connect().await?;
        if self.all {
            return self.all(&flux).await;
        }
        let wanted = id.map_or(ANY, |id| i64::try_from(id.0).unwrap_or(ANY));
        let ended = match wait(&flux, wanted).await {
            Ok(ended) => ended,
            Err(e) => {
                eprintln!("flux-job: {e}");
                // There is nothing to wait for.
                return Ok(if e.errno() == Errno::ECHILD { 2 } else { 1 });
            }
        };
        if id.is_none() {
            outln!("{}", jobid::f58(ended.id));
        }
        if ended.success { Ok(0) } else { Err(Failure::new(ended.errstr)) }
    }

    async fn all(&self, flux: &Client) -> Outcome {
        let mut code = 0;
        loop {
            let ended = match wait(flux, ANY).await {
                Ok(ended) => ended,
                Err(e) if e.errno() == Errno::ECHILD => return Ok(code),
                Err(e) => return Err(Failure::of("flux_job_wait_get_status", e)),
            };
            let name = jobid::f58(ended.id);
            if !ended.success {
                eprintln!("{name}: {}", ended.errstr);
                code = 1;
            } else if self.verbose {
                eprintln!("{name}: job completed successfully");
            }
        }
    }
}

async fn wait(flux: &Client, id: i64) -> Result<WaitResponse, flux_client::RpcError> {
    flux.rpc::<job_manager::Wait>(Nodeid::ANY, &WaitRequest { id }).await
}
