//! The shape of the tree of brokers, and the next hop from any rank to any other.
//!
//! Ranks are numbered once more in the order in which a walk through the tree, parents first,
//! meets them. A subtree is then a run of consecutive numbers, so that "is it below this child?"
//! takes two comparisons whatever the shape, and the next hop a binary search among the children.

mod shape;
#[cfg(test)]
mod tests;

use flux_protocol::idset::Idset;
use flux_protocol::rpc::overlay::TopologyResponse;

use crate::router::Hop;
pub use shape::{Shape, ShapeError};

/// The tree of an instance; the same on all of its brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    nodes: Vec<Node>,
    /// Children of all ranks, each rank's in one ascending run.
    children: Vec<u32>,
    /// Ranks in the order of the walk.
    walk: Vec<u32>,
    max_level: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Node {
    /// Not meaningful for rank 0.
    parent: u32,
    first_child: u32,
    child_count: u32,
    /// Position in the walk.
    number: u32,
    /// Brokers in the subtree, this one included.
    subtree: u32,
    level: u32,
}

/// Why parents do not make a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    #[error("an instance has at least one broker")]
    Empty,
    #[error("rank {rank}: parent {parent} is not a rank of this instance")]
    NoSuchParent { rank: u32, parent: u32 },
    #[error("rank {rank}: parent {parent} is below it")]
    Cycle { rank: u32, parent: u32 },
}

// === impl Topology ===

impl Topology {
    /// The tree of `size` brokers in one of the regular shapes.
    pub fn new(shape: Shape, size: u32) -> Result<Topology, TopologyError> {
        let parents: Vec<u32> = (0..size).map(|rank| shape.parent(rank, size)).collect();
        Topology::from_parents(&parents)
    }

    /// A broker that is alone.
    pub fn single() -> Topology {
        let root = Node { subtree: 1, ..Node::default() };
        Topology { nodes: vec![root], children: Vec::new(), walk: vec![0], max_level: 0 }
    }

    /// Any tree, from the parent of each rank. What is given for rank 0 is not looked at.
    pub fn from_parents(parents: &[u32]) -> Result<Topology, TopologyError> {
        let size = u32::try_from(parents.len()).unwrap_or(u32::MAX);
        if size == 0 {
            return Err(TopologyError::Empty);
        }
        check_parents(parents, size)?;
        let mut nodes: Vec<Node> =
            parents.iter().map(|&parent| Node { parent, ..Node::default() }).collect();
        let children = link_children(&mut nodes);
        let walk = number(&mut nodes, &children);
        let max_level = nodes.iter().map(|node| node.level).max().unwrap_or(0);
        Ok(Topology { nodes, children, walk, max_level })
    }

