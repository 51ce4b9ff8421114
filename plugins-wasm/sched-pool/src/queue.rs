//! Jobs that wait, by priority and then by id.
//!
//! A job that nothing but a node's return can help is set aside: it keeps its place, and nobody
//! waits for it.

use crate::request::Want;
use flux_plugin::types::{Job, JobId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// A job that waits.
#[derive(Clone, Debug)]
pub struct Pending {
    pub id: JobId,
    pub want: Want,
    /// Generation of the pool for which it was found to be possible.
    pub feasible: Option<u64>,
    /// State of the nodes for which it was found to be possible with those that are up.
    pub has_nodes: Option<u64>,
    /// Start that was last announced.
    pub estimate: Option<f64>,
    /// Why it waits, as last told.
    pub reason: Option<String>,
    /// Whether an annotation has to be withdrawn when it starts.
    pub annotated: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    jobs: BTreeMap<(Reverse<u32>, JobId), Pending>,
    aside: BTreeMap<(Reverse<u32>, JobId), Pending>,
    priorities: HashMap<JobId, u32>,
}

impl Queue {
    /// Adds a job.
    pub fn push(&mut self, job: &Job, want: Want) {
        self.remove(job.id);
        let priority = job.priority.unwrap_or_default();
        let pending = Pending {
            id: job.id,
            want,
            feasible: None,
            has_nodes: None,
            estimate: None,
            reason: None,
            annotated: false,
        };
        self.jobs.insert((Reverse(priority), job.id), pending);
        self.priorities.insert(job.id, priority);
    }

    /// Removes a job, if it is there.
    pub fn remove(&mut self, id: JobId) -> Option<Pending> {
        let priority = self.priorities.remove(&id)?;
        let key = (Reverse(priority), id);
        self.jobs.remove(&key).or_else(|| self.aside.remove(&key))
    }

    /// Sets a job aside.
    pub fn set_aside(&mut self, id: JobId) -> Option<&mut Pending> {
        let key = (Reverse(*self.priorities.get(&id)?), id);
        let pending = self.jobs.remove(&key)?;
        Some(self.aside.entry(key).or_insert(pending))
    }

    /// How many jobs are set aside.
    pub fn aside(&self) -> usize {
        self.aside.len()
    }

    /// Those that were set aside are back in their places.
    pub fn recall(&mut self) {
        self.jobs.append(&mut self.aside);
    }

    /// Moves a job to another priority.
    pub fn prioritize(&mut self, id: JobId, priority: u32) {
        if let Some(pending) = self.remove(id) {
            self.jobs.insert((Reverse(priority), id), pending);
            self.priorities.insert(id, priority);
        }
    }

    /// The first job.
    pub fn head(&mut self) -> Option<&mut Pending> {
        self.jobs.values_mut().next()
    }

    /// A job by id, unless it was set aside.
    pub fn get(&self, id: JobId) -> Option<&Pending> {
        let priority = self.priorities.get(&id)?;
        self.jobs.get(&(Reverse(*priority), id))
    }

    /// As [`Queue::get`].
    pub fn get_mut(&mut self, id: JobId) -> Option<&mut Pending> {
        let priority = self.priorities.get(&id)?;
        self.jobs.get_mut(&(Reverse(*priority), id))
    }

    /// The next jobs behind one, at most `count`; none behind one that is not there.
    pub fn after(&self, id: JobId, count: usize) -> Vec<JobId> {
        let Some(priority) = self.priorities.get(&id) else { return Vec::new() };
        let key = (Reverse(*priority), id);
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        self.jobs.range(behind).take(count).map(|((_, id), _)| *id).collect()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.jobs.values()
    }

    /// In order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.jobs.values_mut()
    }

    pub fn len(&self) -> usize {
        self.jobs.len() + self.aside.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
