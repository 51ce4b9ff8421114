//! A run of hosts that share a prefix, or a single host without a number.

use std::cmp::Ordering;
use std::fmt::{self, Write};
use std::sync::Arc;

/// One host named by its prefix alone, or the hosts `prefix lo` to `prefix hi`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) prefix: Arc<str>,
    pub(super) numbers: Option<Numbers>,
}

/// Inclusive host numbers, printed with zeros in front up to `width` digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Numbers {
    pub(super) lo: u64,
    pub(super) hi: u64,
    pub(super) width: usize,
}

// === impl Run ===

impl Run {
    pub(super) fn single(name: &str) -> Self {
        Self { prefix: Arc::from(name), numbers: None }
    }

    /// Split a host name into prefix and number. None when it is empty or its number has more than
    /// 64 bits (Flux drops such a host silently).
    pub(super) fn from_host(name: &str) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = name.get(prefix.len()..).unwrap_or_default();
        if digits.is_empty() {
            return Some(Self::single(name));
        }
        let n = digits.parse().ok()?;
        let numbers = Numbers { lo: n, hi: n, width: digits.len() };
        Some(Self { prefix: Arc::from(prefix), numbers: Some(numbers) })
    }

    pub(super) fn count(&self) -> u64 {
        self.numbers.map_or(1, |n| (n.hi - n.lo).saturating_add(1))
    }

    /// The name of the host at `offset`, which must be below `count`.
    pub(super) fn host(&self, offset: u64) -> String {
        let mut name = String::with_capacity(self.prefix.len() + 8);
        name.push_str(&self.prefix);
        if let Some(n) = self.numbers {
            // Writing to a String cannot fail.
            let _ = n.write_number(&mut name, n.lo.saturating_add(offset));
        }
        name
    }

    /// Where in this run a host name stands.
    pub(super) fn offset_of(&self, host: &str) -> Option<u64> {
        let digits = host.strip_prefix(&*self.prefix)?;
        match self.numbers {
            None => digits.is_empty().then_some(0),
            Some(n) => n.offset_of(digits),
        }
    }

    /// Hosts `from..to` of this run, None when empty.
    pub(super) fn slice(&self, from: u64, to: u64) -> Option<Self> {
        if from >= to {
            return None;
        }
        let numbers = self.numbers.map(|n| Numbers {
            lo: n.lo.saturating_add(from),
            hi: n.lo.saturating_add(to - 1),
            ..n
        });
        Some(Self { prefix: self.prefix.clone(), numbers })
    }

    /// Take over `next` if its hosts directly continue this run.
    pub(super) fn join_next(&mut self, next: &Self) -> bool {
        let (Some(a), Some(b)) = (&mut self.numbers, &next.numbers) else { return false };
        if self.prefix != next.prefix || a.hi.checked_add(1) != Some(b.lo) {
            return false;
        }
        let Some(width) = a.common_width(b) else { return false };
        *a = Numbers { lo: a.lo, hi: b.hi, width };
        true
    }

    /// Whether both may stand in the same brackets.
    pub(super) fn shares_brackets(&self, other: &Self) -> bool {
        self.numbers.is_some() && other.numbers.is_some() && self.prefix == other.prefix
    }

    /// Order by prefix, hosts without a number first, then the length of the printed number, then
    /// the number.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let key = |run: &Self| run.numbers.map(|n| (n.printed_len(n.lo), n.lo));
        self.prefix.as_bytes().cmp(other.prefix.as_bytes()).then_with(|| key(self).cmp(&key(other)))
    }
}

// === impl Numbers ===

impl Numbers {
    pub(super) fn offset_of(&self, digits: &str) -> Option<u64> {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let n: u64 = digits.parse().ok()?;
        let here = (self.lo..=self.hi).contains(&n) && self.printed_len(n) == digits.len();
        here.then(|| n - self.lo)
    }

    pub(super) fn write_number(&self, out: &mut impl Write, n: u64) -> fmt::Result {
        write!(out, "{n:0width$}", width = self.width)
    }

    pub(super) fn printed_len(&self, n: u64) -> usize {
        self.width.max(digit_count(n))
    }

    /// A width that prints both runs' numbers as they are printed now.
    pub(super) fn common_width(&self, next: &Self) -> Option<usize> {
        let same = |width: usize, of: &Self| width.max(digit_count(of.lo)) == of.printed_len(of.lo);
        [next.width, self.width].into_iter().find(|&width| same(width, self) && same(width, next))
    }
}

fn digit_count(n: u64) -> usize {
    n.checked_ilog10().map_or(1, |log| log as usize + 1)
}
