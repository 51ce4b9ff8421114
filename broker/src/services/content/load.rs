//! Loading blobs.

use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::{content as rpc, content_backing as backing};

use super::{Content, mapped};
use crate::call::Call;
use crate::context::Context;
use crate::log::Severity;

impl Content {
    pub(super) fn load(&mut self, context: &Context<Self>, digest: Raw, call: Call<Raw>) {
        let Ok(blobref) = Blobref::from_digest(self.hash, &digest.0) else {
            return call.fail(Errno::EPROTO);
        };
        if let Some(data) = self.cache.get(&blobref) {
            return call.reply(&Raw(data));
        }
        if let Some(region) = self.mapped.find(&blobref) {
            let read = mapped::read_or_load(context.handle().clone(), region, blobref, digest);
            context.spawn(read, move |_, data| match data {
                Ok(data) => call.reply(&data),
                Err(failure) => call.fail(failure),
            });
            return;
        }
        if self.rank == 0 && !self.backing {
            return call.fail(Errno::ENOENT);
        }
        let waiting = self.loading.entry(blobref).or_default();
        waiting.push(call);
        if waiting.len() > 1 {
            return;
        }
        let (handle, rank) = (context.handle().clone(), self.rank);
        let ask = async move {
            match rank {
                0 => handle.rpc::<backing::Load>(&digest).await,
                _ => handle.rpc_upstream::<rpc::Load>(&digest).await,
            }
        };
        let then = context.clone();
        context.spawn(ask, move |content, result| content.loaded(&then, blobref, result));
    }

    fn loaded(&mut self, context: &Context<Self>, blobref: Blobref, result: Result<Raw, Failure>) {
        match result {
            Ok(Raw(data)) if self.rank == 0 || blobref.matches(&data) => {
                let data = own(&data);
                self.cache.add_clean(blobref, data.clone());
                self.answer_loads(&blobref, &data);
                self.grown(context);
            }
            Ok(_) => {
                let text = format!("{blobref} came from above with other content");
                context.log(Severity::Err, &text);
                self.fail_loads(&blobref, &Failure::new(Errno::EIO, text));
            }
            Err(failure) => self.fail_loads(&blobref, &self.load_failure(context, failure)),
        }
    }

    fn load_failure(&self, context: &Context<Self>, mut failure: Failure) -> Failure {
        if self.rank == 0 && failure.errno == Errno::ENOSYS {
            failure = Errno::ENOENT.into();
        }
        if failure.errno != Errno::ENOENT {
            context.log(Severity::Err, format!("content load: {failure}"));
        }
        Failure::new(failure.errno, failure.to_string())
    }

    pub(super) fn answer_loads(&mut self, blobref: &Blobref, data: &Bytes) {
        for call in self.loading.remove(blobref).into_iter().flatten() {
            call.reply(&Raw(data.clone()));
        }
    }

    fn fail_loads(&mut self, blobref: &Blobref, failure: &Failure) {
        for call in self.loading.remove(blobref).into_iter().flatten() {
            call.fail(failure.clone());
        }
    }
}

/// A copy, if the blob may be a small part of a large buffer that it would keep in memory.
pub(super) fn own(data: &Bytes) -> Bytes {
    const LARGE: usize = 64 << 10;
    if data.len() < LARGE { Bytes::copy_from_slice(data) } else { data.clone() }
}
