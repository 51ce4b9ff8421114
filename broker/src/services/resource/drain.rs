//! Drain state: which ranks get no more jobs, since when and why. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::idset::Idset;

/// The drained ranks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drain {
    by_rank: BTreeMap<u32, Drained>,
}

#[derive(Debug, Clone, PartialEq)]
struct Drained {
    /// Seconds since the epoch.
    timestamp: f64,
    reason: Option<Arc<str>>,
}

/// What is done about ranks that are drained already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// A reason is given only to those without one.
    No = 0,
    Reason = 1,
    ReasonAndTime = 2,
}

/// Ranks that were drained together, or at least at the same time and for the same reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub ranks: Idset,
    /// Whole seconds since the epoch.
    pub timestamp: f64,
    pub reason: String,
}

/// Why ranks are not drained, or not undrained.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    #[error("{} already drained", named(.0))]
    Drained(Idset),
    #[error("{} already drained or excluded", named(.0))]
    DrainedOrExcluded(Idset),
    #[error("{} excluded", named(.0))]
    Excluded(Idset),
    #[error("{} not drained", named(.0))]
    NotDrained(Idset),
}

// === impl Overwrite ===

impl Overwrite {
    pub fn from_number(number: i64) -> Option<Overwrite> {
        [Overwrite::No, Overwrite::Reason, Overwrite::ReasonAndTime]
            .into_iter()
            .find(|overwrite| *overwrite as i64 == number)
    }
}

// === impl DrainError ===

impl From<DrainError> for Failure {
    fn from(error: DrainError) -> Failure {
        let errno = match error {
            DrainError::Excluded(_) => Errno::EINVAL,
            _ => Errno::EEXIST,
        };
        Failure::new(errno, error.to_string())
    }
}

/// `rank 3` or `ranks 3-4`
fn named(ranks: &Idset) -> String {
    let s = if ranks.count() > 1 { "s" } else { "" };
    format!("rank{s} {ranks}")
}

// === impl Drain ===

impl Drain {
    pub fn ranks(&self) -> Idset {
        self.by_rank.keys().copied().collect()
    }

    pub fn drain(
        &mut self,
        ranks: &Idset,
        timestamp: f64,
        reason: Option<&str>,
        overwrite: Overwrite,
    ) {
        let reason: Option<Arc<str>> = reason.map(Arc::from);
        for rank in ranks.iter() {
            match self.by_rank.get_mut(&rank) {
                None => {
                    self.by_rank.insert(rank, Drained { timestamp, reason: reason.clone() });
                }
                Some(drained) => {
                    if overwrite != Overwrite::No || drained.reason.is_none() {
                        drained.reason.clone_from(&reason);
                    }
                    if overwrite == Overwrite::ReasonAndTime {
                        drained.timestamp = timestamp;
                    }
                }
            }
        }
    }

    pub fn undrain(&mut self, ranks: &Idset) {
        if ranks.count() < self.by_rank.len() as u64 {
            ranks.iter().for_each(|rank| {
                self.by_rank.remove(&rank);
            });
        } else {
            self.by_rank.retain(|&rank, _| !ranks.contains(rank));
        }
    }

    /// May all of `ranks` be drained: is none excluded, nor drained for a reason?
    pub fn may_drain(&self, ranks: &Idset, exclude: &Idset) -> Result<(), DrainError> {
        let has_reason = |rank: &u32| self.by_rank.get(rank).is_some_and(|d| d.reason.is_some());
        let drained: Idset = ranks.iter().filter(has_reason).collect();
        let excluded = ranks.intersect(exclude);
        match (drained.is_empty(), excluded.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => Err(DrainError::Drained(drained)),
            (true, false) => Err(DrainError::Excluded(excluded)),
            (false, false) => Err(DrainError::DrainedOrExcluded(drained.union(&excluded))),
        }
    }

    /// May all of `ranks` be undrained: are they drained?
    pub fn may_undrain(&self, ranks: &Idset) -> Result<(), DrainError> {
        let not: Idset = ranks.iter().filter(|rank| !self.by_rank.contains_key(rank)).collect();
        if not.is_empty() { Ok(()) } else { Err(DrainError::NotDrained(not)) }
    }

