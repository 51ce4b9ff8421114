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

    fn count_of(&self, queue: &QueueName) -> usize {
        self.queues.get(queue).map_or(0, BTreeSet::len)
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

/// Whether a scheduler that has as many jobs as it takes may lack some that it should have.
pub(super) fn lacks(
    waiting: &Waiting,
    sent: &Waiting,
    limit: usize,
    is_started: impl Fn(&QueueName) -> bool,
) -> bool {
    let share = limit / names(waiting, sent, &is_started).len().max(1);
    let last = sent.last();
    let mut started = waiting.queues.iter().filter(|(name, _)| is_started(name));
    started.any(|(name, order)| sent.count_of(name) < share || order.first().copied() < last)
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

/// The job to send to a scheduler that takes `limit` at a time and has fewer. Each queue that is
/// started has an equal share of that: jobs that can't start, because what their queue runs on is
/// taken or drained, would keep those of the other queues from being looked at. What is left over
/// goes to the first of all that wait, wherever they are.
pub(super) fn next(
    waiting: &Waiting,
    sent: &Waiting,
    limit: usize,
    is_started: impl Fn(&QueueName) -> bool,
) -> Option<JobId> {
    if sent.len() >= limit {
        return None;
    }
    let share = limit / names(waiting, sent, &is_started).len().max(1);
    let started = waiting.queues.iter().filter(|(name, _)| is_started(name));
    let heads = started.filter_map(|(name, order)| {
        let has_share = sent.count_of(name) >= share;
        order.first().map(|place| (has_share, *place))
    });
    heads.min().map(|(_, (_, id))| id)
}

/// The jobs that are to come back from the scheduler, because others that came later go before
/// them: what [`next`] would not send if nothing had been sent yet.
pub(super) fn recalled(
    waiting: &Waiting,
    sent: &Waiting,
    limit: usize,
    is_started: impl Fn(&QueueName) -> bool,
) -> Vec<JobId> {
    let names = names(waiting, sent, &is_started);
    let share = limit / names.len().max(1);
    let mut kept = 0;
    let mut others: Vec<(Place, bool)> = Vec::new();
    for name in names {
        let waits = waiting.order(name).map(|place| (place, false));
        let waits = waits.take(if is_started(name) { limit } else { 0 });
        let sent = sent.order(name).map(|place| (place, true));
        let mut candidates: Vec<(Place, bool)> = waits.chain(sent).collect();
        candidates.sort_unstable();
        kept += candidates.len().min(share);
        others.extend(candidates.drain(..).skip(share));
    }
    others.sort_unstable();
    let back = others.into_iter().skip(limit.saturating_sub(kept));
    back.filter(|(_, is_sent)| *is_sent).map(|((_, id), _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spec = (u64, Option<&'static str>, u32);

    fn waiting(jobs: &[Spec]) -> Waiting {
        let mut waiting = Waiting::default();
        for (id, queue, priority) in jobs {
            waiting.insert(JobId(*id), queue.map(str::to_owned), *priority);
        }
        waiting
    }

    fn is_started(name: &QueueName) -> bool {
        name.as_deref() != Some("stopped")
    }

    fn ids(jobs: &Waiting) -> Vec<u64> {
        let mut ids: Vec<u64> = jobs.ids().map(|id| id.0).collect();
        ids.sort_unstable();
        ids
    }

    fn shift(id: JobId, from: &mut Waiting, to: &mut Waiting) {
        let (queue, priority) = from.places.get(&id).cloned().unwrap();
        from.remove(id);
        to.insert(id, queue, priority);
    }

    /// What the scheduler has, once what is to be recalled is back and nothing more is to be sent.
    fn settled(waits: &[Spec], sent: &[Spec], limit: usize) -> Vec<u64> {
        let (mut waits, mut sent) = (waiting(waits), waiting(sent));
        for _ in 0..100 {
            while let Some(id) = next(&waits, &sent, limit, is_started) {
                shift(id, &mut waits, &mut sent);
            }
            let back = recalled(&waits, &sent, limit, is_started);
            assert!(
                back.is_empty() || sent.len() > limit || lacks(&waits, &sent, limit, is_started)
            );
            if back.is_empty() {
                return ids(&sent);
            }
            back.into_iter().for_each(|id| shift(id, &mut sent, &mut waits));
        }
        panic!("jobs go there and back");
    }

    fn order(mut waits: Waiting, is_started: impl Fn(&QueueName) -> bool) -> Vec<u64> {
        let mut sent = Waiting::default();
        let take = || {
            let id = next(&waits, &sent, usize::MAX, &is_started)?;
            shift(id, &mut waits, &mut sent);
            sent.remove(id);
            Some(id.0)
        };
        std::iter::from_fn(take).collect()
    }

    #[test]
    fn the_highest_priority_of_all_started_queues_is_next() {
        let waiting = waiting(&[
            (1, Some("batch"), 16),
            (2, Some("debug"), 20),
            (3, Some("batch"), 20),
            (4, Some("batch"), 31),
        ]);
        assert_eq!(order(waiting, |_| true), [4, 2, 3, 1]);
    }

    #[test]
    fn jobs_of_a_stopped_queue_keep_their_places() {
        let mut waiting = waiting(&[(1, Some("batch"), 16), (2, Some("debug"), 16)]);
        let started = |queue: &QueueName| queue.as_deref() == Some("debug");
        assert_eq!(waiting.count(started), 1);
        let sent = Waiting::default();
        assert_eq!(next(&waiting, &sent, 8, started), Some(JobId(2)));
        waiting.remove(JobId(2));
        assert_eq!(next(&waiting, &sent, 8, started), None);
        assert_eq!(waiting.len(), 1);
        assert_eq!(order(waiting, |_| true), [1]);
    }

    #[test]
    fn the_scheduler_has_the_first_of_all_jobs() {
        let waits = [(1, None, 16), (2, None, 16), (3, None, 20), (4, None, 8), (5, None, 16)];
        assert_eq!(settled(&waits, &[], 4), [1, 2, 3, 5]);
        let sent = [(11, None, 16), (12, None, 16), (13, None, 16), (14, None, 2)];
        // Two go before the last that was sent, and one of them before all.
        assert_eq!(
            settled(&[(20, None, 17), (15, None, 16), (21, None, 1)], &sent, 4),
            [11, 12, 13, 20]
        );
        assert_eq!(settled(&[(21, None, 1)], &sent, 4), [11, 12, 13, 14]);
        assert_eq!(settled(&[], &[], 4), [0; 0]);
    }

    #[test]
    fn a_queue_that_has_filled_the_scheduler_makes_room_for_the_others() {
        let a = |id| (id, Some("a"), 16);
        let sent = [a(1), a(2), a(3), a(4)];
        let b = |id| (id, Some("b"), 8);
        let waits = [a(5), b(6), b(7), b(8), (9, Some("stopped"), 31)];
        assert_eq!(settled(&waits, &sent, 4), [1, 2, 6, 7]);
        // What a queue does not need is there for the others, and for the highest priority first.
        assert_eq!(settled(&[a(5), b(6)], &sent, 4), [1, 2, 3, 6]);
        let c = |id| (id, Some("c"), 31);
        let waits = [a(5), b(8), c(10), c(11), c(12)];
        assert_eq!(settled(&waits, &[a(1), a(2), b(6), b(7)], 4), [1, 6, 10, 11]);
        // With fewer places than queues, the first of all have them.
        assert_eq!(settled(&[c(10), b(6)], &[a(1)], 1), [10]);
    }

    #[test]
    fn several_queues_together_have_no_more_than_the_scheduler_takes() {
        let queues = [Some("a"), Some("b"), Some("c"), Some("stopped")];
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            (seed >> 33) % below
        };
        for _ in 0..500 {
            let limit = 1 + random(6) as usize;
            let mut jobs: Vec<Spec> = (0..random(20))
                .map(|id| (id, queues[random(4) as usize], random(4) as u32))
                .collect();
            let mut sent: Vec<Spec> = Vec::new();
            while sent.len() < limit && !jobs.is_empty() && random(4) > 0 {
                sent.push(jobs.swap_remove(random(jobs.len() as u64) as usize));
            }
            // Those of a stopped queue come back by themselves.
            sent.retain(|job| job.1 != Some("stopped"));
            let wanted = jobs.iter().filter(|job| job.1 != Some("stopped")).count() + sent.len();
            let has = settled(&jobs, &sent, limit);
            assert_eq!(has.len(), wanted.min(limit), "{jobs:?} {sent:?} {limit}");
            // However it came about, it is what it would be from the beginning.
            let all = [jobs, sent].concat();
            assert_eq!(has, settled(&all, &[], limit), "{all:?} {limit}");
        }
    }

    #[test]
    fn a_job_waits_in_one_place_only() {
        let mut waiting = waiting(&[(1, None, 16), (2, None, 16)]);
        assert!(waiting.reorder(JobId(2), 31));
        assert!(!waiting.reorder(JobId(3), 31));
        waiting.insert(JobId(1), Some("batch".to_owned()), 8);
        waiting.remove(JobId(3));
        assert_eq!(waiting.len(), 2);
        assert_eq!(order(waiting, |_| true), [2, 1]);
    }
}
