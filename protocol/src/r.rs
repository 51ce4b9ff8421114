//! Resource sets, RFC 20 version 1 ("R"): which cores and GPUs of which nodes.
//!
//! A node is known by its rank (the execution target) and has a host name. Sets are combined at the
//! level of single cores and GPUs, in time that follows the number of nodes.

mod algebra;
mod ranks;
mod text;
mod wire;

use crate::hostlist::{Hostlist, HostlistError, check_host};
use crate::idset::Idset;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most nodes in one set: text of a few bytes can name billions of ranks.
pub const MAX_NODES: u64 = 1 << 18;

/// Cores and GPUs by node, with what else R says about them.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    nodes: BTreeMap<u32, Node>,
    /// Ranks by property. May name ranks that are not in the set.
    properties: BTreeMap<String, Idset>,
    /// Seconds since the epoch; 0 when unset.
    pub starttime: f64,
    /// Seconds since the epoch; 0 when unset.
    pub expiration: f64,
    /// Slots of an allocation; None for an inventory.
    pub nslots: Option<u64>,
    /// What only the scheduler understands.
    pub scheduling: Option<Box<RawValue>>,
    /// Whether R has a nodelist. Without one, hosts are named after their ranks.
    named: bool,
}

/// A node's host name and what of the node is in the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub host: Arc<str>,
    /// Nodes that are alike share this.
    pub resources: Arc<Resources>,
}

/// Logical ids of cores and GPUs of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    pub cores: Idset,
    pub gpus: Idset,
}

#[derive(Debug, thiserror::Error)]
pub enum RError {
    #[error("invalid R: {0}")]
    Json(#[from] serde_json::Error),
    #[error("R has no version")]
    MissingVersion,
    #[error("R version {0} not supported")]
    Version(String),
    #[error("R has {0} nodes, more than {MAX_NODES}")]
    TooManyNodes(u64),
    #[error("{0}")]
    Hostlist(#[from] HostlistError),
    #[error("Number of hosts ({hosts}) is {} than node count ({nodes})",
        if hosts > nodes { "greater" } else { "less" })]
    HostCount { hosts: u64, nodes: u64 },
    #[error("Host {0} not found in resources")]
    UnknownHost(String),
    #[error("invalid hosts: {0}")]
    UnknownHosts(String),
    #[error("invalid character '{character}' in property \"{name}\"")]
    PropertyName { name: String, character: char },
    #[error("{} {ranks} not found in target resource list",
        if ranks.count() == 1 { "rank" } else { "ranks" })]
    UnknownRanks { ranks: Idset },
}

// === impl Resources ===

impl Resources {
    pub fn is_empty(&self) -> bool {
        self.cores.is_empty() && self.gpus.is_empty()
    }
}

// === impl ResourceSet ===

impl ResourceSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// The same resources on each of `ranks`, with hosts in rank order.
    pub fn uniform(ranks: &Idset, resources: Resources, hosts: &Hostlist) -> Result<Self, RError> {
        let nodes = ranks.count();
        if nodes > MAX_NODES {
            return Err(RError::TooManyNodes(nodes));
        }
        if hosts.count() != nodes {
            return Err(RError::HostCount { hosts: hosts.count(), nodes });
        }
        let resources = Arc::new(resources);
        let node = |(rank, host)| {
            Ok((rank, Node { host: host_name(host)?, resources: resources.clone() }))
        };
        let nodes = ranks.iter().zip(hosts.iter()).map(node).collect::<Result<_, RError>>()?;
        Ok(Self { nodes, named: true, ..Self::default() })
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn nnodes(&self) -> usize {
        self.nodes.len()
    }

    pub fn ncores(&self) -> u64 {
        self.nodes.values().map(|node| node.resources.cores.count()).sum()
    }

    pub fn ngpus(&self) -> u64 {
        self.nodes.values().map(|node| node.resources.gpus.count()).sum()
    }

    /// The nodes in rank order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (u32, &Node)> {
        self.nodes.iter().map(|(&rank, node)| (rank, node))
    }

    pub fn node(&self, rank: u32) -> Option<&Node> {
        self.nodes.get(&rank)
    }

    /// Add a node or replace it.
    pub fn insert_node(&mut self, rank: u32, node: Node) {
        self.named = true;
        self.nodes.insert(rank, node);
    }

    pub fn ranks(&self) -> Idset {
        self.nodes.keys().copied().collect()
    }

    /// Host names in rank order.
    pub fn nodelist(&self) -> Hostlist {
        self.nodes.values().map(|node| &*node.host).collect()
    }

    /// Ranks by property name.
    pub fn properties(&self) -> &BTreeMap<String, Idset> {
        &self.properties
    }

    /// Give a property to ranks, all of which must be in the set.
    pub fn set_property(&mut self, name: &str, ranks: &Idset) -> Result<(), RError> {
        check_property_name(name)?;
        let unknown = ranks.difference(&self.ranks());
        if !unknown.is_empty() {
            return Err(RError::UnknownRanks { ranks: unknown });
        }
        self.properties.entry(name.to_owned()).or_default().union_with(ranks);
        Ok(())
    }

    /// Drop the properties that describe this instance rather than its hardware (`+name`): they are
    /// not passed on in allocations.
    pub fn remove_instance_local_properties(&mut self) {
        self.properties.retain(|name, _| !name.starts_with('+'));
    }
}

/// A hostlist may hold names that no host can have, such as `r0n[0-1]` from `r[0]n[0-1]`.
fn host_name(name: String) -> Result<Arc<str>, RError> {
    check_host(&name)?;
    Ok(name.into())
}

/// Refuse the characters that constraint expressions give a meaning to.
pub fn check_property_name(name: &str) -> Result<(), RError> {
    match name.chars().find(|c| "^&'\"`|()".contains(*c)) {
        Some(character) => Err(RError::PropertyName { name: name.to_owned(), character }),
        None => Ok(()),
    }
}
