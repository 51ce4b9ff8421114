//! The order in which jobs are sent to the scheduler.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use flux_protocol::fluid::JobId;

/// A queue's name; nothing is the anonymous queue.
pub(super) type QueueName = Option<String>;

/// Jobs of a queue: the highest priority first, the oldest first among equals.
type Order = BTreeSet<(Reverse<u32>, JobId)>;

/// Jobs that wait for their turn. No operation looks at all of them, and a stopped queue costs
/// nothing however many jobs are in it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queues: BTreeMap<QueueName, Order>,
    /// Where in `queues` each job is.
    places: HashMap<JobId, (QueueName, u32)>,
}

impl Waiting {
    /// Add a job, or move it to where it belongs now.
    pub(super) fn insert(&mut self, id: JobId, queue: QueueName, priority: u32) {
        self.remove(id);
        self.queues.entry(queue.clone()).or_default().insert((Reverse(priority), id));
        self.places.insert(id, (queue, priority));
    }

    pub(super) fn remove(&mut self, id: JobId) {
        let Some((queue, priority)) = self.places.remove(&id) else { return };
        if let Some(order) = self.queues.get_mut(&queue) {
            order.remove(&(Reverse(priority), id));
            if order.is_empty() {
                self.queues.remove(&queue);
            }
        }
    }

    /// A job that waits gets another priority; false when it does not wait.
    pub(super) fn reorder(&mut self, id: JobId, priority: u32) -> bool {
        let Some((queue, _)) = self.places.get(&id).cloned() else { return false };
        self.insert(id, queue, priority);
        true
    }

    /// Take the first job of the queues that are started.
    pub(super) fn take_next(&mut self, is_started: impl Fn(&QueueName) -> bool) -> Option<JobId> {
        let heads = self.queues.iter().filter(|(queue, _)| is_started(queue));
        let (_, id) = *heads.filter_map(|(_, order)| order.first()).min()?;
        self.remove(id);
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Jobs in the queues that are started.
    pub(super) fn count(&self, is_started: impl Fn(&QueueName) -> bool) -> usize {
        let started = self.queues.iter().filter(|(queue, _)| is_started(queue));
        started.map(|(_, order)| order.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(jobs: &[(u64, Option<&str>, u32)]) -> Waiting {
        let mut waiting = Waiting::default();
        for (id, queue, priority) in jobs {
            waiting.insert(JobId(*id), queue.map(str::to_owned), *priority);
        }
        waiting
    }

    fn drain(mut waiting: Waiting, is_started: impl Fn(&QueueName) -> bool) -> Vec<u64> {
        std::iter::from_fn(|| waiting.take_next(&is_started)).map(|id| id.0).collect()
    }

    #[test]
    fn the_highest_priority_of_all_started_queues_is_next() {
        let waiting = waiting(&[
            (1, Some("batch"), 16),
            (2, Some("debug"), 20),
            (3, Some("batch"), 20),
            (4, Some("batch"), 31),
        ]);
        assert_eq!(drain(waiting, |_| true), [4, 2, 3, 1]);
    }

    #[test]
    fn jobs_of_a_stopped_queue_keep_their_places() {
        let mut waiting = waiting(&[(1, Some("batch"), 16), (2, Some("debug"), 16)]);
        let started = |queue: &QueueName| queue.as_deref() == Some("debug");
        assert_eq!(waiting.count(started), 1);
        assert_eq!(waiting.take_next(started), Some(JobId(2)));
        assert_eq!(waiting.take_next(started), None);
        assert_eq!(waiting.len(), 1);
        assert_eq!(drain(waiting, |_| true), [1]);
    }

    #[test]
    fn a_job_waits_in_one_place_only() {
        let mut waiting = waiting(&[(1, None, 16), (2, None, 16)]);
        assert!(waiting.reorder(JobId(2), 31));
        assert!(!waiting.reorder(JobId(3), 31));
        waiting.insert(JobId(1), Some("batch".to_owned()), 8);
        waiting.remove(JobId(3));
        assert_eq!(waiting.len(), 2);
        assert_eq!(drain(waiting, |_| true), [2, 1]);
    }
}