    /// The drained ranks by time and reason.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: BTreeMap<(i64, &str), Idset> = BTreeMap::new();
        for (&rank, Drained { timestamp, reason }) in &self.by_rank {
            // Whole numbers, so that what was drained in one breath is one group.
            let key = (timestamp.round() as i64, reason.as_deref().unwrap_or_default());
            groups.entry(key).or_default().insert(rank);
        }
        let group = |((timestamp, reason), ranks): ((i64, &str), _)| Group {
            ranks,
            timestamp: timestamp as f64,
            reason: reason.to_owned(),
        };
        groups.into_iter().map(group).collect()
    }

    /// As [`Drain::groups`], with exact times and with missing reasons told from empty ones.
    pub fn exact_groups(&self) -> Vec<(Idset, f64, Option<Arc<str>>)> {
        let mut groups: BTreeMap<(u64, Option<Arc<str>>), Idset> = BTreeMap::new();
        for (&rank, Drained { timestamp, reason }) in &self.by_rank {
            // Bits of positive numbers are in the numbers' order.
            groups.entry((timestamp.to_bits(), reason.clone())).or_default().insert(rank);
        }
        let group = |((bits, reason), ranks)| (ranks, f64::from_bits(bits), reason);
        groups.into_iter().map(group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Idset {
        text.parse().unwrap()
    }

    fn drained(ranks: &str, timestamp: f64, reason: &str) -> Drain {
        let mut drain = Drain::default();
        drain.drain(&ids(ranks), timestamp, Some(reason), Overwrite::No);
        drain
    }

    fn only(drain: &Drain) -> (f64, String) {
        let [group] = drain.groups().try_into().unwrap();
        (group.timestamp, group.reason)
    }

    #[test]
    fn drained_ranks_are_named_when_drained_again() {
        let drain = drained("1,3-4", 1.0, "x");
        let none = Idset::new();
        let refusal = |ranks: &str, exclude: &Idset| {
            let failure = Failure::from(drain.may_drain(&ids(ranks), exclude).unwrap_err());
            (failure.errno, failure.text.unwrap())
        };
        assert_eq!(refusal("1", &none), (Errno::EEXIST, "rank 1 already drained".to_owned()));
        assert_eq!(
            refusal("0-9", &none),
            (Errno::EEXIST, "ranks 1,3-4 already drained".to_owned())
        );
        assert_eq!(refusal("0", &ids("0")), (Errno::EINVAL, "rank 0 excluded".to_owned()));
        assert_eq!(
            refusal("0-1", &ids("0")),
            (Errno::EEXIST, "ranks 0-1 already drained or excluded".to_owned())
        );
        assert_eq!(drain.may_drain(&ids("0,2"), &none), Ok(()));
    }

    #[test]
    fn rank_without_a_reason_may_be_drained_again() {
        let mut drain = Drain::default();
        drain.drain(&ids("1"), 10.0, None, Overwrite::No);
        assert_eq!(drain.may_drain(&ids("1"), &Idset::new()), Ok(()));
        drain.drain(&ids("1"), 20.0, Some("late"), Overwrite::No);
        assert_eq!(only(&drain), (10.0, "late".to_owned()));
    }

    #[test]
    fn overwrite_decides_what_is_new() {
        for (overwrite, expected) in [
            (Overwrite::No, (10.0, "x".to_owned())),
            (Overwrite::Reason, (10.0, "y".to_owned())),
            (Overwrite::ReasonAndTime, (20.0, "y".to_owned())),
        ] {
            let mut drain = drained("1", 10.0, "x");
            drain.drain(&ids("1"), 20.0, Some("y"), overwrite);
            assert_eq!(only(&drain), expected);
        }
    }

    #[test]
    fn undrained_ranks_are_named_when_undrained_again() {
        let mut drain = drained("1-2", 1.0, "x");
        assert_eq!(drain.may_undrain(&ids("1")), Ok(()));
        drain.undrain(&ids("1"));
        assert_eq!(drain.may_undrain(&ids("1-2")), Err(DrainError::NotDrained(ids("1"))));
        assert_eq!(drain.ranks(), ids("2"));
        drain.undrain(&ids("0-9"));
        assert_eq!(drain, Drain::default());
    }

    #[test]
    fn groups_are_by_whole_second_and_reason() {
        let mut drain = drained("0", 1.1, "x");
        drain.drain(&ids("5"), 1.3, Some("x"), Overwrite::No);
        drain.drain(&ids("6"), 1.3, Some("y"), Overwrite::No);
        drain.drain(&ids("7"), 1.7, Some("x"), Overwrite::No);
        let groups: Vec<_> = drain
            .groups()
            .into_iter()
            .map(|g| (g.ranks.to_string(), g.timestamp, g.reason))
            .collect();
        let group = |ranks: &str, time, reason: &str| (ranks.to_owned(), time, reason.to_owned());
        assert_eq!(groups, [group("0,5", 1.0, "x"), group("6", 1.0, "y"), group("7", 2.0, "x")]);
        assert_eq!(drain.exact_groups().len(), 4);
    }
}
