//! Storing blobs, and passing them on.

use std::time::Duration;

use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Raw, Raws};
use flux_protocol::rpc::{content as rpc, content_backing as backing};

use super::Content;
use super::load::own;
use crate::call::Call;
use crate::context::Context;
use crate::log::Severity;

const RETRY_DELAY: Duration = Duration::from_secs(1);
/// So many blobs at a time are a flood.
const FLOOD: usize = 16;
const GATHER_TIME: Duration = Duration::from_millis(3);
/// What is given to the backing store at a time, in bytes, if it is more than one blob.
const BATCH_BYTES: usize = 4 << 20;

/// On rank 0: what has been taken, and who has to be told.
#[derive(Debug)]
pub(super) enum Taken {
    One(Blobref, Call<Raw>),
    Many(Vec<Blobref>, Call<Raws>),
}

impl Taken {
    pub(super) fn finish(self, result: Result<(), Failure>) {
        match self {
            Taken::One(blobref, call) => call.finish(result.map(|()| digest(&blobref))),
            Taken::Many(refs, call) => {
                let digests = || Raws(refs.iter().map(|blobref| digest(blobref).0).collect());
                call.finish(result.map(|()| digests()));
            }
        }
    }
}

impl Content {
    pub(super) fn store(&mut self, context: &Context<Self>, blob: Raw, call: Call<Raw>) {
        if let Err(failure) = self.may_take(&[&blob.0]) {
            return call.fail(failure);
        }
        let blobref = self.take(&blob.0);
        if self.rank > 0 {
            self.storing.entry(blobref).or_default().push(call);
        } else {
            self.answer(Taken::One(blobref, call));
        }
        self.has_taken(context);
    }

    pub(super) fn store_many(&mut self, context: &Context<Self>, blobs: Raws, call: Call<Raws>) {
        if self.rank > 0 {
            return call.fail(Errno::EINVAL);
        }
        if let Err(failure) = self.may_take(&blobs.0.iter().collect::<Vec<_>>()) {
            return call.fail(failure);
        }
        let refs = blobs.0.iter().map(|blob| self.take(blob)).collect();
        self.answer(Taken::Many(refs, call));
        self.has_taken(context);
    }

    fn may_take(&self, blobs: &[&Bytes]) -> Result<(), Failure> {
        if blobs.iter().any(|blob| blob.len() > self.options.blob_limit) {
            return Err(Errno::EFBIG.into());
        }
        match &self.trouble {
            Some(trouble) if self.is_full() => Err(trouble.clone()),
            _ => Ok(()),
        }
    }

    fn take(&mut self, blob: &Bytes) -> Blobref {
        let data = own(blob);
        let blobref = self.hash.hash(&data);
        self.answer_loads(&blobref, &data);
        self.cache.add_dirty(blobref, data);
        blobref
    }

    /// Who stores has to wait while too much is dirty.
    fn answer(&mut self, taken: Taken) {
        match self.is_full() {
            true => self.throttled.push_back(taken),
            false => taken.finish(Ok(())),
        }
    }

    fn has_taken(&mut self, context: &Context<Self>) {
        if self.trouble.is_none() {
            self.start_stores(context);
        }
        self.grown(context);
    }

    /// Rank 0 has more dirty blobs than it should.
    fn is_full(&self) -> bool {
        self.rank == 0 && self.backing && self.cache.dirty_bytes() > self.options.dirty_limit
    }

    /// Send dirty blobs up, also those that failed before. That it is over is known when one has
    /// been stored: until then nothing is taken beyond the limit.
    pub(super) fn resume_stores(&mut self, context: &Context<Self>) {
        self.start_stores(context);
    }

    /// Above rank 0 somebody waits for each blob. On rank 0 nobody does: what comes while the
    /// backing store writes goes into its next transaction, so that a flood is written in few.
    fn start_stores(&mut self, context: &Context<Self>) {
        if self.rank > 0 {
            self.pass_up(context);
        } else if self.backing && self.cache.on_their_way() == 0 {
            let wanted = !self.flushes.is_empty() || self.is_full();
            if wanted || !self.gathering {
                self.store_below(context);
            }
        }
    }

    /// In a flood, let more gather than comes while the backing store writes.
    fn gather(&mut self, context: &Context<Self>) {
        if self.gathering {
            return;
        }
        self.gathering = true;
        let then = context.clone();
        context.spawn(tokio::time::sleep(GATHER_TIME), move |content, ()| {
            content.gathering = false;
            if content.trouble.is_none() {
                content.start_stores(&then);
            }
        });
    }

