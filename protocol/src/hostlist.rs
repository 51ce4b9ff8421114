//! Ordered lists of host names, RFC 29: `rack[0-3]`, `n[01-16,20]`, `login,mgmt1`.
//!
//! Hosts are kept as runs, so a list of 10,000 numbered hosts is usually one run. Order and
//! duplicates are part of the list; [`Hostlist::sort`] and [`Hostlist::uniq`] remove them.

mod index;
mod order;
mod run;
mod text;

pub use index::HostIndex;
pub use text::HostlistError;
pub(crate) use text::check_host;

use run::Run;

/// Most unknown hosts that [`Hostlist::check_known`] names.
pub const MAX_NAMED: u64 = 4096;

/// An ordered list of host names, duplicates allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hostlist {
    runs: Vec<Run>,
}

// === impl Hostlist ===

impl Hostlist {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Number of hosts, duplicates included.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(Run::count).sum()
    }

    /// The host at position `n`, counted from 0.
    pub fn nth(&self, n: u64) -> Option<String> {
        let mut left = n;
        for run in &self.runs {
            if left < run.count() {
                return Some(run.host(left));
            }
            left -= run.count();
        }
        None
    }

    /// The hosts in list order.
    pub fn iter(&self) -> impl Iterator<Item = String> + '_ {
        self.runs.iter().flat_map(|run| (0..run.count()).map(|n| run.host(n)))
    }

    /// Append one host name as it is, without looking for brackets in it.
    pub fn push_host(&mut self, name: &str) {
        if let Some(run) = Run::from_host(name) {
            self.push_run(run);
        }
    }

    pub fn append_list(&mut self, other: &Self) {
        other.runs.iter().for_each(|run| self.push_run(run.clone()));
    }

    /// Position of the first occurrence of one host name. For many look-ups see [`HostIndex`].
    pub fn find(&self, host: &str) -> Result<u64, HostlistError> {
        text::check_host(host)?;
        let mut before = 0;
        for run in &self.runs {
            if let Some(offset) = run.offset_of(host) {
                return Ok(before + offset);
            }
            before += run.count();
        }
        Err(HostlistError::NotFound(host.to_owned()))
    }

    /// An error that names the hosts of `wanted` that are not in this list, up to [`MAX_NAMED`].
    ///
    /// Effort follows the two lists' runs and the number of hosts in this list, so that a short
    /// text from a stranger cannot ask for much.
    pub fn check_known(&self, wanted: &Self) -> Result<(), HostlistError> {
        let index = HostIndex::new(self);
        let mut wanted = wanted.clone();
        if wanted.count() > self.count() + MAX_NAMED {
            wanted.uniq();
        }
        let unknown = wanted.iter().filter(|host| index.find(host).is_none());
        let mut missing = Self::new();
        unknown.take(MAX_NAMED as usize).for_each(|host| missing.push_host(&host));
        missing.not_found()
    }

    /// Positions of all hosts named by RFC 29 text; an error names those that are not in the list.
    /// Effort follows the number of hosts named.
    pub fn indices(&self, hosts: &str) -> Result<Vec<u64>, HostlistError> {
        let wanted = Self::decode(hosts)?;
        let index = HostIndex::new(self);
        let mut found = Vec::new();
        let mut missing = Self::new();
        for host in wanted.iter() {
            match index.find(&host) {
                Some(position) => found.push(position),
                None => missing.push_host(&host),
            }
        }
        missing.not_found().map(|()| found)
    }

    /// An error that names the hosts of this list, if there are any.
    fn not_found(&self) -> Result<(), HostlistError> {
        match self.count() {
            0 => Ok(()),
            1 => Err(HostlistError::NotFound(self.encode())),
            _ => Err(HostlistError::NotFoundMany(self.encode())),
        }
    }

    /// Delete the first remaining occurrence of each host named by RFC 29 text. Returns how many
    /// hosts were deleted.
    pub fn delete(&mut self, hosts: &str) -> Result<u64, HostlistError> {
        Ok(self.delete_list(&Self::decode(hosts)?))
    }

    /// Delete the first remaining occurrence of each host of `other`.
    pub fn delete_list(&mut self, other: &Self) -> u64 {
        let positions = HostIndex::new(self).positions_to_delete(other);
        let deleted = positions.len() as u64;
        self.remove_positions(&positions);
        deleted
    }

    /// Sort by prefix and number, keeping duplicates.
    ///
    /// Effort follows the number of runs plus the number of hosts that occur twice.
    pub fn sort(&mut self) {
        if self.runs.len() > 1 {
            self.runs = order::sorted(std::mem::take(&mut self.runs));
        }
    }

    /// Sort and drop duplicates.
    pub fn uniq(&mut self) {
        if self.runs.len() > 1 {
            self.runs = order::unique(std::mem::take(&mut self.runs));
        }
    }

    /// Append a run, joining it with the last one where the names continue it.
    fn push_run(&mut self, run: Run) {
        let joined = self.runs.last_mut().is_some_and(|last| last.join_next(&run));
        if !joined {
            self.runs.push(run);
        }
    }

    /// Remove the hosts at the given ascending positions.
    fn remove_positions(&mut self, positions: &[u64]) {
        let mut kept = Vec::with_capacity(self.runs.len() + positions.len());
        let mut positions = positions.iter().copied().peekable();
        let mut start = 0;
        for run in std::mem::take(&mut self.runs) {
            let end = start + run.count();
            let mut from = 0;
            while let Some(position) = positions.next_if(|&position| position < end) {
                let at = position - start;
                kept.extend(run.slice(from, at));
                from = at + 1;
            }
            kept.extend(run.slice(from, run.count()));
            start = end;
        }
        self.runs = kept;
    }
}

impl<S: AsRef<str>> FromIterator<S> for Hostlist {
    /// Collect single host names, each taken as it is.
    fn from_iter<I: IntoIterator<Item = S>>(hosts: I) -> Self {
        let mut list = Self::new();
        hosts.into_iter().for_each(|host| list.push_host(host.as_ref()));
        list
    }
}
