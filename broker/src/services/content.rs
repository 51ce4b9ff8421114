//! `content`: blobs by their digest (RFC 10), cached on every rank.
//!
//! Above rank 0 a store is answered once rank 0 has the blob, and a miss asks the broker above. On
//! rank 0 a store is answered at once, and the backing store gets the blob later: what `flush` and
//! `checkpoint-put` wait for.

mod cache;
mod flush;
mod load;
mod mapped;
mod options;
mod store;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Empty, Raw};
use flux_protocol::rpc::content as rpc;
use serde_json::Value;

use self::cache::Cache;
use self::flush::Flush;
use self::mapped::Mapped;
use self::options::Options;
use self::store::Taken;
use crate::attrs::Access;
use crate::call::{Call, Sender};
use crate::context::Context;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;

/// How long after it has become too large the cache is purged.
const PURGE_DELAY: Duration = Duration::from_secs(2);
/// Past this multiple of its target the cache is purged at once, of recently used blobs too.
const PURGE_HARD: usize = 4;

#[derive(Debug)]
pub struct Content {
    rank: u32,
    hash: HashType,
    options: Options,
    cache: Cache,
    /// On rank 0.
    mapped: Mapped,
    /// Requests for blobs that were asked for above.
    loading: HashMap<Blobref, Vec<Call<Raw>>>,
    /// Above rank 0: requests to store blobs that are on their way.
    storing: HashMap<Blobref, Vec<Call<Raw>>>,
    /// On rank 0: stored, and to be answered when less is dirty.
    throttled: VecDeque<Taken>,
    flushes: Vec<Flush>,
    /// Rank 0 has a backing store.
    backing: bool,
    backing_name: Option<String>,
    /// Counts changes of the backing store: what an earlier one says no longer matters.
    backing_generation: u64,
    /// Why blobs could not be stored; nothing more is sent until a retry.
    trouble: Option<Failure>,
    /// It has been said that blobs could not be stored, and none could since.
    troubled: bool,
    retry_scheduled: bool,
    /// On rank 0: what comes is not given to the backing store before more has come.
    gathering: bool,
    purge_scheduled: bool,
}

impl Service for Content {
    const NAME: &'static str = "content";
    const SERVICES: &'static [&'static str] = &["content"];

    async fn start(context: &Context<Content>, args: &[String]) -> Result<Content, Failure> {
        let attrs = context.broker().attrs();
        attrs.put_default("content.hash", HashType::default().name(), Access::Immutable);
        let hash = attrs.get("content.hash").unwrap_or_default();
        let hash = hash
            .parse()
            .map_err(|error| Failure::new(Errno::EINVAL, format!("content.hash: {error}")))?;
        Ok(Content {
            rank: context.rank(),
            hash,
            options: Options::from_args(args)?,
            cache: Cache::default(),
            mapped: Mapped::default(),
            loading: HashMap::new(),
            storing: HashMap::new(),
            throttled: VecDeque::new(),
            flushes: Vec::new(),
            backing: false,
            backing_name: attrs.get("content.backing-module"),
            backing_generation: 0,
            trouble: None,
            troubled: false,
            retry_scheduled: false,
            gathering: false,
            purge_scheduled: false,
        })
    }

    fn methods() -> Methods<Content> {
        Methods::default()
            .serve::<rpc::Load>(Content::load)
            .serve::<rpc::Store>(Content::store)
            .serve::<rpc::StoreMany>(Content::store_many)
            .serve::<rpc::Flush>(Content::flush)
            .reply::<rpc::Dropcache>(Content::dropcache)
            .reply::<rpc::Stats>(Content::stats_get)
            .reply::<rpc::RegisterBacking>(Content::register_backing)
            .reply::<rpc::UnregisterBacking>(Content::unregister_backing)
            .serve::<rpc::CheckpointGet>(Content::checkpoint_get)
            .serve::<rpc::CheckpointPut>(Content::checkpoint_put)
            .serve::<rpc::MmapAdd>(Content::mmap_add)
            .reply::<rpc::MmapRemove>(Content::mmap_forget)
    }
}

impl Content {
    fn dropcache(
        &mut self,
        context: &Context<Self>,
        _: Empty,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        let all = self.cache.len();
        let dropped = self.cache.drop_clean();
        context.log(Severity::Debug, format!("content dropcache {dropped}/{all}"));
        Ok(Empty)
    }

    fn stats_get(
        &mut self,
        _: &Context<Self>,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::StatsResponse, Failure> {
        let mmap = if self.rank == 0 { self.mapped.stats() } else { Value::Null };
        Ok(rpc::StatsResponse {
            count: (self.cache.len() + self.loading.len()) as u64,
            valid: self.cache.len() as u64,
            dirty: self.cache.dirty_len() as u64,
            size: self.cache.bytes() as u64,
            flush_batch_count: self.cache.on_their_way() as u64,
            mmap,
        })
    }

    fn register_backing(
        &mut self,
        context: &Context<Self>,
        request: rpc::BackingRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        let refuse = |errno, text: &str| Err(Failure::new(errno, text));
        if self.rank != 0 {
            return refuse(Errno::EINVAL, "content backing store can only be registered on rank 0");
        }
        if self.backing {
            return refuse(Errno::EBUSY, "content backing store is already active");
        }
        if self.backing_name.as_ref().is_some_and(|name| *name != request.name) {
            return refuse(Errno::EINVAL, "content backing store cannot be changed on the fly");
        }
        let attrs = context.broker().attrs();
        attrs.put_default("content.backing-module", request.name.clone(), Access::ReadOnly);
        context.log(Severity::Debug, format!("content backing store: enabled {}", request.name));
        self.backing_name = Some(request.name);
        self.backing = true;
        self.resume_stores(context);
        Ok(Empty)
    }

    fn unregister_backing(
        &mut self,
        context: &Context<Self>,
        _: Empty,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        if !self.backing {
            return Err(Failure::new(Errno::EINVAL, "content backing store is not active"));
        }
        self.backing = false;
        self.backing_generation += 1;
        self.cache.none_on_their_way();
        context.log(Severity::Debug, "content backing store: disabled");
        if self.cache.dirty_len() > 0 {
            context.log(Severity::Err, format!("{} unflushables", self.cache.dirty_len()));
        }
        self.fail_flushes(&Errno::ENOSYS.into());
        self.release_throttled();
        Ok(Empty)
    }

    fn mmap_forget(
        &mut self,
        _: &Context<Self>,
        request: rpc::MmapRemoveRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        if self.rank != 0 {
            return Err(Errno::EINVAL.into());
        }
        self.mmap_remove(&request.tag);
        Ok(Empty)
    }

    /// See to the size of the cache after it has grown.
    fn grown(&mut self, context: &Context<Self>) {
        let target = self.options.purge_target;
        if self.cache.bytes() <= target {
            return;
        }
        if self.cache.bytes() > target.saturating_mul(PURGE_HARD) {
            self.cache.purge(target, Duration::ZERO);
        } else if !self.purge_scheduled {
            self.purge_scheduled = true;
            let again = context.clone();
            context.spawn(tokio::time::sleep(PURGE_DELAY), move |content, ()| {
                content.purge_scheduled = false;
                content.cache.purge(target, content.options.purge_age);
                content.grown(&again);
            });
        }
    }
}
