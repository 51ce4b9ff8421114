//! Set algebra, each operation linear in the number of ranges.

use super::Idset;
use std::ops::{BitAnd, BitOr, Sub};

impl Idset {
    pub fn union(&self, other: &Self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + other.ranges.len());
        let mut a = self.ranges().peekable();
        let mut b = other.ranges().peekable();
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if x <= y => a.next(),
                (_, Some(_)) => b.next(),
                (_, None) => a.next(),
            };
            let Some((lo, hi)) = next else { break };
            Self::push_range(&mut ranges, lo, hi);
        }
        Self { ranges }
    }

    pub fn intersect(&self, other: &Self) -> Self {
        let mut set = Self::new();
        Self::overlaps(self, other, |lo, hi| {
            set.ranges.push((lo, hi));
            true
        });
        set
    }

    /// The members of `self` that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len());
        let mut cuts = other.ranges().peekable();
        for (lo, hi) in self.ranges() {
            let mut start = Some(lo);
            while let (Some(from), Some(&(cut_lo, cut_hi))) = (start, cuts.peek()) {
                if cut_lo > hi {
                    break;
                }
                if cut_lo > from {
                    ranges.push((from, cut_lo - 1));
                }
                if cut_hi < hi {
                    start = Some(from.max(cut_hi + 1));
                    cuts.next();
                } else {
                    // This cut may reach into the next range too: keep it.
                    start = None;
                }
            }
            if let Some(from) = start {
                ranges.push((from, hi));
            }
        }
        Self { ranges }
    }

    pub fn union_with(&mut self, other: &Self) {
        match other.ranges.as_slice() {
            [] => {}
            &[(lo, hi)] => self.insert_range(lo, hi),
            _ => *self = self.union(other),
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        match other.ranges.as_slice() {
            [] => {}
            &[(lo, hi)] => self.remove_range(lo, hi),
            _ => *self = self.difference(other),
        }
    }

    pub fn intersects(&self, other: &Self) -> bool {
        let mut found = false;
        Self::overlaps(self, other, |_, _| {
            found = true;
            false
        });
        found
    }

    /// Whether every member of `self` is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.ranges().all(|(lo, hi)| {
            other
                .ranges
                .get(other.position(lo))
                .is_some_and(|&(other_lo, other_hi)| other_lo <= lo && hi <= other_hi)
        })
    }

    /// Call `each` for every common range until it returns false.
    fn overlaps(a: &Self, b: &Self, mut each: impl FnMut(u32, u32) -> bool) {
        let mut a = a.ranges().peekable();
        let mut b = b.ranges().peekable();
        while let (Some(&(a_lo, a_hi)), Some(&(b_lo, b_hi))) = (a.peek(), b.peek()) {
            let (lo, hi) = (a_lo.max(b_lo), a_hi.min(b_hi));
            if lo <= hi && !each(lo, hi) {
                return;
            }
            if a_hi < b_hi {
                a.next();
            } else {
                b.next();
            }
        }
    }
}

impl BitOr for &Idset {
    type Output = Idset;
    fn bitor(self, other: Self) -> Idset {
        self.union(other)
    }
}

impl BitAnd for &Idset {
    type Output = Idset;
    fn bitand(self, other: Self) -> Idset {
        self.intersect(other)
    }
}

impl Sub for &Idset {
    type Output = Idset;
    fn sub(self, other: Self) -> Idset {
        self.difference(other)
    }
}
