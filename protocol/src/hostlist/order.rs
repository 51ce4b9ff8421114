//! Sorting runs, with duplicates kept or dropped.

use super::Hostlist;
use super::run::{Numbers, Run};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Runs in order. Where runs overlap, their hosts are merged one by one: `[5-7,6-8]` becomes
/// `[5-6,6-7,7-8]`.
pub(super) fn sorted(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by(Run::order);
    let mut list = Hostlist::new();
    let mut pending = runs.into_iter().peekable();
    while let Some(first) = pending.next() {
        let mut furthest = first.clone();
        let mut group = vec![first];
        while let Some(next) = pending.next_if(|next| overlap(&furthest, next)) {
            if next.numbers.map(|n| n.hi) > furthest.numbers.map(|n| n.hi) {
                furthest = next.clone();
            }
            group.push(next);
        }
        match group.as_slice() {
            [_] => group.into_iter().for_each(|run| list.push_run(run)),
            _ => merge(&group, &mut list),
        }
    }
    list.runs
}

/// Sort and join runs so that each host occurs once.
pub(super) fn unique(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by(Run::order);
    let mut kept: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        if !kept.last_mut().is_some_and(|last| absorb(last, &run)) {
            kept.push(run);
        }
    }
    kept
}

/// Take `next` into `last` where they touch or overlap; `last` sorts first.
fn absorb(last: &mut Run, next: &Run) -> bool {
    if last == next || last.join_next(next) {
        return true;
    }
    if !overlap(last, next) {
        return false;
    }
    let (Some(a), Some(b)) = (&mut last.numbers, &next.numbers) else { return false };
    let Some(width) = a.common_width(b) else { return false };
    *a = Numbers { lo: a.lo, hi: a.hi.max(b.hi), width };
    true
}

/// Whether `next`, which sorts after `run`, begins inside it.
fn overlap(run: &Run, next: &Run) -> bool {
    let (Some(a), Some(b)) = (&run.numbers, &next.numbers) else { return false };
    run.prefix == next.prefix && a.hi >= b.lo && a.common_width(b).is_some()
}

/// Append the hosts of overlapping runs in ascending order.
fn merge(group: &[Run], list: &mut Hostlist) {
    let mut heads: BinaryHeap<_> =
        (0..group.len()).filter_map(|i| Some(Reverse((group.get(i)?.numbers?.lo, i)))).collect();
    while let Some(Reverse((number, i))) = heads.pop() {
        let Some(run) = group.get(i) else { return };
        let Some(numbers) = run.numbers else { return };
        // Up to the next run's head this run is alone.
        let stop = heads.peek().map_or(numbers.hi, |Reverse((next, _))| {
            numbers.hi.min(number.max(next.saturating_sub(1)))
        });
        let piece = Numbers { lo: number, hi: stop, width: numbers.width };
        list.push_run(Run { prefix: run.prefix.clone(), numbers: Some(piece) });
        if stop < numbers.hi {
            heads.push(Reverse((stop + 1, i)));
        }
    }
}
