//! Storing blobs, and passing them on.

use std::time::Duration;

use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::{content as rpc, content_backing as backing};

use super::Content;
use super::load::own;
use crate::call::Call;
use crate::context::Context;
use crate::log::Severity;

const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Content {
    pub(super) fn store(&mut self, context: &Context<Self>, blob: Raw, call: Call<Raw>) {
        if blob.0.len() > self.options.blob_limit {
            return call.fail(Errno::EFBIG);
        }
        let full =
            self.rank == 0 && self.backing && self.cache.dirty_bytes() > self.options.dirty_limit;
        if full && let Some(trouble) = &self.trouble {
            return call.fail(trouble.clone());
        }
        let data = own(&blob.0);
        let blobref = self.hash.hash(&data);
        self.answer_loads(&blobref, &data);
        self.cache.add_dirty(blobref, data);
        if self.rank > 0 {
            self.storing.entry(blobref).or_default().push(call);
        } else if full {
            self.throttled.push_back((blobref, call));
        } else {
            call.reply(&digest(&blobref));
        }
        if self.trouble.is_none() {
            self.start_stores(context);
        }
        self.grown(context);
    }

    /// Send dirty blobs up, also those that failed before.
    pub(super) fn resume_stores(&mut self, context: &Context<Self>) {
        self.trouble = None;
        self.start_stores(context);
    }

    fn start_stores(&mut self, context: &Context<Self>) {
        if self.rank == 0 && !self.backing {
            return;
        }
        while self.cache.on_their_way() < self.options.flush_batch
            && let Some((blobref, data)) = self.cache.next_to_store()
        {
            let (handle, rank) = (context.handle().clone(), self.rank);
            let generation = self.backing_generation;
            let send = async move {
                match rank {
                    0 => handle.rpc::<backing::Store>(&Raw(data)).await,
                    _ => handle.rpc_upstream::<rpc::Store>(&Raw(data)).await,
                }
            };
            let then = context.clone();
            context.spawn(send, move |content, result| {
                if content.backing_generation == generation {
                    content.stored(&then, blobref, result);
                }
            });
        }
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
        if self.trouble.is_none() {
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
        for (_, call) in self.throttled.drain(..) {
            call.fail(failure.clone());
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
        for (blobref, call) in self.throttled.drain(..) {
            call.reply(&digest(&blobref));
        }
    }
}

fn digest(blobref: &Blobref) -> Raw {
    Raw(blobref.digest().to_vec().into())
}
