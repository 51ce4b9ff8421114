//! Round trips of a request that a broker answers at once.

use clap::Args;
use flux_client::Client;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::attr;

use super::rounds::Rounds;
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(override_usage = "flux-bench rpc [OPTIONS]")]
pub(crate) struct Rpc {
    /// Number of requests
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20_000)]
    count: usize,
    /// How many at a time in the second part
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    parallel: usize,
}

/// Of the broker at each depth of the tree.
#[derive(Debug, Args)]
#[command(override_usage = "flux-bench overlay [OPTIONS]")]
pub(crate) struct Overlay {
    /// Number of requests to each broker
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5_000)]
    count: usize,
    /// How many at a time in the second part
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    parallel: usize,
}

impl Rpc {
    pub(super) async fn run(self, flux: &Client) -> Result<(), Failure> {
        let rounds = Rounds { count: self.count, parallel: self.parallel };
        round_trips(flux, &rounds, "rpc", Nodeid::ANY).await
    }
}

impl Overlay {
    pub(super) async fn run(self, flux: &Client) -> Result<(), Failure> {
        let size: u32 = flux.attr("size").await?.parse().map_err(Failure::new)?;
        let rounds = Rounds { count: self.count, parallel: self.parallel };
        let mut next = 1;
        // Ranks are numbered level by level, unless the tree is configured by hand.
        for rank in 0..size {
            let nodeid = Nodeid(rank);
            let request = attr::GetRequest { name: "tbon.level".to_owned() };
            let level = flux.rpc::<attr::Get>(nodeid, &request).await?.value;
            if level == next.to_string() {
                let name = format!("depth {level} (rank {rank})");
                round_trips(flux, &rounds, &name, nodeid).await?;
                next += 1;
            }
        }
        match next {
            1 => Err(Failure::new("this instance has one broker: try flux start -s 8")),
            _ => Ok(()),
        }
    }
}

async fn round_trips(
    flux: &Client,
    rounds: &Rounds,
    name: &str,
    nodeid: Nodeid,
) -> Result<(), Failure> {
    let request = |_| {
        let flux = flux.clone();
        async move {
            let request = attr::GetRequest { name: "rank".to_owned() };
            flux.rpc::<attr::Get>(nodeid, &request).await?;
            Ok(())
        }
    };
    rounds.measure(name, request).await
}
