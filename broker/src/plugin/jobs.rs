//! The jobs that plugins may look up during a call, and that are announced to a plugin when it
//! starts. The job manager owns the jobs; plugins run on other threads and see this copy.

use super::v1::types::{Job, JobId, JobState};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

/// What plugins may know of a job. Texts are shared, not copied.
#[derive(Debug, Clone)]
pub struct JobFacts {
    /// The parsed record.
    pub job: Job,
    /// Jobspec without attributes.system.environment, JSON.
    pub jobspec: Arc<str>,
    /// R, JSON, from the alloc event on.
    pub resources: Option<Arc<str>>,
    /// Names of the events in its eventlog.
    pub events: BTreeSet<Arc<str>>,
}

/// The table. Cheap to clone; all clones are the same table.
#[derive(Debug, Clone, Default)]
pub struct SharedJobs {
    table: Arc<RwLock<HashMap<JobId, JobFacts>>>,
}

impl SharedJobs {
    /// Adds or replaces a job.
    pub fn put(&self, facts: JobFacts) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(facts.job.id, facts);
    }

    /// Changes a job in place; false when it is not there.
    pub fn update(&self, id: JobId, change: impl FnOnce(&mut JobFacts)) -> bool {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.get_mut(&id).map(change).is_some()
    }

    /// Removes a job: it was purged or refused.
    pub fn remove(&self, id: JobId) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Reads a job.
    pub fn read<T>(&self, id: JobId, read: impl FnOnce(&JobFacts) -> T) -> Option<T> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(&id).map(read)
    }

    /// Jobs that are to be announced to a plugin that starts: those past validation that are not
    /// inactive.
    pub(super) fn active(&self) -> Vec<Job> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let announced = |job: &&JobFacts| job.job.state != JobState::Inactive;
        table.values().filter(announced).map(|facts| facts.job.clone()).collect()
    }
}
