//! Renumbering nodes, and the way from hosts to ranks.

use super::{Node, RError, ResourceSet, Resources, host_name};
use crate::hostlist::{HostIndex, Hostlist};
use crate::idset::Idset;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

impl ResourceSet {
    /// Number nodes from 0 in rank order and the cores of each node from 0, as a nested instance
    /// sees them. GPUs keep their ids, for those are what drivers go by.
    pub fn remap(&mut self) {
        let order: Vec<u32> = self.nodes.keys().copied().collect();
        self.renumber(&order);
        let mut seen: HashMap<Arc<Resources>, Arc<Resources>> = HashMap::new();
        for node in self.nodes.values_mut() {
            let from_zero = seen.entry(node.resources.clone()).or_insert_with_key(|resources| {
                let cores = u32::try_from(resources.cores.count()).unwrap_or(u32::MAX);
                let cores = Idset::first_n(cores);
                Arc::new(Resources { cores, gpus: resources.gpus.clone() })
            });
            node.resources = from_zero.clone();
        }
    }

    /// Number nodes in the order of `hosts`, which must name each of them.
    pub fn rerank(&mut self, hosts: &Hostlist) -> Result<(), RError> {
        let (count, nodes) = (hosts.count(), self.nodes.len() as u64);
        if count != nodes {
            return Err(RError::HostCount { hosts: count, nodes });
        }
        // Several brokers may run on one host: its ranks are taken in order.
        let mut by_host: HashMap<Arc<str>, VecDeque<u32>> = HashMap::new();
        for (&rank, node) in &self.nodes {
            by_host.entry(node.host.clone()).or_default().push_back(rank);
        }
        let mut order = Vec::with_capacity(self.nodes.len());
        for host in hosts.iter() {
            let rank = by_host.get_mut(host.as_str()).and_then(VecDeque::pop_front);
            order.push(rank.ok_or(RError::UnknownHost(host))?);
        }
        self.renumber(&order);
        Ok(())
    }

    /// Name the nodes in rank order.
    pub fn assign_hosts(&mut self, hosts: &Hostlist) -> Result<(), RError> {
        let (count, nodes) = (hosts.count(), self.nodes.len() as u64);
        if count != nodes {
            return Err(RError::HostCount { hosts: count, nodes });
        }
        let names = hosts.iter().map(host_name).collect::<Result<Vec<_>, _>>()?;
        for (node, name) in self.nodes.values_mut().zip(names) {
            node.host = name;
        }
        self.named = true;
        Ok(())
    }

    /// All ranks on the given hosts; an error names the hosts that are not in the set.
    pub fn host_ranks(&self, hosts: &Hostlist) -> Result<Idset, RError> {
        let ranks = self.ranks_on(hosts);
        let ours: HashMap<&str, ()> = self.nodes.values().map(|node| (&*node.host, ())).collect();
        let missing: Hostlist =
            hosts.iter().filter(|host| !ours.contains_key(host.as_str())).collect();
        if missing.is_empty() { Ok(ranks) } else { Err(RError::UnknownHosts(missing.encode())) }
    }

    /// The ranks whose host is in the list.
    pub(crate) fn ranks_on(&self, hosts: &Hostlist) -> Idset {
        let index = HostIndex::new(hosts);
        let on = |node: &Node| index.find(&node.host).is_some();
        self.nodes.iter().filter(|(_, node)| on(node)).map(|(&rank, _)| rank).collect()
    }

    /// Give the node of rank `order[i]` the rank `i`.
    fn renumber(&mut self, order: &[u32]) {
        let new_rank: BTreeMap<u32, u32> = order.iter().copied().zip(0..).collect();
        for targets in self.properties.values_mut() {
            *targets = targets
                .intersect(&self.nodes.keys().copied().collect())
                .iter()
                .filter_map(|rank| new_rank.get(&rank).copied())
                .collect();
        }
        let nodes = std::mem::take(&mut self.nodes);
        self.nodes = nodes
            .into_iter()
            .filter_map(|(rank, node)| Some((*new_rank.get(&rank)?, node)))
            .collect();
    }
}
