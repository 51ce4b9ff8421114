//! `flux job-exec-override`: start and finish simulated jobs by hand.

use clap::{Args, Subcommand};
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_exec::{self as rpc, OverrideRequest};

use super::jobs::bad_id;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job-exec-override start|finish JOBID [STATUS]")]
pub(crate) struct JobExecOverride {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a job that was submitted with exec.test.override
    #[command(override_usage = "flux-job-exec-override start JOBID")]
    Start {
        /// target JOBID
        #[arg(required = true, value_name = "JOBID")]
        jobid: String,
    },
    /// Finish a job that was started so
    #[command(override_usage = "flux-job-exec-override finish JOBID STATUS")]
    Finish {
        /// target JOBID
        #[arg(required = true, value_name = "JOBID")]
        jobid: String,
        /// finish wait status
        #[arg(required = true, value_name = "STATUS", allow_hyphen_values = true)]
        status: i32,
    },
}

impl JobExecOverride {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let (event, text, status) = match self.command {
            Command::Start { jobid } => ("start", jobid, None),
            Command::Finish { jobid, status } => ("finish", jobid, Some(status)),
        };
        let jobid = JobId::parse(&text).map_err(|_| bad_id("flux-job-exec-override", &text))?;
        let flux = context.connect().await?;
        let request = OverrideRequest { event: event.to_owned(), jobid, status };
        let answer = flux.rpc::<rpc::Override>(Nodeid::ANY, &request).await;
        answer.map_err(|error| Failure::of("ERROR", error))?;
        Ok(0)
    }
}
