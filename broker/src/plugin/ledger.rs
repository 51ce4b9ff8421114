//! The broker's own books on resources: what there is, what is up, who holds what, who waits.
//!
//! Every change on its way to the scheduler and every decision on its way back passes here. So a
//! decision that would give away what is not free is found out, and a scheduler that is started
//! anew is told the whole of it.

mod contract;

use super::v1::types::{Allocation, Change, Freed, Job, JobId, ResourceSet, RunningJob};
pub use contract::record;
use contract::{expand, group, ids, inventory, without_property};
use flux_protocol::idset::Idset;
use flux_protocol::r::{Node, ResourceSet as R, Resources};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An entry that does not fit the books.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// An answer for a job that did not ask, or was answered before.
    #[error("job {0} has no open request")]
    NotPending(JobId),
    /// A text that is not an idset.
    #[error("job {id}: {text}")]
    Text {
        /// Job.
        id: JobId,
        /// What is wrong.
        text: String,
    },
    /// Nothing was allocated.
    #[error("job {0}: allocation of nothing")]
    Empty(JobId),
    /// A rank that is not in the inventory.
    #[error("job {id}: rank {rank} does not exist")]
    NoRank {
        /// Job.
        id: JobId,
        /// Rank.
        rank: u32,
    },
    /// A rank that is down.
    #[error("job {id}: rank {rank} is not up")]
    NotUp {
        /// Job.
        id: JobId,
        /// Rank.
        rank: u32,
    },
    /// Held by another job, or not there at all.
    #[error("job {id}: {kind} {ids} of rank {rank} not free")]
    NotFree {
        /// Job.
        id: JobId,
        /// Rank.
        rank: u32,
        /// "core" or "gpu".
        kind: &'static str,
        /// Idset.
        ids: String,
    },
}

/// A job that holds resources.
#[derive(Debug, Clone)]
struct Holder {
    userid: u32,
    priority: u32,
    t_submit: f64,
    held: BTreeMap<u32, Resources>,
    expiration: f64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    inventory: R,
    used: BTreeMap<u32, Resources>,
    up: Idset,
    pending: BTreeMap<JobId, Job>,
    running: BTreeMap<JobId, Holder>,
    known: bool,
}

impl Ledger {
    /// Takes note of a change. Returns the jobs whose requests end with it (by cancellation).
    ///
    /// # Errors
    ///
    /// A text that cannot be read; the change is then not to be passed on.
    pub(super) fn note(&mut self, change: &Change) -> Result<Vec<JobId>, LedgerError> {
        match change {
            Change::Resources(set) => {
                self.inventory = inventory(set)?;
                self.up = Idset::new();
                self.known = true;
            }
            Change::Up(ranks) => self.up.union_with(&ids(0, ranks)?),
            Change::Down(ranks) => self.up.subtract(&ids(0, ranks)?),
            Change::Shrink(ranks) => {
                let ranks = ids(0, ranks)?;
                self.up.subtract(&ranks);
                self.inventory.remove_ranks(&ranks);
            }
            Change::PropertyAdd(list) => {
                for property in list {
                    let ranks = ids(0, &property.ranks)?.intersect(&self.inventory.ranks());
                    let added = self.inventory.set_property(&property.name, &ranks);
                    added.map_err(|error| LedgerError::Text { id: 0, text: error.to_string() })?;
                }
            }
            Change::PropertyRemove(list) => {
                for property in list {
                    let ranks = ids(0, &property.ranks)?;
                    self.inventory = without_property(&self.inventory, &property.name, &ranks);
                }
            }
            Change::Expiration(time) => self.inventory.expiration = *time,
            Change::Hello(jobs) => jobs.iter().try_for_each(|job| self.hello(job))?,
            Change::Alloc(jobs) => {
                self.pending.extend(jobs.iter().map(|job| (job.id, job.clone())));
            }
            Change::Free(list) => list.iter().try_for_each(|freed| self.free(freed))?,
            Change::Cancel(ids) => {
                let ended = ids.iter().filter(|id| self.pending.remove(id).is_some());
                return Ok(ended.copied().collect());
            }
            Change::Prioritize(list) => {
                for (id, priority) in list {
                    if let Some(job) = self.pending.get_mut(id) {
                        job.priority = Some(*priority);
                    }
                }
            }
            Change::JobExpiration(_)
            | Change::Feasibility(_)
            | Change::Timer(_)
            | Change::Rpc(_)
            | Change::RpcResponse(_)
            | Change::Other(_) => {}
        }
        Ok(Vec::new())
    }

