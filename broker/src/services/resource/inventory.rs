//! The resources of the instance, and where they are from. Pure.

use std::borrow::Cow;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::{RError, ResourceSet};

/// All resources that the instance has, whoever may use them.
#[derive(Debug, Clone)]
pub struct Inventory {
    pub set: ResourceSet,
    pub method: Method,
}

/// How the inventory came to be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method(Cow<'static, str>);

/// Why a text does not name ranks.
#[derive(Debug, thiserror::Error)]
pub enum TargetsError {
    #[error("R is unavailable for mapping hostnames to ranks")]
    NoInventory,
    #[error("invalid targets: Hostlist cannot be decoded")]
    Hostlist,
    #[error("invalid targets: {0}")]
    Hosts(RError),
}

/// Why resources can't be used for this instance.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    #[error("error reranking R: {0}; R must have the hosts of bootstrap.hosts, see flux-R(1)")]
    Rerank(RError),
}

// === impl Method ===

impl Method {
    /// `[resource]` in the configuration. Nodes that are lost may come back.
    pub const CONFIGURATION: Method = Method(Cow::Borrowed("configuration"));
    /// What the enclosing instance gave to the job that we are.
    pub const JOB_INFO: Method = Method(Cow::Borrowed("job-info"));
    /// Left in the KVS by the service before it was loaded again.
    pub const KVS: Method = Method(Cow::Borrowed("kvs"));
    pub const DYNAMIC_DISCOVERY: Method = Method(Cow::Borrowed("dynamic-discovery"));
    pub const RELOAD: Method = Method(Cow::Borrowed("reload"));

    /// A method as another rank calls it.
    pub fn named(name: String) -> Method {
        Method(Cow::Owned(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Inventory ===

impl Inventory {
    /// Configured resources. `hosts` are those of the ranks, where the configuration has them as
    /// well (`bootstrap.hosts`): then they, and not the file, say which rank is on which host.
    pub fn configured(
        mut set: ResourceSet,
        hosts: Option<&Hostlist>,
    ) -> Result<Inventory, InventoryError> {
        if let Some(hosts) = hosts {
            set.rerank(hosts).map_err(InventoryError::Rerank)?;
        }
        Ok(Inventory { set, method: Method::CONFIGURATION })
    }

    /// What an enclosing instance gave us, with our own ranks in place of its. None: there is not
    /// one broker for each of its ranks, so that nothing says which broker has what.
    pub fn of_job(mut set: ResourceSet, size: u32, hosts: &Hostlist) -> Option<Inventory> {
        if set.nnodes() != size as usize {
            return None;
        }
        let mut unique = hosts.clone();
        unique.uniq();
        if unique.count() == hosts.count() {
            // Hosts that are pretended are in no enclosing instance: ranks then stay in order.
            let _ = set.rerank(hosts);
        }
        set.remap();
        Some(Inventory { set, method: Method::JOB_INFO })
    }

    /// Do lost nodes never come back?
    pub fn shrinks(&self) -> bool {
        self.method != Method::CONFIGURATION
    }

    /// R without what only the scheduler understands.
    pub fn without_scheduling(&self) -> ResourceSet {
        let mut set = self.set.clone();
        set.scheduling = None;
        set
    }
}

/// The ranks that an idset, or else a hostlist, names.
pub fn targets(text: &str, inventory: Option<&Inventory>) -> Result<Idset, TargetsError> {
    if let Ok(ranks) = Idset::decode(text) {
        return Ok(ranks);
    }
    let inventory = inventory.ok_or(TargetsError::NoInventory)?;
    let hosts: Hostlist = text.parse().map_err(|_| TargetsError::Hostlist)?;
    inventory.set.host_ranks(&hosts).map_err(TargetsError::Hosts)
}

impl From<TargetsError> for Failure {
    fn from(error: TargetsError) -> Failure {
        Failure::new(Errno::EINVAL, error.to_string())
    }
}

impl From<InventoryError> for Failure {
    fn from(error: InventoryError) -> Failure {
        Failure::new(Errno::EINVAL, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::r::Resources;

    fn set(ranks: &str, hosts: &str, cores: &str) -> ResourceSet {
        let resources = Resources { cores: cores.parse().unwrap(), gpus: Idset::new() };
        let hosts = hosts.parse().unwrap();
        ResourceSet::uniform(&ranks.parse().unwrap(), resources, &hosts).unwrap()
    }

    fn hosts(text: &str) -> Hostlist {
        text.parse().unwrap()
    }

    #[test]
    fn bootstrap_hosts_decide_on_ranks() {
        let inventory = Inventory::configured(set("0-2", "a[0-2]", "0"), Some(&hosts("a[2,0,1]")));
        assert_eq!(inventory.unwrap().set.nodelist().to_string(), "a[2,0-1]");
        let error = Inventory::configured(set("0-2", "a[0-2]", "0"), Some(&hosts("a0,a1,b")));
        assert_eq!(
            error.unwrap_err().to_string(),
            "error reranking R: Host b not found in resources; R must have the hosts of \
             bootstrap.hosts, see flux-R(1)"
        );
    }

    #[test]
    fn resources_of_a_job_get_our_ranks_and_cores_from_0() {
        let job = set("7-8", "b,a", "2-3");
        let inventory = Inventory::of_job(job.clone(), 2, &hosts("a,b")).unwrap();
        assert_eq!(inventory.set.dumps(), "rank[0-1]/core[0-1]");
        assert_eq!(inventory.set.nodelist().to_string(), "a,b");
        assert!(Inventory::of_job(job, 4, &hosts("a,a,b,b")).is_none());
    }

    #[test]
    fn targets_are_ranks_or_hosts() {
        let inventory = Inventory { set: set("0-3", "a[0-3]", "0"), method: Method::RELOAD };
        let targets = |text| match targets(text, Some(&inventory)) {
            Ok(ranks) => ranks.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(targets("0,7"), "0,7");
        assert_eq!(targets("a[1-2]"), "1-2");
        assert_eq!(targets("a1,b,c"), "invalid targets: invalid hosts: b,c");
        assert_eq!(targets("a[1-"), "invalid targets: Hostlist cannot be decoded");
        assert_eq!(
            super::targets("a", None).unwrap_err().to_string(),
            "R is unavailable for mapping hostnames to ranks"
        );
    }
}
