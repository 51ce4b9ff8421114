//! The tree as it was configured, whatever has become of its brokers.

use flux_client::Client;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::overlay::{self, TopologyResponse};

use crate::failure::Failure;

#[derive(Debug)]
pub(super) struct Topology {
    root: TopologyResponse,
}

impl Topology {
    /// From rank 0, which knows the whole of it.
    pub(super) async fn get(flux: &Client) -> Result<Topology, Failure> {
        let root = flux
            .rpc::<overlay::Topology>(Nodeid(0), &overlay::RankRequest { rank: 0 })
            .await
            .map_err(|e| Failure::of("error fetching overlay topology", e.errno()))?;
        Ok(Topology { root })
    }

    pub(super) fn subtree(&self, rank: u32) -> Option<&TopologyResponse> {
        find(&self.root, rank)
    }

    pub(super) fn parent_of(&self, rank: u32) -> Result<u32, Failure> {
        if rank >= self.root.size {
            let text = format_args!("{rank} is not a valid rank in this instance");
            return Err(Failure::new(text));
        }
        find_parent(&self.root, rank)
            .ok_or_else(|| Failure::new(format_args!("{rank} has no parent")))
    }
}

/// All ranks of a subtree.
pub(super) fn ranks(tree: &TopologyResponse) -> Idset {
    let mut ids = Idset::new();
    let mut todo = vec![tree];
    while let Some(tree) = todo.pop() {
        ids.insert(tree.rank);
        todo.extend(&tree.children);
    }
    ids
}

fn find(tree: &TopologyResponse, rank: u32) -> Option<&TopologyResponse> {
    if tree.rank == rank {
        return Some(tree);
    }
    tree.children.iter().find_map(|child| find(child, rank))
}

fn find_parent(tree: &TopologyResponse, rank: u32) -> Option<u32> {
    if tree.children.iter().any(|child| child.rank == rank) {
        return Some(tree.rank);
    }
    tree.children.iter().find_map(|child| find_parent(child, rank))
}
