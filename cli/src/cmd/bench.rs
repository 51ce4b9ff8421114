//! `flux bench`: how fast this instance is, as figures for comparison.
//!
//! Each benchmark but `start` works on the instance that it is connected to, with requests that any
//! program could send, and prints one line per figure: name, value, unit.

mod events;
mod figures;
mod jobs;
mod kvs;
mod memory;
mod rounds;
mod rpc;
mod start;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::{Failure, Outcome};

#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Requests to the local broker
    Rpc(rpc::Rpc),
    /// Requests to brokers at each depth of the tree
    Overlay(rpc::Overlay),
    /// Commits and lookups in the KVS
    Kvs(kvs::Kvs),
    /// Events, one by one and to many subscribers
    Event(events::Event),
    /// Jobs from submission to inactive
    Jobs(jobs::Jobs),
    /// Memory of the brokers on this host
    Memory(memory::Memory),
    /// Start instances of their own and end them
    Start(start::Start),
}

impl Bench {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        self.measure(context).await.map_err(|failure| failure.prefix("flux-bench"))?;
        Ok(0)
    }

    async fn measure(self, context: Context) -> Result<(), Failure> {
        match self.command {
            Command::Rpc(rpc) => rpc.run(&context.connect().await?).await,
            Command::Overlay(overlay) => overlay.run(&context.connect().await?).await,
            Command::Kvs(kvs) => kvs.run(&context.connect().await?).await,
            Command::Event(event) => event.run(&context.connect().await?).await,
            Command::Jobs(jobs) => jobs.run(&context.connect().await?).await,
            Command::Memory(memory) => memory.run(&context.connect().await?).await,
            Command::Start(start) => start.run(),
        }
    }
}
