//! `flux post-job-event`: an event of any name in a job's eventlog, for tests and integrations.

use clap::Args;
use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_manager::{self, PostEventRequest};

use super::jobs::bad_id;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::settings;

#[derive(Debug, Args)]
#[command(override_usage = "flux-post-job-event ID NAME [KEY=VALUE...]")]
pub(crate) struct PostJobEvent {
    /// jobid to which event shall be posted
    #[arg(required = true, value_name = "ID")]
    id: String,
    /// name of event to post
    #[arg(required = true, value_name = "NAME")]
    name: String,
    /// List of key=value pairs to set as event context
    #[arg(trailing_var_arg = true, value_name = "KEY=VALUE")]
    context: Vec<String>,
}

impl PostJobEvent {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let id = JobId::parse(&self.id).map_err(|_| bad_id("flux-post-job-event", &self.id))?;
        let about =
            (!self.context.is_empty()).then(|| settings::object(&self.context)).transpose()?;
        let flux = context.connect().await?;
        let request = PostEventRequest { id, name: self.name, context: about };
        let posted = flux.rpc::<job_manager::PostEvent>(Nodeid::ANY, &request).await;
        posted.map_err(|e| match e.errno() {
            Errno::ENOENT => Failure::new(format_args!("ERROR: No such job {}", self.id)),
            _ => Failure::of("ERROR", e),
        })?;
        Ok(0)
    }
}
