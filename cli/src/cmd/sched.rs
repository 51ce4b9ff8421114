//! `flux sched`: what the scheduler has to say.

use clap::{Args, Subcommand};

use crate::cmd::job::Why;
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Args)]
#[command(override_usage = "flux sched COMMAND")]
pub(crate) struct Sched {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say why a job waits, when it may start, and what would make it run
    Explain(Why),
}

impl Sched {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let Command::Explain(why) = self.command;
        why.run(&context).await
    }
}
