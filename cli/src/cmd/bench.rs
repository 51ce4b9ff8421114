//! `flux bench`: how fast this instance is, as figures for comparison.
//!
//! Each benchmark works on the instance that it is connected to, with requests that any program
//! could send, and prints one line per figure: name, value, unit.

mod figures;
mod jobs;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Jobs from submission to inactive
    Jobs(jobs::Jobs),
}

impl Bench {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        match self.command {
            Command::Jobs(jobs) => jobs.run(&flux).await,
        }
        .map_err(|failure| failure.prefix("flux-bench"))?;
        Ok(0)
    }
}
