//! `content-backing`: the blobs of rank 0's content cache, kept in an SQLite file.
//!
//! The file is `content.sqlite` in the state directory, or in the run directory when there is
//! none. Who stores a blob hears of it when a transaction with it has been committed, which the
//! death of the broker can't undo. A checkpoint is answered when it and all blobs before it have
//! been synced to the disk, which the death of the machine can't undo either.

mod database;
mod error;
mod gc;
mod open;
mod options;
mod worker;

use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Empty, Payload, Raw, Raws};
use flux_protocol::rpc::content as cache;
use flux_protocol::rpc::content_backing as rpc;
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

use self::error::StoreError;
use self::options::Options;
use self::worker::{Job, Reply, Worker};
use crate::call::Call;
use crate::context::Context;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;

/// Name of the module, which the cache remembers.
const NAME: &str = "content-sqlite";

#[derive(Debug)]
pub struct ContentSqlite {
    worker: Worker,
    options: Options,
}

impl Service for ContentSqlite {
    const NAME: &'static str = NAME;
    const SERVICES: &'static [&'static str] = &["content-backing"];

    async fn start(
        context: &Context<ContentSqlite>,
        args: &[String],
    ) -> Result<ContentSqlite, Failure> {
        let options = Options::new(context.broker().attrs(), &context.config(), args)?;
        let worker = Worker::start(options.clone()).await?;
        let text = format!(
            "{} ({} objects) journal_mode={} synchronous={}",
            options.path.display(),
            worker.stats().objects,
            options.journal_mode,
            options.synchronous,
        );
        context.log(Severity::Debug, text);
        let name = cache::BackingRequest { name: NAME.to_owned() };
        context.handle().rpc::<cache::RegisterBacking>(&name).await?;
        Ok(ContentSqlite { worker, options })
    }

    fn methods() -> Methods<ContentSqlite> {
        Methods::default()
            .serve::<rpc::Load>(ContentSqlite::load)
            .serve::<rpc::Store>(ContentSqlite::store)
            .serve::<rpc::StoreMany>(ContentSqlite::store_many)
            .serve::<rpc::Validate>(ContentSqlite::validate)
            .serve::<rpc::CheckpointGet>(ContentSqlite::checkpoint_get)
            .serve::<rpc::CheckpointPut>(ContentSqlite::checkpoint_put)
            .serve::<rpc::GcInfo>(ContentSqlite::gc_info)
            .serve::<rpc::Mark>(ContentSqlite::mark)
            .serve::<rpc::Sweep>(ContentSqlite::sweep)
    }

    fn stats(&self, _: &Context<ContentSqlite>) -> Option<Value> {
        let stats = self.worker.stats();
        let checkpoint = |(id, value): &(i64, cache::Checkpoint)| json!({"id": id, "value": value});
        Some(json!({
            "object_count": stats.objects,
            "current_epoch": stats.epoch,
            "dbfile_size": std::fs::metadata(&self.options.path).map_or(0, |file| file.len()),
            "dbfile_free": statvfs(&self.options.path)
                .map_or(0, |fs| fs.block_size() * fs.blocks_available()),
            "load_time": stats.load_time.to_json(),
            "store_time": stats.store_time.to_json(),
            "config": {
                "journal_mode": self.options.journal_mode,
                "synchronous": self.options.synchronous,
            },
            "checkpoints": stats.checkpoints.iter().map(checkpoint).collect::<Vec<_>>(),
        }))
    }

    fn clear_stats(&mut self) {
        self.worker.clear_times();
    }

    async fn stop(self, context: &Context<ContentSqlite>) {
        // The cache may have gone before.
        let _ = context.handle().rpc::<cache::UnregisterBacking>(&Empty).await;
        self.worker.stop().await;
    }
}

impl ContentSqlite {
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
        request: rpc::MarkRequest,
        call: Call<rpc::MarkResponse>,
    ) {
        let blobrefs = request.hashes.iter().map(|text| text.parse::<Blobref>());
        match blobrefs.collect::<Result<Vec<_>, _>>() {
            Ok(blobrefs) if blobrefs.iter().all(|r| r.hash_type() == self.hash()) => {
                let job = |reply| Job::Mark(request.epoch, blobrefs, reply);
                self.pass(context, call, job, |marked| rpc::MarkResponse { marked });
            }
            _ => call.fail(Errno::EPROTO),
        }
    }

    fn sweep(
        &mut self,
        context: &Context<Self>,
        request: rpc::SweepRequest,
        call: Call<rpc::SweepResponse>,
    ) {
        self.pass(context, call, |reply| Job::Sweep(request, reply), |response| response);
    }

    fn hash(&self) -> HashType {
        self.options.hash
    }

    fn blobref(&self, digest: &Raw) -> Result<Blobref, Failure> {
        Blobref::from_digest(self.hash(), &digest.0).map_err(|_| Errno::EPROTO.into())
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
            if let Err(error @ (StoreError::Damaged(..) | StoreError::Sqlite { .. })) = &result {
                log.log(Severity::Err, error.to_string());
            }
            call.finish(result.map(response).map_err(Failure::from));
        });
    }
}

fn digest(blobref: &Blobref) -> Raw {
    Raw(blobref.digest().to_vec().into())
}
