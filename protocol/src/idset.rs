//! Sets of non-negative integers, RFC 22.
//!
//! A set is kept as sorted, disjoint, non-adjacent inclusive ranges, so that memory and time follow
//! the number of ranges and never the size of the numbers: `0-2147483647` costs eight bytes.

mod algebra;
mod text;

pub use text::IdsetError;

/// Largest id that a set can hold. Flux sizes its universe by a C `int`.
pub const MAX_ID: u32 = i32::MAX as u32;

/// A set of ids in `0..=MAX_ID`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Idset {
    /// Sorted; each `lo <= hi`; consecutive ranges leave a gap of at least one id.
    ranges: Vec<(u32, u32)>,
}

/// How [`Idset::encode_with`] writes a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Write runs as `lo-hi` rather than id by id.
    pub range: bool,
    /// Enclose the text in brackets when the set has more than one member.
    pub brackets: bool,
}

// === impl Idset ===

impl Idset {
    pub fn new() -> Self {
        Self::default()
    }

    /// The set of all ids from `lo` to `hi` inclusive, clipped to [`MAX_ID`]; empty when `lo > hi`.
    pub fn from_range(lo: u32, hi: u32) -> Self {
        let mut set = Self::new();
        set.insert_range(lo, hi);
        set
    }

    /// The first `n` ids: `0..n`.
    pub fn first_n(n: u32) -> Self {
        n.checked_sub(1).map_or_else(Self::new, |hi| Self::from_range(0, hi))
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of members.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|&(lo, hi)| u64::from(hi - lo) + 1).sum()
    }

    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|&(lo, _)| lo)
    }

    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|&(_, hi)| hi)
    }

    /// The smallest member that is greater than `id`.
    pub fn next(&self, id: u32) -> Option<u32> {
        let after = id.checked_add(1)?;
        let &(lo, _) = self.ranges.get(self.position(after))?;
        Some(lo.max(after))
    }

    /// The largest member that is smaller than `id`.
    pub fn prev(&self, id: u32) -> Option<u32> {
        let before = id.checked_sub(1)?;
        let end = self.ranges.partition_point(|&(lo, _)| lo <= before);
        let &(_, hi) = self.ranges.get(end.checked_sub(1)?)?;
        Some(hi.min(before))
    }

    pub fn contains(&self, id: u32) -> bool {
        self.ranges.get(self.position(id)).is_some_and(|&(lo, _)| lo <= id)
    }

    /// The inclusive ranges in ascending order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + DoubleEndedIterator + '_ {
        self.ranges.iter().copied()
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(lo, hi)| lo..=hi)
    }

    /// Add one id. Ids above [`MAX_ID`] are ignored. Returns whether the set changed.
    pub fn insert(&mut self, id: u32) -> bool {
        if id > MAX_ID || self.contains(id) {
            return false;
        }
        self.insert_range(id, id);
        true
    }

    /// Remove one id. Returns whether the set changed.
    pub fn remove(&mut self, id: u32) -> bool {
        if !self.contains(id) {
            return false;
        }
        self.remove_range(id, id);
        true
    }

    /// Add all ids from `lo` to `hi`, clipped to [`MAX_ID`]; nothing when `lo > hi`.
    pub fn insert_range(&mut self, lo: u32, hi: u32) {
        let hi = hi.min(MAX_ID);
        if lo > hi {
            return;
        }
        if self.last().is_none_or(|last| last < lo && lo - last > 1) {
            self.ranges.push((lo, hi));
            return;
        }
        // All ranges that overlap or touch [lo, hi] melt into one.
        let start = self.position(lo.saturating_sub(1));
        let end = self.ranges.partition_point(|&(l, _)| l <= hi.saturating_add(1));
        let touched = self.ranges.get(start..end).unwrap_or_default();
        let lo = touched.first().map_or(lo, |&(l, _)| l.min(lo));
        let hi = touched.last().map_or(hi, |&(_, h)| h.max(hi));
        self.ranges.splice(start..end.max(start), [(lo, hi)]);
    }

    /// Remove all ids from `lo` to `hi`; nothing when `lo > hi`.
    pub fn remove_range(&mut self, lo: u32, hi: u32) {
        if lo > hi {
            return;
        }
        let start = self.position(lo);
        let end = self.ranges.partition_point(|&(l, _)| l <= hi);
        let hit = self.ranges.get(start..end).unwrap_or_default();
        let (Some(&(first_lo, _)), Some(&(_, last_hi))) = (hit.first(), hit.last()) else {
            return;
        };
        let left = (first_lo < lo).then(|| (first_lo, lo - 1));
        let right = (last_hi > hi).then(|| (hi + 1, last_hi));
        self.ranges.splice(start..end, left.into_iter().chain(right));
    }

    /// Remove and return the smallest id.
    pub fn take_first(&mut self) -> Option<u32> {
        let id = self.first()?;
        self.remove_range(id, id);
        Some(id)
    }

    /// The set made of the `n` smallest members (all of them when there are fewer).
    pub fn lowest(&self, n: u64) -> Self {
        let mut left = n;
        let mut ranges = Vec::new();
        for &(lo, hi) in &self.ranges {
            if left == 0 {
                break;
            }
            let take = (u64::from(hi - lo) + 1).min(left);
            left -= take;
            ranges.push((lo, u32::try_from(u64::from(lo) + take - 1).unwrap_or(hi)));
        }
        Self { ranges }
    }

    /// Index of the first range that ends at `id` or later.
    fn position(&self, id: u32) -> usize {
        self.ranges.partition_point(|&(_, hi)| hi < id)
    }

    /// Append a range that starts at or after the end of the last one, joining neighbours.
    fn push_range(ranges: &mut Vec<(u32, u32)>, lo: u32, hi: u32) {
        match ranges.last_mut() {
            Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
            _ => ranges.push((lo, hi)),
        }
    }
}

impl FromIterator<u32> for Idset {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut set = Self::new();
        set.extend(ids);
        set
    }
}

impl Extend<u32> for Idset {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, ids: I) {
        let mut ids: Vec<u32> = ids.into_iter().filter(|&id| id <= MAX_ID).collect();
        ids.sort_unstable();
        let mut added = Self::new();
        for id in ids {
            Self::push_range(&mut added.ranges, id, id);
        }
        self.union_with(&added);
    }
}
