//! The table of this broker's children. No I/O, no messages.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;

use super::status::{Census, Status};
use super::tracker::Tracker;

/// A child, there or not.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) rank: u32,
    /// Of its process; stays when the child is gone, until another one comes.
    pub(super) uuid: Bytes,
    pub(super) status: Status,
    pub(super) since: Instant,
    pub(super) last_seen: Instant,
    pub(super) torpid: bool,
    /// Why it is not online.
    pub(super) error: String,
    pub(super) tracker: Tracker,
}

/// Children by rank, and the online ones by uuid.
#[derive(Debug)]
pub(super) struct Children {
    /// Ascending ranks.
    table: Vec<Child>,
    online: HashMap<Bytes, usize>,
    census: Census,
}

// === impl Children ===

impl Children {
    pub(super) fn new(ranks: &[u32], now: Instant) -> Children {
        let mut census = Census::default();
        let table = ranks
            .iter()
            .map(|&rank| {
                census.add(Status::Offline);
                Child {
                    rank,
                    uuid: Bytes::new(),
                    status: Status::Offline,
                    since: now,
                    last_seen: now,
                    torpid: false,
                    error: String::new(),
                    tracker: Tracker::default(),
                }
            })
            .collect();
        Children { table, online: HashMap::new(), census }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.table.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.table.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn online_ranks(&self) -> impl Iterator<Item = u32> {
        self.iter().filter(|child| child.status.is_online()).map(|child| child.rank)
    }

    pub(super) fn online_count(&self) -> usize {
        self.census.online()
    }

    /// The status of this broker's own subtree.
    pub(super) fn subtree_status(&self) -> Status {
        self.census.subtree()
    }

    pub(super) fn get(&self, rank: u32) -> Option<&Child> {
        let at = self.table.binary_search_by_key(&rank, |child| child.rank).ok()?;
        self.table.get(at)
    }

    pub(super) fn get_mut(&mut self, rank: u32) -> Option<&mut Child> {
        let at = self.table.binary_search_by_key(&rank, |child| child.rank).ok()?;
        self.table.get_mut(at)
    }

    pub(super) fn online(&self, uuid: &[u8]) -> Option<&Child> {
        self.table.get(*self.online.get(uuid)?)
    }

    pub(super) fn online_mut(&mut self, uuid: &[u8]) -> Option<&mut Child> {
        self.table.get_mut(*self.online.get(uuid)?)
    }

    /// A new process speaks for a child that is not online.
    pub(super) fn introduce(&mut self, rank: u32, uuid: Bytes, now: Instant) {
        if let Some(child) = self.get_mut(rank) {
            debug_assert!(!child.status.is_online());
            child.uuid = uuid;
            child.last_seen = now;
            child.torpid = false;
        }
    }

    /// Change a child's status; false when it has it already.
    pub(super) fn set_status(&mut self, rank: u32, status: Status, now: Instant) -> bool {
        let Ok(at) = self.table.binary_search_by_key(&rank, |child| child.rank) else {
            return false;
        };
        let Some(child) = self.table.get_mut(at) else { return false };
        if child.status == status {
            return false;
        }
        match (child.status.is_online(), status.is_online()) {
            (true, false) => {
                self.online.remove(&child.uuid);
            }
            (false, true) => {
                self.online.insert(child.uuid.clone(), at);
            }
            _ => {}
        }
        self.census.change(child.status, status);
        child.status = status;
        child.since = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_is_found_by_uuid_while_it_is_online() {
        let now = Instant::now();
        let mut children = Children::new(&[2, 5], now);
        assert_eq!(children.subtree_status(), Status::Partial);
        for rank in [5, 2] {
            children.introduce(rank, Bytes::from(format!("uuid{rank}")), now);
            assert!(children.set_status(rank, Status::Full, now));
            assert!(!children.set_status(rank, Status::Full, now));
        }
        assert_eq!(children.online(b"uuid5").map(|child| child.rank), Some(5));
        assert_eq!((children.online_count(), children.subtree_status()), (2, Status::Full));
        children.set_status(5, Status::Lost, now);
        assert!(children.online(b"uuid5").is_none());
        assert_eq!(children.get(5).map(|child| child.status), Some(Status::Lost));
        assert_eq!(children.subtree_status(), Status::Degraded);
        assert!(children.get(3).is_none());
    }
}