    /// Enters an allocation and gives its R.
    ///
    /// # Errors
    ///
    /// It is not possible; the books are unchanged.
    pub(super) fn allocate(&mut self, allocation: &Allocation) -> Result<R, LedgerError> {
        let id = allocation.id;
        let job = self.pending.get(&id).ok_or(LedgerError::NotPending(id))?;
        let held = expand(id, &allocation.resources)?;
        if held.values().all(Resources::is_empty) {
            return Err(LedgerError::Empty(id));
        }
        for (&rank, resources) in &held {
            self.check(id, rank, resources)?;
        }
        let mut r = R::new();
        let mut ranks = Idset::new();
        for (&rank, resources) in &held {
            let used = self.used.entry(rank).or_default();
            used.cores.union_with(&resources.cores);
            used.gpus.union_with(&resources.gpus);
            ranks.insert(rank);
            if let Some(node) = self.inventory.node(rank) {
                let resources = Arc::new(resources.clone());
                r.insert_node(rank, Node { host: node.host.clone(), resources });
            }
        }
        for (name, having) in self.inventory.properties() {
            let having = having.intersect(&ranks);
            if !having.is_empty() && !name.starts_with('+') {
                let text = |error: flux_protocol::r::RError| error.to_string();
                r.set_property(name, &having)
                    .map_err(|error| LedgerError::Text { id, text: text(error) })?;
            }
        }
        r.starttime = allocation.starttime;
        r.expiration = allocation.expiration;
        r.nslots = (allocation.nslots > 0).then_some(u64::from(allocation.nslots));
        // Only schedulers understand it: the one of the job's own instance, where it is one.
        r.scheduling.clone_from(&self.inventory.scheduling);
        let holder = Holder {
            userid: job.userid,
            priority: job.priority.unwrap_or_default(),
            t_submit: job.t_submit,
            held,
            expiration: allocation.expiration,
        };
        self.pending.remove(&id);
        self.running.insert(id, holder);
        Ok(r)
    }

