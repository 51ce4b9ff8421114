//! Union, difference and intersection.

use super::{Node, ResourceSet, Resources};
use crate::constraint::Constraint;
use crate::idset::Idset;
use std::collections::BTreeMap;
use std::sync::Arc;

impl ResourceSet {
    /// The resources that are in either. Times, slots and scheduling data are those of `self`.
    pub fn union(&self, other: &Self) -> Self {
        let mut set = self.clone();
        set.append(other);
        set
    }

    /// Add the resources and properties of `other`. Hosts of shared ranks stay as they are.
    pub fn append(&mut self, other: &Self) {
        for (&rank, theirs) in &other.nodes {
            match self.nodes.get_mut(&rank) {
                Some(ours) => ours.add(&theirs.resources),
                None => {
                    self.nodes.insert(rank, theirs.clone());
                }
            }
        }
        for (name, ranks) in &other.properties {
            self.properties.entry(name.clone()).or_default().union_with(ranks);
        }
        self.named |= other.named;
        if self.scheduling.is_none() {
            self.scheduling.clone_from(&other.scheduling);
        }
    }

    /// The resources of `self` that are not in `other`. Nodes without any left are dropped.
    pub fn diff(&self, other: &Self) -> Self {
        self.combine(|rank, node| match other.nodes.get(&rank) {
            None => Some(node.clone()),
            Some(theirs) => node.with(
                node.resources.cores.difference(&theirs.resources.cores),
                node.resources.gpus.difference(&theirs.resources.gpus),
            ),
        })
    }

    /// The resources that are in both.
    pub fn intersect(&self, other: &Self) -> Self {
        self.combine(|rank, node| {
            let theirs = other.nodes.get(&rank)?;
            if theirs.resources == node.resources {
                return (!node.resources.is_empty()).then(|| node.clone());
            }
            node.with(
                node.resources.cores.intersect(&theirs.resources.cores),
                node.resources.gpus.intersect(&theirs.resources.gpus),
            )
        })
    }

    /// All resources of `self` on ranks that are also in `other`: what the Python bindings of Flux
    /// call intersection.
    pub fn python_intersect(&self, other: &Self) -> Self {
        self.combine(|rank, node| other.nodes.contains_key(&rank).then(|| node.clone()))
    }

    /// Whether all resources of `other` are in `self`.
    pub fn contains(&self, other: &Self) -> bool {
        other.nodes.iter().all(|(rank, theirs)| {
            self.nodes.get(rank).is_some_and(|ours| {
                theirs.resources.cores.is_subset(&ours.resources.cores)
                    && theirs.resources.gpus.is_subset(&ours.resources.gpus)
            })
        })
    }

    /// Only the nodes with the given ranks.
    pub fn copy_ranks(&self, ranks: &Idset) -> Self {
        // Walk whichever is smaller: an allocation is a few nodes of ten thousand.
        if ranks.count() < self.nodes.len() as u64 / 8 {
            let nodes =
                ranks.iter().filter_map(|rank| Some((rank, self.nodes.get(&rank)?.clone())));
            return self.with_nodes(nodes.collect());
        }
        self.combine(|rank, node| ranks.contains(rank).then(|| node.clone()))
    }

    /// Only the nodes that satisfy a constraint.
    pub fn copy_constraint(&self, constraint: &Constraint) -> Self {
        self.copy_ranks(&constraint.matching(self))
    }

    /// Drop nodes, and their ranks from all properties.
    pub fn remove_ranks(&mut self, ranks: &Idset) {
        self.nodes.retain(|&rank, _| !ranks.contains(rank));
        self.properties.values_mut().for_each(|targets| targets.subtract(ranks));
        self.properties.retain(|_, targets| !targets.is_empty());
    }

    /// The nodes that `keep` gives, with the properties that still apply.
    fn combine(&self, keep: impl Fn(u32, &Node) -> Option<Node>) -> Self {
        let nodes = self.nodes.iter().filter_map(|(&rank, node)| Some((rank, keep(rank, node)?)));
        self.with_nodes(nodes.collect())
    }

    fn with_nodes(&self, nodes: BTreeMap<u32, Node>) -> Self {
        let ranks: Idset = nodes.keys().copied().collect();
        let properties = self
            .properties
            .iter()
            .map(|(name, targets)| (name.clone(), targets.intersect(&ranks)))
            .filter(|(_, targets)| !targets.is_empty())
            .collect();
        let scheduling = if nodes.is_empty() { None } else { self.scheduling.clone() };
        Self { properties, scheduling, nslots: None, nodes, ..*self }
    }
}

impl Node {
    /// This node with other resources, None when there are none.
    fn with(&self, cores: Idset, gpus: Idset) -> Option<Self> {
        let resources = Resources { cores, gpus };
        let host = self.host.clone();
        (!resources.is_empty()).then(|| Self { host, resources: Arc::new(resources) })
    }

    fn add(&mut self, more: &Arc<Resources>) {
        if self.resources.is_empty() {
            self.resources = more.clone();
        } else if self.resources != *more {
            let ours = Arc::make_mut(&mut self.resources);
            ours.cores.union_with(&more.cores);
            ours.gpus.union_with(&more.gpus);
        }
    }
}
