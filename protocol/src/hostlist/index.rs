//! Look-up of many hosts in one list.

use super::Hostlist;
use super::run::Numbers;
use std::collections::{HashMap, HashSet};

/// Finds the position of a host without walking the list.
#[derive(Debug)]
pub struct HostIndex<'a> {
    by_prefix: HashMap<&'a str, Prefix>,
}

/// The runs of one prefix.
#[derive(Debug, Default)]
struct Prefix {
    /// Positions of hosts that have no number.
    singles: Vec<u64>,
    /// Sorted by lowest number.
    numbered: Vec<Numbered>,
}

#[derive(Debug)]
struct Numbered {
    numbers: Numbers,
    /// List position of the lowest number.
    position: u64,
    /// Highest number of this run and all before it.
    highest: u64,
}

// === impl HostIndex ===

impl<'a> HostIndex<'a> {
    /// Effort: the number of runs, sorted.
    pub fn new(list: &'a Hostlist) -> Self {
        let mut by_prefix: HashMap<&str, Prefix> = HashMap::new();
        let mut position = 0;
        for run in &list.runs {
            let prefix = by_prefix.entry(&run.prefix).or_default();
            match run.numbers {
                None => prefix.singles.push(position),
                Some(numbers) => {
                    prefix.numbered.push(Numbered { numbers, position, highest: 0 });
                }
            }
            position += run.count();
        }
        by_prefix.values_mut().for_each(Prefix::finish);
        Self { by_prefix }
    }

    /// Position of the first occurrence of a host.
    pub fn find(&self, host: &str) -> Option<u64> {
        self.positions(host).min()
    }

    /// All positions of a host, in no order.
    fn positions(&self, host: &str) -> impl Iterator<Item = u64> {
        let digits = host.bytes().rev().take_while(u8::is_ascii_digit).count();
        // The list may hold `r1[00-20]`: the prefix can end anywhere among the last digits.
        (host.len() - digits..=host.len())
            .filter_map(|split| host.split_at_checked(split))
            .filter_map(|(prefix, digits)| Some((self.by_prefix.get(prefix)?, digits)))
            .flat_map(|(prefix, digits)| prefix.positions(digits))
    }

    /// Positions of the first occurrences of the hosts in `list`; a host listed twice stands for
    /// its first two occurrences. Ascending.
    pub(super) fn positions_to_delete(&self, list: &Hostlist) -> Vec<u64> {
        let mut taken = HashSet::new();
        for host in list.iter() {
            if let Some(at) = self.positions(&host).filter(|at| !taken.contains(at)).min() {
                taken.insert(at);
            }
        }
        let mut positions: Vec<u64> = taken.into_iter().collect();
        positions.sort_unstable();
        positions
    }
}

// === impl Prefix ===

impl Prefix {
    fn finish(&mut self) {
        self.numbered.sort_by_key(|run| run.numbers.lo);
        let mut highest = 0;
        for run in &mut self.numbered {
            highest = run.numbers.hi.max(highest);
            run.highest = highest;
        }
    }

    fn positions(&self, digits: &str) -> Vec<u64> {
        if digits.is_empty() {
            return self.singles.clone();
        }
        let Ok(number) = digits.parse::<u64>() else { return Vec::new() };
        let end = self.numbered.partition_point(|run| run.numbers.lo <= number);
        let candidates = self.numbered.get(..end).unwrap_or_default().iter().rev();
        candidates
            .take_while(|run| run.highest >= number)
            .filter_map(|run| Some(run.position + run.numbers.offset_of(digits)?))
            .collect()
    }
}
