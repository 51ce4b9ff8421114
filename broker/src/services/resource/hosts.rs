//! Which rank is on which host. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::ResourceSet;

/// The hosts of all ranks that brokers or resources have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hosts {
    by_rank: Vec<Arc<str>>,
    /// The first rank on each host.
    ranks: HashMap<Arc<str>, u32>,
}

impl Hosts {
    /// Hosts of brokers, from the attribute `hostlist`, go before those of resources, unless the
    /// resources are `fake`.
    pub fn new(brokers: &Hostlist, set: Option<&ResourceSet>, fake: bool) -> Hosts {
        let nodes = set.into_iter().flat_map(ResourceSet::nodes);
        let of_set: HashMap<u32, Arc<str>> =
            nodes.map(|(rank, node)| (rank, node.host.clone())).collect();
        let last = of_set.keys().max().map_or(0, |rank| rank + 1);
        let count = last.max(u32::try_from(brokers.count()).unwrap_or(u32::MAX));
        let mut brokers = brokers.iter();
        let mut hosts = Hosts::default();
        for rank in 0..count {
            let broker = brokers.next().map(Arc::from);
            let resource = of_set.get(&rank).cloned();
            let host = if fake { resource.or(broker) } else { broker.or(resource) };
            let host = host.unwrap_or_else(|| Arc::from("?"));
            hosts.ranks.entry(host.clone()).or_insert(rank);
            hosts.by_rank.push(host);
        }
        hosts
    }

    /// The hosts of ranks, as RFC 29 text.
    pub fn of(&self, ranks: &Idset) -> String {
        let host = |rank: u32| self.by_rank.get(rank as usize).map_or("?", |host| host);
        ranks.iter().map(host).collect::<Hostlist>().to_string()
    }

    /// All hosts in rank order, as RFC 29 text.
    pub fn all(&self) -> String {
        self.by_rank.iter().collect::<Hostlist>().to_string()
    }

    /// Where ranks are now that were on the given hosts once: an instance that is started again
    /// may have its ranks in another order. Ranks on hosts that are gone are dropped.
    pub fn relocate(&self, ranks: &Idset, hosts: &Hostlist) -> Idset {
        let mut hosts = hosts.iter();
        let now = |rank: u32| {
            let known = |host: &Arc<str>, once: &str| **host == *once;
            match hosts.next() {
                Some(once) => match self.by_rank.get(rank as usize) {
                    Some(host) if known(host, &once) => Some(rank),
                    _ => self.ranks.get(once.as_str()).copied(),
                },
                None => ((rank as usize) < self.by_rank.len()).then_some(rank),
            }
        };
        ranks.iter().filter_map(now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::r::Resources;

    fn hosts(text: &str) -> Hostlist {
        text.parse().unwrap()
    }

    fn set(names: &str) -> ResourceSet {
        let names = hosts(names);
        let ranks = Idset::first_n(u32::try_from(names.count()).unwrap());
        let resources = Resources { cores: Idset::first_n(1), gpus: Idset::new() };
        ResourceSet::uniform(&ranks, resources, &names).unwrap()
    }

    fn moved(now: &str, ranks: &str, once: &str) -> String {
        let ranks: Idset = ranks.parse().unwrap();
        Hosts::new(&hosts(now), None, false).relocate(&ranks, &hosts(once)).to_string()
    }

    #[test]
    fn brokers_hosts_go_before_those_of_resources() {
        let brokers = hosts("vm");
        let names = |fake| Hosts::new(&brokers, Some(&set("a[0-2]")), fake).all();
        assert_eq!(names(false), "vm,a[1-2]");
        assert_eq!(names(true), "a[0-2]");
        assert_eq!(Hosts::new(&brokers, None, true).of(&Idset::first_n(2)), "vm,?");
    }

    #[test]
    fn ranks_follow_their_hosts() {
        assert_eq!(moved("a[0-3]", "1-2", "a[1-2]"), "1-2");
        assert_eq!(moved("a[3,2,1,0]", "0,2", "a[0,2]"), "1,3");
        assert_eq!(moved("a[0-1]", "0,2", "a0,a2"), "0");
    }

    #[test]
    fn brokers_on_one_host_keep_their_ranks() {
        assert_eq!(moved("vm,vm,vm", "1-2", "vm,vm"), "1-2");
        assert_eq!(moved("vm,vm,vm", "1,7", ""), "1");
    }
}