    /// Number of brokers.
    pub fn size(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    pub fn parent(&self, rank: u32) -> Option<u32> {
        if rank == 0 { None } else { self.node(rank).map(|node| node.parent) }
    }

    /// Direct children in ascending order.
    pub fn children(&self, rank: u32) -> &[u32] {
        let Some(node) = self.node(rank) else { return &[] };
        let first = node.first_child as usize;
        self.children.get(first..first + node.child_count as usize).unwrap_or_default()
    }

    /// Number of brokers below.
    pub fn descendants(&self, rank: u32) -> u32 {
        self.node(rank).map_or(0, |node| node.subtree - 1)
    }

    /// Number of hops from rank 0.
    pub fn level(&self, rank: u32) -> u32 {
        self.node(rank).map_or(0, |node| node.level)
    }

    pub fn max_level(&self) -> u32 {
        self.max_level
    }

    /// Is `rank` the `root` itself or below it?
    pub fn contains(&self, root: u32, rank: u32) -> bool {
        match (self.node(root), self.node(rank)) {
            (Some(root), Some(node)) => {
                (root.number..root.number + root.subtree).contains(&node.number)
            }
            _ => false,
        }
    }

    /// The first hop on the way, or nothing when a rank is not in the instance.
    pub fn next_hop(&self, from: u32, to: u32) -> Option<Hop> {
        let number = self.node(to)?.number;
        let here = self.node(from)?;
        if from == to {
            return Some(Hop::Here);
        }
        if !self.contains(from, to) {
            return Some(Hop::Parent);
        }
        // Children are walked in their order, so the last that begins at or before `to` has it.
        let children = self.children(from);
        let after = children
            .partition_point(|&child| self.node(child).is_some_and(|node| node.number <= number));
        debug_assert!(here.child_count > 0);
        children.get(after.checked_sub(1)?).copied().map(Hop::Child)
    }

    /// All ranks of a subtree, its root included.
    pub fn subtree(&self, root: u32) -> Idset {
        let Some(node) = self.node(root) else { return Idset::new() };
        let first = node.number as usize;
        let ranks = self.walk.get(first..first + node.subtree as usize).unwrap_or_default();
        ranks.iter().copied().collect()
    }

    /// Rank 0 and all ranks that have children: losing one of them loses others.
    pub fn critical_ranks(&self) -> Idset {
        let internal =
            (0..).zip(&self.nodes).filter(|(rank, node)| *rank == 0 || node.child_count > 0);
        internal.map(|(rank, _)| rank).collect()
    }

    /// A subtree as `overlay.topology` tells it.
    pub fn describe(&self, root: u32) -> TopologyResponse {
        // Built from the end of the walk, where all children precede their parent: a custom tree
        // may be too deep for recursion.
        let mut done: Vec<TopologyResponse> = Vec::new();
        let Some(node) = self.node(root) else { return described(root, Vec::new()) };
        let first = node.number as usize;
        let ranks = self.walk.get(first..first + node.subtree as usize).unwrap_or_default();
        for &rank in ranks.iter().rev() {
            let count = self.children(rank).len();
            let mut children = done.split_off(done.len() - count);
            children.reverse();
            done.push(described(rank, children));
        }
        done.pop().unwrap_or_else(|| described(root, Vec::new()))
    }

    fn node(&self, rank: u32) -> Option<&Node> {
        self.nodes.get(rank as usize)
    }
}

fn described(rank: u32, children: Vec<TopologyResponse>) -> TopologyResponse {
    let size = 1 + children.iter().map(|child| child.size).sum::<u32>();
    TopologyResponse { rank, size, children }
}

/// Every rank must reach rank 0. Reports the rank that closes a cycle as it would be found by
/// adding the ranks in their order.
fn check_parents(parents: &[u32], size: u32) -> Result<(), TopologyError> {
    const UNSEEN: u32 = u32::MAX;
    let mut seen_by = vec![UNSEEN; parents.len()];
    let mut worst: Option<u32> = None;
    let parent_of = |rank: u32| parents.get(rank as usize).copied().unwrap_or(0);
    for start in 1..size {
        if parent_of(start) >= size {
            return Err(TopologyError::NoSuchParent { rank: start, parent: parent_of(start) });
        }
        let mut rank = start;
        while let Some(seen) = seen_by.get_mut(rank as usize)
            && *seen == UNSEEN
            && rank != 0
        {
            *seen = start;
            rank = parent_of(rank);
        }
        if rank != 0 && seen_by.get(rank as usize) == Some(&start) {
            let mut highest = rank;
            let mut next = parent_of(rank);
            while next != rank {
                highest = highest.max(next);
                next = parent_of(next);
            }
            worst = Some(worst.map_or(highest, |found| found.min(highest)));
        }
    }
    match worst {
        Some(rank) => Err(TopologyError::Cycle { rank, parent: parent_of(rank) }),
        None => Ok(()),
    }
}

/// Note for each rank where its children stand in the one list of all, which is returned.
fn link_children(nodes: &mut [Node]) -> Vec<u32> {
    let parents: Vec<u32> = nodes.iter().map(|node| node.parent).collect();
    for &parent in parents.iter().skip(1) {
        if let Some(node) = nodes.get_mut(parent as usize) {
            node.child_count += 1;
        }
    }
    let mut next = 0;
    for node in nodes.iter_mut() {
        node.first_child = next;
        next += node.child_count;
    }
    let mut free: Vec<u32> = nodes.iter().map(|node| node.first_child).collect();
    let mut children = vec![0; next as usize];
    for (rank, &parent) in (0..).zip(&parents).skip(1) {
        if let Some(slot) = free.get_mut(parent as usize) {
            if let Some(child) = children.get_mut(*slot as usize) {
                *child = rank;
            }
            *slot += 1;
        }
    }
    children
}

/// Walk through the tree and note numbers, levels and subtree sizes. Returns the walk.
fn number(nodes: &mut [Node], children: &[u32]) -> Vec<u32> {
    let mut walk = Vec::with_capacity(nodes.len());
    let mut todo = vec![(0_u32, 0_u32)];
    while let Some((rank, level)) = todo.pop() {
        let Some(node) = nodes.get_mut(rank as usize) else { continue };
        node.number = u32::try_from(walk.len()).unwrap_or(u32::MAX);
        node.level = level;
        node.subtree = 1;
        walk.push(rank);
        let first = node.first_child as usize;
        let below = children.get(first..first + node.child_count as usize).unwrap_or_default();
        todo.extend(below.iter().rev().map(|&child| (child, level + 1)));
    }
    for &rank in walk.iter().skip(1).rev() {
        let Some(&Node { parent, subtree, .. }) = nodes.get(rank as usize) else { continue };
        if let Some(parent) = nodes.get_mut(parent as usize) {
            parent.subtree += subtree;
        }
    }
    walk
}
