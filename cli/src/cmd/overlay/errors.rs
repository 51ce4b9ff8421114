//! `flux overlay errors`: why brokers are lost or offline, by error.

use std::collections::BTreeMap;
use std::time::Duration;

use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::overlay::{self, HealthResponse};
use tokio::task::JoinSet;

use super::topology::{Topology, ranks};
use crate::args::within;
use crate::failure::{Failure, Outcome};
use crate::outln;
use crate::target::hostlist;

/// Requests under way at once.
const MAX_REQUESTS: usize = 512;
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);

/// What went wrong, and where.
struct Errors<'a> {
    flux: &'a Client,
    /// Fetched when there is something below a broker that is gone.
    topology: Option<Topology>,
    ranks: BTreeMap<String, Idset>,
}

pub(super) async fn run(flux: &Client, timeout: Option<Duration>) -> Outcome {
    let size = flux.attr("size").await.map_err(|e| Failure::of("size", e))?;
    let limit = Some(timeout.unwrap_or_else(|| default_timeout(size.parse().unwrap_or(0))));
    let limit = limit.filter(|limit| !limit.is_zero());
    let mut errors = Errors { flux, topology: None, ranks: BTreeMap::new() };
    let mut pending = vec![0];
    let mut active = JoinSet::new();
    loop {
        while active.len() < MAX_REQUESTS
            && let Some(rank) = pending.pop()
        {
            active.spawn(ask(flux.clone(), rank, limit));
        }
        let Some(answer) = active.join_next().await else { break };
        let (rank, answer) = answer.map_err(Failure::new)?;
        match answer {
            Ok(health) => pending.extend(errors.children(&health).await?),
            Err(e) => errors.add(rank, e.to_string()).await?,
        }
    }
    if errors.ranks.is_empty() {
        return Ok(0);
    }
    let hosts = hostlist(flux).await?;
    for (error, ranks) in errors.ranks {
        outln!("{}: {error}", names(&hosts, &ranks));
    }
    Ok(0)
}

async fn ask(
    flux: Client,
    rank: u32,
    limit: Option<Duration>,
) -> (u32, Result<HealthResponse, RpcError>) {
    let answer = within(limit, flux.rpc::<overlay::Health>(Nodeid(rank), &Empty)).await;
    let late = Err(RpcError::Refused { errno: Errno::ETIMEDOUT, text: None });
    (rank, answer.unwrap_or(late))
}

impl Errors<'_> {
    /// Note the errors of a broker's children; returns those that can be asked themselves.
    async fn children(&mut self, health: &HealthResponse) -> Result<Vec<u32>, Failure> {
        let mut reachable = Vec::new();
        for child in &health.children {
            let error = child.error.clone().filter(|error| !error.is_empty());
            match (child.status.as_str(), error) {
                ("lost", error) => {
                    let error = error.unwrap_or_else(|| "unknown error".to_owned());
                    self.add(child.rank, error).await?;
                }
                ("offline", Some(error)) => {
                    self.ranks.entry(error).or_default().insert(child.rank);
                }
                ("offline", None) => {}
                _ => reachable.push(child.rank),
            }
        }
        Ok(reachable)
    }

    /// The error of a broker that took those below it along.
    async fn add(&mut self, rank: u32, error: String) -> Result<(), Failure> {
        self.ranks.entry(error).or_default().insert(rank);
        let topology = match &mut self.topology {
            Some(topology) => topology,
            none => none.insert(Topology::get(self.flux).await?),
        };
        let mut below = topology.subtree(rank).map(ranks).unwrap_or_default();
        below.remove(rank);
        if !below.is_empty() {
            self.ranks.entry("lost parent".to_owned()).or_default().union_with(&below);
        }
        Ok(())
    }
}

/// A flat tree of thousands of brokers makes rank 0 slow to answer.
fn default_timeout(size: u32) -> Duration {
    if size > 2048 { DEFAULT_TIMEOUT.mul_f64(f64::from(size) / 2000.0) } else { DEFAULT_TIMEOUT }
}

fn names(hosts: &Hostlist, ranks: &Idset) -> String {
    let mut names = Hostlist::new();
    for rank in ranks.iter() {
        match hosts.nth(u64::from(rank)) {
            Some(host) => names.push_host(&host),
            None => names.push_host(&format!("rank{rank}")),
        }
    }
    names.encode()
}
