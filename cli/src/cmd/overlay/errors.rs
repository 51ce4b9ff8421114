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

pub(super) async fn run(flux: &Client, timeout: Option<Duration>) -> Outcome {
    let topology = Topology::get(flux).await?;
    let limit = Some(timeout.unwrap_or_else(|| default_timeout(&topology)));
    let limit = limit.filter(|limit| !limit.is_zero());
    let mut errors: BTreeMap<String, Idset> = BTreeMap::new();
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
            Ok(health) => pending.extend(children(&topology, &health, &mut errors)),
            Err(e) => add(&topology, &mut errors, rank, e.to_string()),
        }
    }
    let hosts = hostlist(flux).await?;
    for (error, ranks) in errors {
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

/// Note the errors of a broker's children; returns those children that can be asked themselves.
fn children(
    topology: &Topology,
    health: &HealthResponse,
    errors: &mut BTreeMap<String, Idset>,
) -> Vec<u32> {
    let mut reachable = Vec::new();
    for child in &health.children {
        let error = child.error.clone().filter(|error| !error.is_empty());
        match (child.status.as_str(), error) {
            ("lost", error) => {
                let error = error.unwrap_or_else(|| "unknown error".to_owned());
                add(topology, errors, child.rank, error);
            }
            ("offline", Some(error)) => {
                errors.entry(error).or_default().insert(child.rank);
            }
            ("offline", None) => {}
            _ => reachable.push(child.rank),
        }
    }
    reachable
}

/// The error of a broker that took those below it along.
fn add(topology: &Topology, errors: &mut BTreeMap<String, Idset>, rank: u32, error: String) {
    errors.entry(error).or_default().insert(rank);
    let mut below = topology.subtree(rank).map(ranks).unwrap_or_default();
    below.remove(rank);
    if !below.is_empty() {
        errors.entry("lost parent".to_owned()).or_default().union_with(&below);
    }
}

/// A flat tree of thousands of brokers makes rank 0 slow to answer.
fn default_timeout(topology: &Topology) -> Duration {
    let size = topology.subtree(0).map_or(0, |tree| tree.size);
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
