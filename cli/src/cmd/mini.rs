//! `flux mini`: the submission commands by the name that they had before.

use clap::{Args, Subcommand};

use crate::cmd::alloc::Alloc;
use crate::cmd::batch::Batch;
use crate::cmd::bulksubmit::BulkSubmit;
use crate::cmd::run::Run;
use crate::cmd::submit::Submit;
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Args)]
#[command(override_usage = "flux-mini COMMAND [OPTIONS...]")]
pub(crate) struct Mini {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// enqueue a job
    Submit(Submit),
    /// run a job interactively
    Run(Run),
    /// enqueue jobs in bulk
    #[command(name = "bulksubmit")]
    BulkSubmit(BulkSubmit),
    /// enqueue a batch script
    Batch(Batch),
    /// allocate a new instance for interactive use
    Alloc(Alloc),
}

impl Mini {
    /// As it was: a time limit without a unit is in seconds, refusals have their number.
    pub(crate) async fn run(self, mut context: Context) -> Outcome {
        if !context.args.is_empty() {
            context.args.remove(0);
        }
        match self.command {
            Verb::Submit(mut command) => {
                command.common.as_mini = true;
                command.run(context).await
            }
            Verb::Run(mut command) => {
                command.common.as_mini = true;
                command.run(context).await
            }
            Verb::BulkSubmit(mut command) => {
                command.common.as_mini = true;
                command.run(context).await
            }
            Verb::Batch(mut command) => {
                command.common.as_mini = true;
                command.run(context).await
            }
            Verb::Alloc(mut command) => {
                command.common.as_mini = true;
                command.run(context).await
            }
        }
    }
}
