//! `content-backing`: the blobs of rank 0's content cache, in a store that outlives the broker.
//!
//! What the stores have in common is here: the requests, the thread that a store blocks so that the
//! broker doesn't ([`worker`]), and where a store is ([`place`]). What they do not is [`Store`].

pub mod place;
pub mod worker;

use std::marker::PhantomData;

use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Empty, Payload, Raw, Raws};
use flux_protocol::rpc::content as cache;
use flux_protocol::rpc::content_backing as rpc;
use flux_protocol::rpc::content_backing::{
    GcInfoResponse, MarkRequest, SweepRequest, SweepResponse,
};
use serde_json::Value;

use self::place::Place;
use self::worker::{Job, Reply, Stats, Worker};
use crate::call::Call;
use crate::config::Config;
use crate::context::Context;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;

/// What keeps blobs and checkpoints. All of it blocks, in a thread of its own.
pub trait Store: Sized + 'static {
    /// The module's name, which the cache remembers.
    const MODULE: &'static str;

    /// Where and how it is kept.
    type Options: Clone + Send + std::fmt::Debug + 'static;

    /// EINVAL: an argument or a key that does not exist, or a value that is not allowed.
    fn options(place: Place, config: &Config, args: &[String]) -> Result<Self::Options, Failure>;

    /// The cache is told of this store; not in tests of the store itself.
    fn is_for_the_cache(_options: &Self::Options) -> bool {
        true
    }

    /// Open, or create, what the options name. Nobody else can until it is dropped.
    ///
    /// `notes`: what the log is to say, were it that the store can be used.
    fn open(options: Self::Options, notes: &mut Vec<(Severity, String)>) -> Result<Self, Trouble>;

    /// The blob, checked against its digest. ENOENT: there is none.
    fn load(&mut self, blobref: &Blobref) -> Result<bytes::Bytes, Trouble>;

    /// Safe from the death of the process when this returns, and from that of the machine after
    /// the next checkpoint.
    fn store(&mut self, blobs: &[&bytes::Bytes]) -> Result<Vec<Blobref>, Trouble>;

    /// ENOENT: there is no such blob.
    fn validate(&mut self, blobref: &Blobref) -> Result<(), Trouble>;

    /// Checkpoints with their numbers, newest first.
    fn checkpoints(&mut self) -> Result<Vec<(i64, cache::Checkpoint)>, Trouble>;

    /// When this returns, it and every blob that was stored before are on the disk.
    fn put_checkpoint(&mut self, checkpoint: &cache::Checkpoint) -> Result<(), Trouble>;

    /// Number of blobs, and of the last checkpoint.
    fn counts(&self) -> (i64, i64);

    /// What `stats-get` answers.
    fn describe(options: &Self::Options, stats: &Stats) -> Value;

    /// For the garbage collector: the number of the last checkpoint, and how far blobs go that
    /// were stored until now.
    fn gc_info(&mut self, _epoch: i64, _get_count: bool) -> Result<GcInfoResponse, Trouble> {
        Err(no_gc(Self::MODULE))
    }

    /// Raise blobs to an epoch; those that are not there are passed over.
    fn mark(&mut self, _epoch: i64, _blobrefs: &[Blobref]) -> Result<u64, Trouble> {
        Err(no_gc(Self::MODULE))
    }

    /// Delete blobs that are older than the epoch.
    fn sweep(&mut self, _request: &SweepRequest) -> Result<SweepResponse, Trouble> {
        Err(no_gc(Self::MODULE))
    }
}

fn no_gc(module: &str) -> Trouble {
    let text = format!(
        "content-backing.gc-info: {module} collects no garbage while the instance runs: \
         flux shutdown --gc does"
    );
    Failure::new(Errno::ENOSYS, text).into()
}

/// Why a store could not do something.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub failure: Failure,
    /// It is for who looks after the store, not only for who asked.
    pub is_for_the_log: bool,
    /// It is no reason to refuse the neighbours of the blob.
    pub is_about_one_blob: bool,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble { failure, is_for_the_log: false, is_about_one_blob: false }
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Trouble {
        Failure::from(errno).into()
    }
}

/// The service in front of a store.
#[derive(Debug)]
pub struct Backing<S: Store> {
    worker: Worker,
    options: S::Options,
    place: Place,
    store: PhantomData<S>,
}

