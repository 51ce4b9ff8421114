//! Matchtags in use: the lowest free one is given out, as the C library does it.

use std::collections::BTreeSet;

use flux_protocol::message::Matchtag;

#[derive(Debug, Default)]
pub(crate) struct Tags {
    /// Below `ever`, but not in use.
    free: BTreeSet<u32>,
    /// The highest that was ever in use.
    ever: u32,
}

impl Tags {
    pub(crate) fn take(&mut self) -> Matchtag {
        let tag = self.free.pop_first().unwrap_or_else(|| {
            // 2^32 open requests do not fit into memory.
            self.ever = self.ever.saturating_add(1);
            self.ever
        });
        Matchtag(tag)
    }

    pub(crate) fn put_back(&mut self, tag: Matchtag) {
        self.free.insert(tag.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_free_tag_is_taken_first() {
        let mut tags = Tags::default();
        assert_eq!([tags.take().0, tags.take().0, tags.take().0], [1, 2, 3]);
        tags.put_back(Matchtag(3));
        tags.put_back(Matchtag(1));
        assert_eq!([tags.take().0, tags.take().0, tags.take().0], [1, 3, 4]);
    }
}
