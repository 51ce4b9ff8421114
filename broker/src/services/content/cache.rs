//! The blobs that a broker holds in memory, by their digest.
//!
//! A blob is *clean* when the broker above (or, on rank 0, the backing store) has it as well, and
//! *dirty* until then. Clean blobs go when there are too many, the least recently used first.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use hashlink::LinkedHashMap;

/// A position in the order in which blobs became dirty.
pub(super) type Mark = u64;

#[derive(Debug, Default)]
pub(super) struct Cache {
    clean: LinkedHashMap<Blobref, Clean>,
    dirty: HashMap<Blobref, Dirty>,
    /// Dirty blobs in the order in which they became so.
    order: BTreeMap<Mark, Blobref>,
    /// Those of `order` that are not on their way.
    waiting: BTreeMap<Mark, Blobref>,
    next: Mark,
    clean_bytes: usize,
    dirty_bytes: usize,
}

#[derive(Debug)]
struct Clean {
    data: Bytes,
    used: Instant,
}

#[derive(Debug)]
struct Dirty {
    data: Bytes,
    mark: Mark,
    /// It was stored again while it was on its way, and has to be known as that recent above.
    again: bool,
}

impl Cache {
    pub(super) fn len(&self) -> usize {
        self.clean.len() + self.dirty.len()
    }