impl<S: Store> Service for Backing<S> {
    const NAME: &'static str = S::MODULE;
    const SERVICES: &'static [&'static str] = &["content-backing"];

    async fn start(context: &Context<Self>, args: &[String]) -> Result<Self, Failure> {
        let place = Place::of(context.broker().attrs())?;
        let options = S::options(place.clone(), &context.config(), args)?;
        let begins_empty = args.iter().any(|arg| arg == "truncate" || arg == "restore");
        if !begins_empty && let Some(text) = place.check_for_another_store(S::MODULE)? {
            context.log(Severity::Warning, text);
        }
        let (worker, notes) = Worker::start::<S>(options.clone()).await?;
        for (severity, text) in notes {
            context.log(severity, text);
        }
        if S::is_for_the_cache(&options) {
            let name = cache::BackingRequest { name: S::MODULE.to_owned() };
            context.handle().rpc::<cache::RegisterBacking>(&name).await?;
        }
        Ok(Backing { worker, options, place, store: PhantomData })
    }

    fn methods() -> Methods<Self> {
        Methods::default()
            .serve::<rpc::Load>(Self::load)
            .serve::<rpc::Store>(Self::store)
            .serve::<rpc::StoreMany>(Self::store_many)
            .serve::<rpc::Validate>(Self::validate)
            .serve::<rpc::CheckpointGet>(Self::checkpoint_get)
            .serve::<rpc::CheckpointPut>(Self::checkpoint_put)
            .serve::<rpc::GcInfo>(Self::gc_info)
            .serve::<rpc::Mark>(Self::mark)
            .serve::<rpc::Sweep>(Self::sweep)
    }

    fn stats(&self, _: &Context<Self>) -> Option<Value> {
        Some(S::describe(&self.options, &self.worker.stats()))
    }

    fn clear_stats(&mut self) {
        self.worker.clear_times();
    }

    async fn stop(self, context: &Context<Self>) {
        if S::is_for_the_cache(&self.options) {
            // The cache may have gone before.
            let _ = context.handle().rpc::<cache::UnregisterBacking>(&Empty).await;
        }
        self.worker.stop().await;
    }
}

impl<S: Store> Backing<S> {
    fn load(&mut self, context: &Context<Self>, digest: Raw, call: Call<Raw>) {
        match self.blobref(&digest) {
            Ok(blobref) => self.pass(context, call, |reply| Job::Load(blobref, reply), Raw),
            Err(failure) => call.fail(failure),
        }
    }

    fn store(&mut self, context: &Context<Self>, blob: Raw, call: Call<Raw>) {
        let digest = |refs: Vec<Blobref>| refs.first().map(digest).unwrap_or_default();
        self.pass(context, call, |reply| Job::Store(vec![blob.0], reply), digest);
    }

    fn store_many(&mut self, context: &Context<Self>, blobs: Raws, call: Call<Raws>) {
        let digests = |refs: Vec<Blobref>| Raws(refs.iter().map(|r| digest(r).0).collect());
        self.pass(context, call, |reply| Job::Store(blobs.0, reply), digests);
    }

    fn validate(&mut self, context: &Context<Self>, digest: Raw, call: Call<Empty>) {
        match self.blobref(&digest) {
            Ok(blobref) => {
                self.pass(context, call, |reply| Job::Validate(blobref, reply), |()| Empty);
            }
            Err(failure) => call.fail(failure),
        }
    }

    fn checkpoint_get(
        &mut self,
        context: &Context<Self>,
        _: Empty,
        call: Call<cache::CheckpointGetResponse>,
    ) {
        let response = |value| cache::CheckpointGetResponse { value };
        self.pass(context, call, Job::Checkpoints, response);
    }

    fn checkpoint_put(
        &mut self,
        context: &Context<Self>,
        request: cache::CheckpointPutRequest,
        call: Call<Empty>,
    ) {
        let job = |reply| Job::PutCheckpoint(request.value, reply);
        self.pass(context, call, job, |()| Empty);
    }

    fn gc_info(
        &mut self,
        context: &Context<Self>,
        request: rpc::GcInfoRequest,
        call: Call<rpc::GcInfoResponse>,
    ) {
        let rpc::GcInfoRequest { epoch, get_count } = request;
        let job = |reply| Job::GcInfo { epoch, get_count, reply };
        self.pass(context, call, job, |response| response);
    }

    fn mark(
        &mut self,
        context: &Context<Self>,
        request: MarkRequest,
        call: Call<rpc::MarkResponse>,
    ) {
        let blobrefs = request.hashes.iter().map(|text| text.parse::<Blobref>());
        match blobrefs.collect::<Result<Vec<_>, _>>() {
            Ok(blobrefs) if blobrefs.iter().all(|r| r.hash_type() == self.place.hash) => {
                let job = |reply| Job::Mark(request.epoch, blobrefs, reply);
                self.pass(context, call, job, |marked| rpc::MarkResponse { marked });
            }
            _ => call.fail(Errno::EPROTO),
        }
    }

    fn sweep(&mut self, context: &Context<Self>, request: SweepRequest, call: Call<SweepResponse>) {
        self.pass(context, call, |reply| Job::Sweep(request, reply), |response| response);
    }

    fn blobref(&self, digest: &Raw) -> Result<Blobref, Failure> {
        Blobref::from_digest(self.place.hash, &digest.0).map_err(|_| Errno::EPROTO.into())
    }

    /// Have the thread do a job, and answer with its result.
    fn pass<T: 'static, R: Payload + 'static>(
        &self,
        context: &Context<Self>,
        call: Call<R>,
        job: impl FnOnce(Reply<T>) -> Job,
        response: impl FnOnce(T) -> R + 'static,
    ) {
        let log = context.clone();
        context.spawn(self.worker.call(job), move |_, result| {
            let result = result.map_err(|trouble| {
                if trouble.is_for_the_log {
                    log.log(Severity::Err, trouble.failure.to_string());
                }
                trouble.failure
            });
            call.finish(result.map(response));
        });
    }
}

fn digest(blobref: &Blobref) -> Raw {
    Raw(blobref.digest().to_vec().into())
}
