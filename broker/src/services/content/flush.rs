//! Waiting until blobs have been passed on, and checkpoints.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::{content as rpc, content_backing as backing};

use super::Content;
use super::cache::Mark;
use crate::call::Call;
use crate::context::Context;

/// A request that waits for the blobs that were dirty when it came.
#[derive(Debug)]
pub(super) struct Flush {
    until: Mark,
    call: Call<Empty>,
    /// To be put when they are clean.
    checkpoint: Option<rpc::CheckpointPutRequest>,
}

impl Content {
    pub(super) fn flush(&mut self, context: &Context<Self>, _: Empty, call: Call<Empty>) {
        if self.rank == 0 && !self.backing {
            return call.fail(Errno::ENOSYS);
        }
        self.wait_clean(context, call, None);
    }

    pub(super) fn checkpoint_put(
        &mut self,
        context: &Context<Self>,
        request: rpc::CheckpointPutRequest,
        call: Call<Empty>,
    ) {
        if self.rank == 0 && !self.backing {
            let text = "checkpoint put unavailable, no backing store";
            return call.fail(Failure::new(Errno::ENOSYS, text));
        }
        self.wait_clean(context, call, Some(request));
    }

    pub(super) fn checkpoint_get(
        &mut self,
        context: &Context<Self>,
        _: Empty,
        call: Call<rpc::CheckpointGetResponse>,
    ) {
        if self.rank == 0 && !self.backing {
            let text = "checkpoint get unavailable, no backing store";
            return call.fail(Failure::new(Errno::ENOSYS, text));
        }
        let (handle, rank) = (context.handle().clone(), self.rank);
        let ask = async move {
            match rank {
                0 => handle.rpc::<backing::CheckpointGet>(&Empty).await,
                _ => handle.rpc_upstream::<rpc::CheckpointGet>(&Empty).await,
            }
        };
        context.spawn(ask, |_, result| call.finish(result));
    }

    fn wait_clean(
        &mut self,
        context: &Context<Self>,
        call: Call<Empty>,
        checkpoint: Option<rpc::CheckpointPutRequest>,
    ) {
        let until = self.cache.mark();
        self.flushes.push(Flush { until, call, checkpoint });
        self.resume_stores(context);
        self.finish_flushes(context);
    }

    /// See to the requests that need not wait any longer.
    pub(super) fn finish_flushes(&mut self, context: &Context<Self>) {
        // They are in the order of their marks.
        let ready = self.flushes.partition_point(|f| self.cache.is_clean_until(f.until));
        for flush in self.flushes.drain(..ready) {
            match flush.checkpoint {
                None => flush.call.reply(&Empty),
                Some(request) => put(context, self.rank, request, flush.call),
            }
        }
    }

    pub(super) fn fail_flushes(&mut self, failure: &Failure) {
        for flush in self.flushes.drain(..) {
            flush.call.fail(failure.clone());
        }
    }
}

fn put(
    context: &Context<Content>,
    rank: u32,
    request: rpc::CheckpointPutRequest,
    call: Call<Empty>,
) {
    let handle = context.handle().clone();
    let put = async move {
        match rank {
            0 => handle.rpc::<backing::CheckpointPut>(&request).await,
            _ => handle.rpc_upstream::<rpc::CheckpointPut>(&request).await,
        }
    };
    context.spawn(put, |_, result| call.finish(result));
}
