//! Who has how much of what: jobs, nodes and cores by association, queue and stage.

use crate::data::Key;
use flux_plugin::types::{Job, JobId};
use std::collections::{BTreeMap, BTreeSet};

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Held by a dependency.
    Held,
    /// On its way to the scheduler.
    Admitted,
    /// Waits for resources.
    Sched,
    /// Has resources.
    Run,
}

/// Jobs and what they asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) jobs: i64,
    pub(crate) nodes: i64,
    pub(crate) cores: i64,
}

impl Amount {
    fn add(&mut self, other: Amount, sign: i64) {
        self.jobs += sign * other.jobs;
        self.nodes += sign * other.nodes;
        self.cores += sign * other.cores;
    }

    fn plus(mut self, other: Amount) -> Amount {
        self.add(other, 1);
        self
    }
}

/// What jobs there are in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// In any stage.
    pub(crate) active: Amount,
    pub(crate) admitted: Amount,
    pub(crate) sched: Amount,
    pub(crate) run: Amount,
}

impl Usage {
    /// Runs, or will as soon as there are resources.
    pub(crate) fn committed(&self) -> Amount {
        self.waiting().plus(self.run)
    }

    /// Waits for resources, or is about to.
    pub(crate) fn waiting(&self) -> Amount {
        self.admitted.plus(self.sched)
    }

    fn add(&mut self, stage: Stage, amount: Amount, sign: i64) {
        self.active.add(amount, sign);
        match stage {
            Stage::Held => {}
            Stage::Admitted => self.admitted.add(amount, sign),
            Stage::Sched => self.sched.add(amount, sign),
            Stage::Run => self.run.add(amount, sign),
        }
    }
}

/// An active job of a known association.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) key: Key,
    /// Empty where it names none.
    pub(crate) queue: String,
    pub(crate) amount: Amount,
    pub(crate) stage: Stage,
    /// Our dependencies that keep it.
    pub(crate) held_by: Vec<&'static str>,
    /// Others keep it too.
    pub(crate) has_others: bool,
    /// Fair share that its eventlog says.
    pub(crate) fairshare: Option<f64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    jobs: BTreeMap<JobId, Record>,
    /// Those that limits hold.
    held: BTreeMap<Key, BTreeSet<JobId>>,
    usage: BTreeMap<Key, BTreeMap<String, Usage>>,
}

impl Ledger {
    /// Counts a job; one that is there already stays as it is.
    pub(crate) fn add(&mut self, id: JobId, record: Record) {
        if !self.jobs.contains_key(&id) {
            self.count(&record, 1);
            if !record.held_by.is_empty() {
                self.held.entry(record.key.clone()).or_default().insert(id);
            }
            self.jobs.insert(id, record);
        }
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Option<Record> {
        let record = self.jobs.remove(&id)?;
        self.count(&record, -1);
        if let Some(held) = self.held.get_mut(&record.key)
            && held.remove(&id)
            && held.is_empty()
        {
            self.held.remove(&record.key);
        }
        Some(record)
    }

    pub(crate) fn get(&self, id: JobId) -> Option<&Record> {
        self.jobs.get(&id)
    }

    /// Changes a record and keeps the sums right.
    pub(crate) fn change(&mut self, id: JobId, change: impl FnOnce(&mut Record)) {
        if let Some(mut record) = self.remove(id) {
            change(&mut record);
            self.add(id, record);
        }
    }

    /// Moves a job on.
    pub(crate) fn advance(&mut self, id: JobId, stage: Stage) {
        self.change(id, |record| record.stage = stage);
    }

    /// Of an association in one queue ("" for none).
    pub(crate) fn in_queue(&self, key: &Key, queue: &str) -> Usage {
        let usage = self.usage.get(key).and_then(|queues| queues.get(queue));
        usage.copied().unwrap_or_default()
    }

    /// Of an association in all queues.
    pub(crate) fn total(&self, key: &Key) -> Usage {
        let mut total = Usage::default();
        for usage in self.usage.get(key).into_iter().flat_map(BTreeMap::values) {
            total.active.add(usage.active, 1);
            total.admitted.add(usage.admitted, 1);
            total.sched.add(usage.sched, 1);
            total.run.add(usage.run, 1);
        }
        total
    }

    /// Queues in which an association has jobs, or had some.
    pub(crate) fn queues(&self, key: &Key) -> impl Iterator<Item = (&String, &Usage)> {
        self.usage.get(key).into_iter().flatten()
    }

    /// Jobs of an association that limits hold, in the order of their ids.
    pub(crate) fn held(&self, key: &Key) -> Vec<JobId> {
        self.held.get(key).into_iter().flatten().copied().collect()
    }

    /// Associations with jobs that limits hold.
    pub(crate) fn waiting(&self) -> Vec<Key> {
        self.held.keys().cloned().collect()
    }

    fn count(&mut self, record: &Record, sign: i64) {
        let queues = self.usage.entry(record.key.clone()).or_default();
        let usage = queues.entry(record.queue.clone()).or_default();
        usage.add(record.stage, record.amount, sign);
    }
}

/// What a job asks for; none when that can't be told. Cores alone are on one node at least.
pub(crate) fn amount(job: &Job) -> Option<Amount> {
    let request = job.request?;
    let nodes = request.nodes.map(|nodes| i64::from(nodes.min));
    let slots = i64::from(request.slots.min).saturating_mul(nodes.unwrap_or(1));
    let cores = slots.saturating_mul(i64::from(request.cores_per_slot));
    Some(Amount { jobs: 1, nodes: nodes.unwrap_or(1).max(1), cores })
}