    fn pass_up(&mut self, context: &Context<Self>) {
        while self.cache.on_their_way() < self.options.flush_batch
            && let Some((blobref, data)) = self.cache.next_to_store()
        {
            let handle = context.handle().clone();
            let send = async move { handle.rpc_upstream::<rpc::Store>(&Raw(data)).await };
            let then = context.clone();
            context.spawn(send, move |content, result| content.stored(&then, blobref, result));
        }
    }

    /// Give what waits to the backing store, many at a time.
    fn store_below(&mut self, context: &Context<Self>) {
        let batch = self.next_batch();
        if batch.is_empty() {
            return;
        }
        let (handle, generation) = (context.handle().clone(), self.backing_generation);
        let request = Raws(batch.iter().map(|(_, data)| data.clone()).collect());
        let send = async move { handle.rpc::<backing::StoreMany>(&request).await };
        let then = context.clone();
        context.spawn(send, move |content, result| {
            if content.backing_generation == generation {
                content.stored_many(&then, batch, result);
            }
        });
    }

    fn next_batch(&mut self) -> Vec<(Blobref, Bytes)> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && self.cache.on_their_way() < self.options.flush_batch
            && let Some((blobref, data)) = self.cache.next_to_store()
        {
            bytes += data.len();
            batch.push((blobref, data));
        }
        batch
    }

    /// When they could not be stored together, each is tried for itself, so that one that never
    /// can does not keep the others out.
    fn stored_many(
        &mut self,
        context: &Context<Self>,
        batch: Vec<(Blobref, Bytes)>,
        result: Result<Raws, Failure>,
    ) {
        match result {
            Ok(Raws(digests)) if digests.len() == batch.len() => {
                if batch.len() >= FLOOD {
                    self.gather(context);
                }
                for ((blobref, _), digest) in batch.into_iter().zip(digests) {
                    self.stored(context, blobref, Ok(Raw(digest)));
                }
            }
            _ => {
                for (blobref, data) in batch {
                    self.store_alone(context, blobref, data);
                }
            }
        }
    }

    fn store_alone(&mut self, context: &Context<Self>, blobref: Blobref, data: Bytes) {
        let (handle, generation) = (context.handle().clone(), self.backing_generation);
        let send = async move { handle.rpc::<backing::Store>(&Raw(data)).await };
        let then = context.clone();
        context.spawn(send, move |content, result| {
            if content.backing_generation == generation {
                content.stored(&then, blobref, result);
            }
        });
    }

    fn stored(&mut self, context: &Context<Self>, blobref: Blobref, result: Result<Raw, Failure>) {
        let result = result.and_then(|reply| match reply.0 == blobref.digest() {
            true => Ok(()),
            false => Err(Failure::new(Errno::EIO, format!("{blobref} was stored as another blob"))),
        });
        match result {
            Ok(()) => {
                self.cache.stored(&blobref);
                self.trouble = None;
                if std::mem::take(&mut self.troubled) {
                    context.log(Severity::Notice, "content store: blobs are stored again");
                }
                self.answer_stores(&blobref, &Ok(()));
                self.finish_flushes(context);
                if self.cache.dirty_bytes() <= self.options.dirty_limit {
                    self.release_throttled();
                }
                self.start_stores(context);
            }
            Err(failure) => self.not_stored(context, blobref, failure),
        }
    }

    fn not_stored(&mut self, context: &Context<Self>, blobref: Blobref, failure: Failure) {
        if !std::mem::replace(&mut self.troubled, true) {
            context.log(Severity::Crit, format!("content store: {failure}"));
        }
        if self.rank > 0 {
            // The callers know, so that nobody relies on the blob.
            self.cache.forget_dirty(&blobref);
            self.answer_stores(&blobref, &Err(failure.clone()));
            self.fail_flushes(&failure);
            return self.start_stores(context);
        }
        self.cache.not_stored(&blobref);
        self.fail_flushes(&failure);
        for taken in self.throttled.drain(..) {
            taken.finish(Err(failure.clone()));
        }
        self.trouble = Some(failure);
        if !self.retry_scheduled {
            self.retry_scheduled = true;
            let then = context.clone();
            context.spawn(tokio::time::sleep(RETRY_DELAY), move |content, ()| {
                content.retry_scheduled = false;
                content.start_stores(&then);
            });
        }
    }

    fn answer_stores(&mut self, blobref: &Blobref, result: &Result<(), Failure>) {
        for call in self.storing.remove(blobref).into_iter().flatten() {
            call.finish(result.clone().map(|()| digest(blobref)));
        }
    }

    pub(super) fn release_throttled(&mut self) {
        for taken in self.throttled.drain(..) {
            taken.finish(Ok(()));
        }
    }
}

fn digest(blobref: &Blobref) -> Raw {
    Raw(blobref.digest().to_vec().into())
}