    pub(super) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.clean_bytes + self.dirty_bytes
    }

    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Blobs that were taken by [`Cache::next_to_store`] and are not clean yet.
    pub(super) fn on_their_way(&self) -> usize {
        self.order.len() - self.waiting.len()
    }

    /// The blob, which thereby becomes the most recently used.
    pub(super) fn get(&mut self, blobref: &Blobref) -> Option<Bytes> {
        if let Some(dirty) = self.dirty.get(blobref) {
            return Some(dirty.data.clone());
        }
        let clean = self.clean.to_back(blobref)?;
        clean.used = Instant::now();
        Some(clean.data.clone())
    }

    /// Add a blob that is known above.
    pub(super) fn add_clean(&mut self, blobref: Blobref, data: Bytes) {
        if self.dirty.contains_key(&blobref) {
            return;
        }
        let len = data.len();
        let clean = Clean { data, used: Instant::now() };
        if self.clean.insert(blobref, clean).is_none() {
            self.clean_bytes += len;
        }
    }

    /// Add a blob that must be stored above, or make one dirty that is clean: a blob stored again
    /// has to be known as recent above, lest garbage collection takes it.
    pub(super) fn add_dirty(&mut self, blobref: Blobref, data: Bytes) {
        if let Some(clean) = self.clean.remove(&blobref) {
            self.clean_bytes -= clean.data.len();
        }
        if let Some(dirty) = self.dirty.get_mut(&blobref) {
            dirty.again |= !self.waiting.contains_key(&dirty.mark);
            return;
        }
        let mark = self.next;
        self.next += 1;
        self.dirty_bytes += data.len();
        self.order.insert(mark, blobref);
        self.waiting.insert(mark, blobref);
        self.dirty.insert(blobref, Dirty { data, mark, again: false });
    }

    /// The oldest dirty blob that is not on its way, which it is from now on.
    pub(super) fn next_to_store(&mut self) -> Option<(Blobref, Bytes)> {
        let (_, blobref) = self.waiting.pop_first()?;
        let dirty = self.dirty.get(&blobref)?;
        Some((blobref, dirty.data.clone()))
    }

    /// The blob is known above.
    pub(super) fn stored(&mut self, blobref: &Blobref) {
        if let Some(dirty) = self.dirty.remove(blobref) {
            self.dirty_bytes -= dirty.data.len();
            self.order.remove(&dirty.mark);
            self.waiting.remove(&dirty.mark);
            if dirty.again {
                self.add_dirty(*blobref, dirty.data);
            } else {
                self.add_clean(*blobref, dirty.data);
            }
        }
    }

    /// The blob could not be stored; it waits again.
    pub(super) fn not_stored(&mut self, blobref: &Blobref) {
        if let Some(dirty) = self.dirty.get(blobref) {
            self.waiting.insert(dirty.mark, *blobref);
        }
    }

    /// Nobody will tell what became of blobs on their way: they wait again.
    pub(super) fn none_on_their_way(&mut self) {
        self.waiting.clone_from(&self.order);
    }

    /// All dirty blobs so far have lower marks.
    pub(super) fn mark(&self) -> Mark {
        self.next
    }

    /// Whether all blobs that were dirty when `mark` was taken are clean.
    pub(super) fn is_clean_until(&self, mark: Mark) -> bool {
        self.order.first_key_value().is_none_or(|(oldest, _)| *oldest >= mark)
    }

    /// Forget a blob whose storing failed for good.
    pub(super) fn forget_dirty(&mut self, blobref: &Blobref) {
        if let Some(dirty) = self.dirty.remove(blobref) {
            self.dirty_bytes -= dirty.data.len();
            self.order.remove(&dirty.mark);
            self.waiting.remove(&dirty.mark);
        }
    }

    /// Remove all clean blobs.
    pub(super) fn drop_clean(&mut self) -> usize {
        let count = self.clean.len();
        self.clean.clear();
        self.clean_bytes = 0;
        count
    }

    /// Remove clean blobs, least recently used first, until no more than `target` bytes are held
    /// or those left were used within `age`.
    pub(super) fn purge(&mut self, target: usize, age: Duration) {
        let now = Instant::now();
        while self.bytes() > target
            && let Some((_, oldest)) = self.clean.front()
            && now.duration_since(oldest.used) >= age
            && let Some((_, gone)) = self.clean.pop_front()
        {
            self.clean_bytes -= gone.data.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::blobref::HashType;

    fn blob(text: &str) -> (Blobref, Bytes) {
        (HashType::Sha1.hash(text.as_bytes()), Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_least_recently_used_clean_blob_goes_first_and_no_dirty_one() {
        let mut cache = Cache::default();
        let [(a, a_data), (b, b_data), (c, c_data)] = ["aaaa", "bbbb", "cccc"].map(blob);
        cache.add_clean(a, a_data);
        cache.add_clean(b, b_data);
        cache.add_dirty(c, c_data);
        assert!(cache.get(&a).is_some());
        cache.purge(8, Duration::ZERO);
        assert!(cache.get(&b).is_none() && cache.get(&a).is_some());
        cache.purge(0, Duration::ZERO);
        assert!(cache.get(&a).is_none() && cache.get(&c).is_some());
        assert_eq!((cache.len(), cache.bytes(), cache.dirty_bytes()), (1, 4, 4));
    }

    #[test]
    fn a_blob_that_is_stored_again_while_on_its_way_is_stored_again() {
        let mut cache = Cache::default();
        let (a, data) = blob("aaaa");
        cache.add_dirty(a, data.clone());
        cache.add_dirty(a, data.clone());
        assert!(cache.next_to_store().is_some());
        cache.add_dirty(a, data);
        let mark = cache.mark();
        cache.stored(&a);
        // What waited for it before is done; it is not clean yet.
        assert!(cache.is_clean_until(mark));
        assert_eq!((cache.dirty_len(), cache.dirty_bytes()), (1, 4));
        assert_eq!(cache.next_to_store().map(|(blobref, _)| blobref), Some(a));
        cache.stored(&a);
        assert_eq!((cache.dirty_len(), cache.len()), (0, 1));
        assert!(cache.next_to_store().is_none());
    }

    #[test]
    fn recently_used_blobs_stay_above_the_target() {
        let mut cache = Cache::default();
        let (a, data) = blob("aaaa");
        cache.add_clean(a, data);
        cache.purge(0, Duration::from_secs(3600));
        assert_eq!(cache.len(), 1);
        assert_eq!(cache.drop_clean(), 1);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_mark_waits_for_the_blobs_before_it_and_not_for_later_ones() {
        let mut cache = Cache::default();
        let [(a, a_data), (b, b_data)] = ["a", "b"].map(blob);
        cache.add_dirty(a, a_data.clone());
        let mark = cache.mark();
        cache.add_dirty(b, b_data);
        assert!(!cache.is_clean_until(mark));
        assert_eq!(cache.next_to_store(), Some((a, a_data.clone())));
        cache.not_stored(&a);
        assert_eq!(cache.next_to_store(), Some((a, a_data.clone())));
        assert_eq!(cache.on_their_way(), 1);
        cache.stored(&a);
        assert!(cache.is_clean_until(mark) && !cache.is_clean_until(cache.mark()));
        // Stored again, it must reach the backing store again.
        cache.add_dirty(a, a_data);
        assert_eq!((cache.dirty_len(), cache.len()), (2, 2));
    }
}
