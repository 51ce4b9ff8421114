//! `flux admin`: what runs when an instance ends, and what runs before and after each job.

mod scripts;

use std::io::Read as _;

use clap::{Args, Subcommand};
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::broker::{RunatPush, RunatPushRequest};

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};

#[derive(Debug, Args)]
#[command(override_usage = "flux-admin [OPTIONS] COMMAND ARGS")]
pub(crate) struct Admin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Push commands to be run when the initial program has ended
    #[command(override_usage = "flux-admin cleanup-push [COMMAND...]")]
    CleanupPush(CleanupPush),
    /// Show configured system scripts (prolog, epilog, housekeeping)
    #[command(override_usage = "flux-admin system-scripts [OPTIONS]")]
    SystemScripts(scripts::SystemScripts),
}

#[derive(Debug, Args)]
struct CleanupPush {
    /// Command line; without one, a command is read from each line of standard input
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Admin {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.command {
            Command::CleanupPush(command) => command.run(&context).await,
            Command::SystemScripts(command) => command.run(&context).await,
        }
    }
}

impl CleanupPush {
    async fn run(self, context: &Context) -> Outcome {
        let mut commands = if self.command.is_empty() {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| Failure::of("stdin", strerror(&e)))?;
            text.lines().map(|line| line.trim().to_owned()).collect()
        } else {
            vec![self.command.join(" ")]
        };
        // The last that is pushed runs first; these are to run in their order.
        commands.reverse();
        let flux = context.connect().await?;
        let request = RunatPushRequest { name: "cleanup".to_owned(), commands };
        let pushed = flux.rpc::<RunatPush>(Nodeid::ANY, &request).await;
        pushed.map_err(|e| Failure::of("ERROR", e))?;
        Ok(0)
    }
}
