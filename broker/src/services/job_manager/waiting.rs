//! The order in which jobs are sent to the scheduler.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use flux_protocol::fluid::JobId;

/// A queue's name; nothing is the anonymous queue.
pub(super) type QueueName = Option<String>;

/// The highest priority first, the oldest first among equals.
type Place = (Reverse<u32>, JobId);

/// Jobs of a queue.
type Order = BTreeSet<Place>;

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

    /// False when it was not there.
    pub(super) fn remove(&mut self, id: JobId) -> bool {
        let Some((queue, priority)) = self.places.remove(&id) else { return false };
        if let Some(order) = self.queues.get_mut(&queue) {
            order.remove(&(Reverse(priority), id));
            if order.is_empty() {
                self.queues.remove(&queue);
            }
        }
        true
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

    pub(super) fn contains(&self, id: JobId) -> bool {
        self.places.contains_key(&id)
    }

    /// All jobs, which are not in it any more.
    pub(super) fn drain(&mut self) -> Vec<JobId> {
        self.queues.clear();
        self.places.drain().map(|(id, _)| id).collect()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.places.keys().copied()
    }

    fn last(&self) -> Option<Place> {
        self.queues.values().filter_map(|order| order.last()).max().copied()
    }

    fn order(&self, queue: &QueueName) -> impl Iterator<Item = Place> + '_ {
        self.queues.get(queue).into_iter().flatten().copied()
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

/// What to do with jobs, for the right ones to be at the scheduler.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) send: Vec<JobId>,
    /// Others, which came later, go before them.
    pub(super) recall: Vec<JobId>,
}

/// Whether a scheduler that has as many jobs as it takes may lack some that it should have.
pub(super) fn lacks(
    waiting: &Waiting,
    sent: &Waiting,
    limit: usize,
    is_started: impl Fn(&QueueName) -> bool,
) -> bool {
    let share = share(limit, names(waiting, sent, &is_started).len());
    let last = sent.last();
    let mut started = waiting.queues.iter().filter(|(name, _)| is_started(name));
    started.any(|(name, order)| {
        let count = sent.queues.get(name).map_or(0, BTreeSet::len);
        count < share || order.first().copied() < last
    })
}

/// Queues that have a part in it.
fn names<'a>(
    waiting: &'a Waiting,
    sent: &'a Waiting,
    is_started: impl Fn(&QueueName) -> bool,
) -> BTreeSet<&'a QueueName> {
    let started = waiting.queues.keys().filter(|name| is_started(name));
    started.chain(sent.queues.keys()).collect()
}

fn share(limit: usize, queues: usize) -> usize {
    (limit / queues.max(1)).max(1)
}

/// The scheduler takes `limit` jobs at a time: the first of all that wait, wherever they are. Of
/// each queue that is started it is sent an equal share of that many at least, and one in any case:
/// jobs that can't start, because what their queue runs on is taken or drained, would keep those
/// of the other queues from being looked at.
pub(super) fn plan(
    waiting: &Waiting,
    sent: &Waiting,
    limit: usize,
    is_started: impl Fn(&QueueName) -> bool,
) -> Plan {
    let names = names(waiting, sent, &is_started);
    let share = share(limit, names.len());
    let mut plan = Plan::default();
    // Heads of the queues, each with what comes behind it and how many were taken of it.
    let mut heads = Vec::new();
    for name in names {
        let waits = waiting.order(name).map(|place| (place, false));
        let waits = waits.take(if is_started(name) { limit } else { 0 });
        let sent = sent.order(name).map(|place| (place, true));
        let mut candidates: Vec<(Place, bool)> = waits.chain(sent).collect();
        candidates.sort_unstable();
        heads.push((candidates.into_iter().peekable(), 0));
    }
    let mut taken = 0;
    loop {
        let next = heads.iter_mut().enumerate().filter_map(|(index, (candidates, count))| {
            let room = taken < limit || *count < share;
            candidates.peek().filter(|_| room).map(|(place, _)| (*place, index))
        });
        let Some((_, index)) = next.min() else { break };
        let Some((candidates, count)) = heads.get_mut(index) else { break };
        let Some(((_, id), is_sent)) = candidates.next() else { break };
        *count += 1;
        taken += 1;
        if !is_sent {
            plan.send.push(id);
        }
    }
    for (candidates, _) in heads {
        plan.recall.extend(candidates.filter(|(_, is_sent)| *is_sent).map(|((_, id), _)| id));
    }
    plan
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

    fn plan_of(waits: &[(u64, Option<&str>, u32)], sent: &[(u64, Option<&str>, u32)]) -> Plan {
        let (waits, sent) = (waiting(waits), waiting(sent));
        let is_started = |name: &QueueName| name.as_deref() != Some("stopped");
        let plan = plan(&waits, &sent, 4, is_started);
        let full = sent.len() >= 4;
        assert!(!full || plan == Plan::default() || lacks(&waits, &sent, 4, is_started));
        plan
    }

    fn ids(jobs: &[u64]) -> Vec<JobId> {
        jobs.iter().copied().map(JobId).collect()
    }

    #[test]
    fn the_scheduler_has_the_first_of_all_jobs() {
        let waits = [(1, None, 16), (2, None, 16), (3, None, 20), (4, None, 8), (5, None, 16)];
        assert_eq!(plan_of(&waits, &[]), Plan { send: ids(&[3, 1, 2, 5]), recall: vec![] });
        let sent = [(11, None, 16), (12, None, 16), (13, None, 16), (14, None, 2)];
        // Two go before the last that was sent, and one of them before all.
        let plan = plan_of(&[(20, None, 17), (15, None, 16), (21, None, 1)], &sent);
        assert_eq!(plan, Plan { send: ids(&[20]), recall: ids(&[14]) });
        assert_eq!(plan_of(&[(21, None, 1)], &sent), Plan::default());
        assert_eq!(plan_of(&[], &[]), Plan::default());
    }

    #[test]
    fn a_queue_that_has_filled_the_scheduler_does_not_keep_out_the_others() {
        let a = |id| (id, Some("a"), 16);
        let sent = [a(1), a(2), a(3), a(4)];
        let b = |id| (id, Some("b"), 8);
        let waits = [a(5), b(6), b(7), b(8), (9, Some("stopped"), 31)];
        assert_eq!(plan_of(&waits, &sent), Plan { send: ids(&[6, 7]), recall: vec![] });
        // That is how it is to be: nothing more is sent or recalled then.
        let sent = [a(1), a(2), a(3), a(4), b(6), b(7)];
        assert_eq!(plan_of(&[a(5), b(8)], &sent), Plan::default());
        // What there is to share goes to the highest priority.
        let c = |id| (id, Some("c"), 31);
        let plan = plan_of(&[a(5), b(8), c(10), c(11), c(12)], &sent);
        assert_eq!(plan, Plan { send: ids(&[10, 11, 12]), recall: ids(&[2, 3, 4, 7]) });
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
