//! `flux overlay`: the tree of brokers.

use std::time::Duration;

use clap::{Args, Subcommand};
use flux_client::Client;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::overlay;

use self::topology::Topology;
use crate::args::duration;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::target::{hostlist, ranks_of_hosts};
use crate::trace::TraceOptions;
use crate::{outln, output};

mod errors;
mod status;
mod topology;

#[derive(Debug, Args)]
pub(crate) struct Overlay {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Display overlay subtree health status
    Status(status::Status),
    /// Summarize overlay errors
    Errors {
        /// Set RPC timeout, 0=disable (default 0.5s)
        #[arg(short, long, value_name = "FSD", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Trace messages received on overlay network
    #[command(override_usage = "flux overlay trace [OPTIONS] [topic-glob]")]
    Trace {
        /// Filter output by peer rank
        #[arg(short, long, value_name = "NODEID")]
        rank: Option<u32>,
        #[command(flatten)]
        options: TraceOptions,
        #[arg(default_value = "*")]
        topic_glob: String,
    },
    /// translate rank idset to hostlist or the reverse
    #[command(override_usage = "flux overlay lookup [OPTIONS] TARGET")]
    Lookup { target: String },
    /// show the parent of RANK
    #[command(override_usage = "flux overlay parentof [OPTIONS] RANK")]
    Parentof { rank: u32 },
    /// disconnect a subtree rooted at TARGET (hostname or rank)
    #[command(override_usage = "flux overlay disconnect [OPTIONS] TARGET")]
    Disconnect {
        /// Set parent rank to NODEID (default: determine from topology)
        #[arg(short = 'r', long, value_name = "NODEID")]
        parent: Option<u32>,
        target: String,
    },
}

impl Overlay {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        match self.command {
            Command::Status(status) => status.run(&flux).await,
            Command::Errors { timeout } => errors::run(&flux, timeout).await,
            Command::Trace { rank, options, topic_glob } => {
                trace(&flux, rank, &options, topic_glob).await
            }
            Command::Lookup { target } => {
                outln!("{}", lookup(&hostlist(&flux).await?, &target)?);
                Ok(0)
            }
            Command::Parentof { rank } => {
                outln!("{}", Topology::get(&flux).await?.parent_of(rank)?);
                Ok(0)
            }
            Command::Disconnect { parent, target } => disconnect(&flux, parent, &target).await,
        }
    }
}

async fn trace(
    flux: &Client,
    rank: Option<u32>,
    options: &TraceOptions,
    topic_glob: String,
) -> Outcome {
    let mut tracer = options.tracer()?;
    let request = overlay::TraceRequest {
        typemask: options.typemask()?,
        topic_glob,
        nodeid: rank.map_or(-1, i64::from),
        full: options.full,
    };
    let mut stream = flux.stream::<overlay::Trace>(Nodeid::ANY, &request)?;
    while let Some(message) = stream.next().await? {
        let peer = match message.rank {
            rank if rank < 0 => "*".to_owned(),
            rank => rank.to_string(),
        };
        let who = format!("{} {peer}", message.prefix);
        outln!("{}", tracer.format(&who, &message));
        output::flush();
    }
    Ok(0)
}

/// Ranks to hosts, or hosts to ranks.
fn lookup(hosts: &Hostlist, target: &str) -> Result<String, Failure> {
    if let Ok(ranks) = Idset::decode(target) {
        let mut found = Hostlist::new();
        for rank in ranks.iter() {
            let host = hosts
                .nth(u64::from(rank))
                .ok_or_else(|| Failure::new(format_args!("rank {rank} is not in host map")))?;
            found.push_host(&host);
        }
        return Ok(found.encode());
    }
    Ok(ranks_of_hosts(hosts, target).map_err(Failure::new)?.encode())
}

async fn disconnect(flux: &Client, parent: Option<u32>, target: &str) -> Outcome {
    let hosts = hostlist(flux).await?;
    let rank = match target.parse() {
        Ok(rank) => rank,
        Err(_) => hosts
            .find(target)
            .ok()
            .and_then(|rank| u32::try_from(rank).ok())
            .ok_or_else(|| Failure::new("TARGET must be a valid rank or hostname"))?,
    };
    let parent = match parent {
        Some(parent) => parent,
        None => Topology::get(flux).await?.parent_of(rank)?,
    };
    let host = |rank: u32| hosts.nth(u64::from(rank)).unwrap_or_else(|| "(null)".to_owned());
    eprintln!(
        "flux-overlay: asking {} (rank {parent}) to disconnect child {} (rank {rank})",
        host(parent),
        host(rank)
    );
    flux.rpc::<overlay::DisconnectSubtree>(Nodeid(parent), &overlay::RankRequest { rank })
        .await
        .map_err(|e| Failure::of("overlay.disconnect-subtree", e))?;
    Ok(0)
}