    /// Ends a request without an allocation.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn deny(&mut self, id: JobId) -> Result<(), LedgerError> {
        self.pending.remove(&id).map(drop).ok_or(LedgerError::NotPending(id))
    }

    /// Another end of a running job, which the scheduler accepted.
    pub(super) fn set_expiration(&mut self, id: JobId, expiration: f64) {
        if let Some(holder) = self.running.get_mut(&id) {
            holder.expiration = expiration;
        }
    }

    /// Whether a job's request is open.
    pub(super) fn is_pending(&self, id: JobId) -> bool {
        self.pending.contains_key(&id)
    }

    /// More resources than before, and what of the new ones is up. Who holds what stays.
    ///
    /// # Errors
    ///
    /// A text that cannot be read; nothing has changed then.
    pub(super) fn grow(&mut self, set: &ResourceSet, up: &str) -> Result<(), LedgerError> {
        let (mut more, up) = (inventory(set)?, ids(0, up)?);
        more.expiration = self.inventory.expiration;
        self.inventory = more;
        self.up.union_with(&up);
        Ok(())
    }

    /// Requests that are open.
    pub(super) fn pending(&self) -> Vec<Job> {
        self.pending.values().cloned().collect()
    }

    /// What a scheduler that starts has to know before it is asked for decisions.
    pub(super) fn introduction(&self) -> Vec<Change> {
        if !self.known {
            return Vec::new();
        }
        let running = self.running.iter().map(|(&id, holder)| RunningJob {
            id,
            userid: holder.userid,
            priority: holder.priority,
            t_submit: holder.t_submit,
            allocation: group(&holder.held),
            expiration: holder.expiration,
        });
        vec![
            Change::Resources(record(&self.inventory)),
            Change::Up(self.up.encode()),
            Change::Hello(running.collect()),
        ]
    }

    /// All, allocated and down, as `sched.resource-status` reports them.
    pub(super) fn status(&self) -> (R, R, R) {
        let mut allocated = R::new();
        for (&rank, used) in &self.used {
            if let (false, Some(node)) = (used.is_empty(), self.inventory.node(rank)) {
                let resources = Arc::new(used.clone());
                allocated.insert_node(rank, Node { host: node.host.clone(), resources });
            }
        }
        let ranks = allocated.ranks();
        for (name, having) in self.inventory.properties() {
            let having = having.intersect(&ranks);
            if !having.is_empty() {
                let _ = allocated.set_property(name, &having);
            }
        }
        let down = self.inventory.ranks().difference(&self.up);
        let mut down = self.inventory.copy_ranks(&down);
        down.remove_instance_local_properties();
        (self.inventory.clone(), allocated, down)
    }

    fn check(&self, id: JobId, rank: u32, resources: &Resources) -> Result<(), LedgerError> {
        let node = self.inventory.node(rank).ok_or(LedgerError::NoRank { id, rank })?;
        if !self.up.contains(rank) {
            return Err(LedgerError::NotUp { id, rank });
        }
        let nothing = Resources::default();
        let used = self.used.get(&rank).unwrap_or(&nothing);
        let pairs = [
            ("core", &resources.cores, &node.resources.cores, &used.cores),
            ("gpu", &resources.gpus, &node.resources.gpus, &used.gpus),
        ];
        for (kind, wanted, all, used) in pairs {
            let mut bad = wanted.difference(all);
            bad.union_with(&wanted.intersect(used));
            if !bad.is_empty() {
                return Err(LedgerError::NotFree { id, rank, kind, ids: bad.encode() });
            }
        }
        Ok(())
    }

    fn hello(&mut self, job: &RunningJob) -> Result<(), LedgerError> {
        let held = expand(job.id, &job.allocation)?;
        for (&rank, resources) in &held {
            let used = self.used.entry(rank).or_default();
            used.cores.union_with(&resources.cores);
            used.gpus.union_with(&resources.gpus);
        }
        let holder = Holder {
            userid: job.userid,
            priority: job.priority,
            t_submit: job.t_submit,
            held,
            expiration: job.expiration,
        };
        self.running.insert(job.id, holder);
        Ok(())
    }

    fn free(&mut self, freed: &Freed) -> Result<(), LedgerError> {
        let mut list = expand(freed.id, &freed.resources)?;
        if let Some(holder) = self.running.get_mut(&freed.id) {
            for (rank, resources) in &list {
                if let Some(held) = holder.held.get_mut(rank) {
                    held.cores.subtract(&resources.cores);
                    held.gpus.subtract(&resources.gpus);
                }
            }
            holder.held.retain(|_, held| !held.is_empty());
        }
        if freed.final_
            && let Some(holder) = self.running.remove(&freed.id)
        {
            for (rank, rest) in holder.held {
                let entry: &mut Resources = list.entry(rank).or_default();
                entry.cores.union_with(&rest.cores);
                entry.gpus.union_with(&rest.gpus);
            }
        }
        for (rank, resources) in list {
            if let Some(used) = self.used.get_mut(&rank) {
                used.cores.subtract(&resources.cores);
                used.gpus.subtract(&resources.gpus);
                if used.is_empty() {
                    self.used.remove(&rank);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::v1::types::{ResourceSet, Targets};
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    fn cores(ranks: &str, cores: &str) -> Vec<Targets> {
        let children = vec![("core".to_owned(), cores.to_owned())];
        vec![Targets { ranks: ranks.to_owned(), children }]
    }

    fn allocation(id: JobId, resources: Vec<Targets>) -> Allocation {
        Allocation {
            id,
            resources,
            nslots: 1,
            starttime: 1.0,
            expiration: 0.0,
            scheduling: None,
            annotations: None,
        }
    }

    fn job(id: JobId) -> Job {
        crate::plugin::testing::job(id)
    }

    /// Two nodes of four cores, both up.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let set = ResourceSet {
            targets: cores("0-1", "0-3"),
            nodelist: "n[0-1]".to_owned(),
            properties: Vec::new(),
            starttime: 0.0,
            expiration: 0.0,
            scheduling: None,
        };
        ledger.note(&Change::Resources(set)).unwrap();
        ledger.note(&Change::Up("0-1".to_owned())).unwrap();
        ledger
    }

    #[test]
    fn allocation_becomes_an_r_with_host_names() {
        let mut ledger = ledger();
        ledger.note(&Change::Alloc(vec![job(7)])).unwrap();
        let r = ledger.allocate(&allocation(7, cores("1", "2"))).unwrap();
        let text = r.encode().unwrap();
        assert!(text.contains(r#""nodelist":["n1"]"#) && text.contains(r#""nslots":1"#), "{text}");
        assert!(text.contains(r#"{"rank":"1","children":{"core":"2"}}"#), "{text}");
    }

    #[test]
    fn jobs_get_what_only_schedulers_understand() {
        let mut first = ledger();
        let raw = RawValue::from_string(r#"{"x":1}"#.to_owned()).unwrap();
        first.inventory.scheduling = Some(raw);
        let mut ledger = Ledger::default();
        for change in first.introduction() {
            ledger.note(&change).unwrap();
        }
        ledger.note(&Change::Alloc(vec![job(1), job(2)])).unwrap();
        let part = ledger.allocate(&allocation(1, cores("0", "0-2"))).unwrap();
        assert_eq!(part.scheduling.unwrap().get(), r#"{"x":1}"#);
        let whole = ledger.allocate(&allocation(2, cores("1", "0-3"))).unwrap();
        assert_eq!(whole.scheduling.unwrap().get(), r#"{"x":1}"#);
    }

    #[test]
    fn what_is_not_free_cannot_be_given_away() {
        let mut ledger = ledger();
        ledger.note(&Change::Alloc(vec![job(1), job(2)])).unwrap();
        ledger.allocate(&allocation(1, cores("0", "0-1"))).unwrap();
        ledger.note(&Change::Down("1".to_owned())).unwrap();
        let cases = [
            (allocation(1, cores("0", "2")), "job 1 has no open request"),
            (allocation(2, cores("0", "1-2")), "job 2: core 1 of rank 0 not free"),
            (allocation(2, cores("0", "9")), "job 2: core 9 of rank 0 not free"),
            (allocation(2, cores("1", "0")), "job 2: rank 1 is not up"),
            (allocation(2, cores("5", "0")), "job 2: rank 5 does not exist"),
            (allocation(2, Vec::new()), "job 2: allocation of nothing"),
        ];
        for (wrong, expected) in cases {
            assert_eq!(ledger.allocate(&wrong).unwrap_err().to_string(), expected);
        }
        assert!(ledger.is_pending(2));
    }

    #[test]
    fn introduction_tells_a_new_scheduler_everything() {
        let mut old = ledger();
        old.note(&Change::Alloc(vec![job(1), job(2)])).unwrap();
        old.allocate(&allocation(1, cores("0-1", "0-1"))).unwrap();
        let freed = Freed { id: 1, resources: cores("0", "0-1"), final_: false };
        old.note(&Change::Free(vec![freed])).unwrap();
        let mut new = Ledger::default();
        for change in old.introduction() {
            new.note(&change).unwrap();
        }
        assert_eq!(new.used, old.used);
        assert_eq!(new.up, old.up);
        assert_eq!(new.running.len(), 1);
        assert_eq!(old.pending().len(), 1);
    }

    proptest! {
        /// However jobs come and go, no core is held twice and none is lost.
        #[test]
        fn books_balance(steps in prop::collection::vec((0_u64..6, 0_u32..2, 0_u32..4, any::<bool>()), 1..200)) {
            let mut ledger = ledger();
            let mut held: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
            for (id, rank, core, last) in steps {
                if let Some((rank, core)) = held.remove(&id) {
                    let resources = cores(&rank.to_string(), &core.to_string());
                    let freed = Freed { id, resources, final_: last };
                    ledger.note(&Change::Free(vec![freed])).unwrap();
                    if !last {
                        let freed = Freed { id, resources: Vec::new(), final_: true };
                        ledger.note(&Change::Free(vec![freed])).unwrap();
                    }
                    continue;
                }
                ledger.note(&Change::Alloc(vec![job(id)])).unwrap();
                let wanted = allocation(id, cores(&rank.to_string(), &core.to_string()));
                let free = !held.values().any(|&other| other == (rank, core));
                prop_assert_eq!(ledger.allocate(&wanted).is_ok(), free);
                if free {
                    held.insert(id, (rank, core));
                } else {
                    ledger.deny(id).unwrap();
                }
            }
            let used: u64 = ledger.used.values().map(|used| used.cores.count()).sum();
            prop_assert_eq!(used, held.len() as u64);
        }
    }
}
