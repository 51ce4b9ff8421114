//! Storing blobs, and directories of the key value store in them.

use std::collections::VecDeque;

use flux_client::{Client, Pending};
use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::{content, content_backing};
use flux_protocol::treeobj::{Dir, Treeobj};

use crate::failure::Failure;

/// Blobs on their way to the store.
pub(crate) struct Store<'a> {
    flux: &'a Client,
    hash: HashType,
    bypass: bool,
    window: usize,
    pending: VecDeque<(Blobref, Pending<Raw>)>,
    stored: u64,
}

impl<'a> Store<'a> {
    /// `bypass`: into the backing store itself; `window`: requests at a time.
    pub(crate) fn new(flux: &'a Client, hash: HashType, bypass: bool, window: usize) -> Store<'a> {
        Store { flux, hash, bypass, window, pending: VecDeque::new(), stored: 0 }
    }

    /// How many the store has answered for.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// Send a blob; its reference is known before the store has answered.
    pub(crate) async fn put(&mut self, data: Vec<u8>) -> Result<Blobref, Failure> {
        self.settle(self.window.saturating_sub(1)).await?;
        let blobref = self.hash.hash(&data);
        let blob = Raw(data.into());
        let pending = match self.bypass {
            true => self.flux.start::<content_backing::Store>(Nodeid(0), &blob)?,
            false => self.flux.start::<content::Store>(Nodeid::ANY, &blob)?,
        };
        self.pending.push_back((blobref, pending));
        Ok(blobref)
    }

    /// Wait until no more than so many are on their way.
    pub(crate) async fn settle(&mut self, limit: usize) -> Result<(), Failure> {
        while self.pending.len() > limit
            && let Some((blobref, pending)) = self.pending.pop_front()
        {
            let failed = |e: &dyn std::fmt::Display| Failure::of("error storing blob", e);
            let digest = pending.await.map_err(|e| failed(&e.errno()))?.0;
            if digest != blobref.digest() {
                return Err(failed(&"it was stored as another blob"));
            }
            self.stored += 1;
        }
        Ok(())
    }

    /// Store a directory after all that is in it.
    pub(crate) async fn directories(&mut self, mut dir: Dir) -> Result<Blobref, Failure> {
        for object in dir.values_mut() {
            if let Treeobj::Dir(inner) = object {
                let inner = std::mem::take(inner);
                *object = Treeobj::dirref(Box::pin(self.directories(inner)).await?);
            }
        }
        let text = Treeobj::Dir(dir).encode().map_err(Failure::new)?;
        self.put(text.into_bytes()).await
    }
}
