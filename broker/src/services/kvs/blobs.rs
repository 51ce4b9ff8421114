//! Blobs that the KVS has at hand: directories as they are used, values as they are sent.

use std::rc::Rc;

use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use hashlink::LinkedHashMap;

use super::dir::{Dir, NotDir};

/// Least recently used blobs go first.
#[derive(Debug)]
pub(super) struct Blobs {
    by_ref: LinkedHashMap<Blobref, Blob>,
    /// In memory, about.
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Blob {
    content: Content,
    /// Size as stored.
    size: usize,
}

#[derive(Debug)]
enum Content {
    Dir(Rc<Dir>),
    Raw(Bytes),
}

const LIMIT: usize = 64 << 20;

impl Blob {
    /// Bytes in memory, about: a small directory takes several times its size as stored.
    fn footprint(&self) -> usize {
        let content = match &self.content {
            Content::Dir(dir) => dir.footprint(),
            Content::Raw(raw) => raw.len(),
        };
        content + size_of::<(Blobref, Blob)>() + 2 * size_of::<usize>()
    }
}

impl Blobs {
    pub(super) fn new(limit: usize) -> Blobs {
        Blobs { by_ref: LinkedHashMap::new(), bytes: 0, limit }
    }

    /// Sizes as stored, for statistics.
    pub(super) fn sizes(&self) -> impl Iterator<Item = usize> {
        self.by_ref.values().map(|blob| blob.size)
    }

    pub(super) fn contains(&self, blobref: &Blobref) -> bool {
        self.by_ref.contains_key(blobref)
    }

    /// The directory, nothing when it isn't here, or an error when it is none.
    pub(super) fn dir(&mut self, blobref: &Blobref) -> Result<Option<Rc<Dir>>, NotDir> {
        let Some(blob) = self.by_ref.to_back(blobref) else { return Ok(None) };
        match &blob.content {
            Content::Dir(dir) => Ok(Some(dir.clone())),
            Content::Raw(raw) => {
                let dir = Rc::new(Dir::decode(raw)?);
                self.bytes -= blob.footprint();
                blob.content = Content::Dir(dir.clone());
                self.bytes += blob.footprint();
                Ok(Some(dir))
            }
        }
    }

    /// The bytes of a blob that was stored or loaded as a value.
    pub(super) fn raw(&mut self, blobref: &Blobref) -> Option<Bytes> {
        match &self.by_ref.to_back(blobref)?.content {
            Content::Raw(raw) => Some(raw.clone()),
            // Somebody refers to a directory as a value: its bytes are in the content store.
            Content::Dir(_) => None,
        }
    }

    pub(super) fn insert_dir(&mut self, blobref: Blobref, dir: Rc<Dir>, size: usize) {
        self.insert(blobref, Blob { content: Content::Dir(dir), size });
    }

    pub(super) fn insert_raw(&mut self, blobref: Blobref, raw: Bytes) {
        // The form that is here already serves as well.
        if self.by_ref.to_back(&blobref).is_none() {
            let size = raw.len();
            self.insert(blobref, Blob { content: Content::Raw(raw), size });
        }
    }

    fn insert(&mut self, blobref: Blobref, blob: Blob) {
        self.bytes += blob.footprint();
        if let Some(before) = self.by_ref.insert(blobref, blob) {
            self.bytes -= before.footprint();
        }
        while self.bytes > self.limit
            && self.by_ref.len() > 1
            && let Some((_, gone)) = self.by_ref.pop_front()
        {
            self.bytes -= gone.footprint();
        }
    }
}

impl Default for Blobs {
    fn default() -> Blobs {
        Blobs::new(LIMIT)
    }
}
