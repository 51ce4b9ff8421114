//! `content-backing`: the blobs of rank 0's content cache, a file each.
//!
//! For those who would rather look after files than after a database: `content.backing-module` of
//! `content-files` chooses it. There is one checkpoint, and no garbage collection.

mod store;

use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Empty, Payload, Raw, Raws};
use flux_protocol::rpc::content as cache;
use flux_protocol::rpc::content_backing as rpc;
use serde_json::{Value, json};

use self::store::{Job, Reply, Store, Worker};
use crate::attrs::Attrs;
use crate::call::Call;
use crate::context::Context;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;

/// Name of the module, which the cache remembers.
const NAME: &str = "content-files";

#[derive(Debug)]
pub struct ContentFiles {
    worker: Worker,
    hash: HashType,
    /// The cache is told of this store; not in tests of the store itself.
    registered: bool,
}

impl Service for ContentFiles {
    const NAME: &'static str = NAME;
    const SERVICES: &'static [&'static str] = &["content-backing"];

    async fn start(
        context: &Context<ContentFiles>,
        args: &[String],
    ) -> Result<ContentFiles, Failure> {
        let (mut testing, mut truncate) = (false, false);
        for arg in args {
            match arg.as_str() {
                "testing" => testing = true,
                "truncate" => truncate = true,
                other => {
                    let text = format!("Unknown module option: {other}");
                    return Err(Failure::new(Errno::EINVAL, text));
                }
            }
        }
        let store = store(context.broker().attrs(), truncate)?;
        let hash = store.hash();
        context.log(Severity::Debug, store.path().display().to_string());
        let worker = Worker::start(store)?;
        if !testing {
            let name = cache::BackingRequest { name: NAME.to_owned() };
            context.handle().rpc::<cache::RegisterBacking>(&name).await?;
        }
        Ok(ContentFiles { worker, hash, registered: !testing })
    }

    fn methods() -> Methods<ContentFiles> {
        Methods::default()
            .serve::<rpc::Load>(ContentFiles::load)
            .serve::<rpc::Store>(ContentFiles::store)
            .serve::<rpc::StoreMany>(ContentFiles::store_many)
            .serve::<rpc::Validate>(ContentFiles::validate)
            .serve::<rpc::CheckpointGet>(ContentFiles::checkpoint_get)
            .serve::<rpc::CheckpointPut>(ContentFiles::checkpoint_put)
    }

    fn stats(&self, _: &Context<ContentFiles>) -> Option<Value> {
        Some(json!({"object_count": self.worker.objects()}))
    }

    async fn stop(self, context: &Context<ContentFiles>) {
        if self.registered {
            // The cache may have gone before.
            let _ = context.handle().rpc::<cache::UnregisterBacking>(&Empty).await;
        }
        self.worker.stop().await;
    }
}

impl ContentFiles {
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
        let response = |checkpoint| cache::CheckpointGetResponse { value: vec![checkpoint] };
        self.pass(context, call, Job::Checkpoint, response);
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

    fn blobref(&self, digest: &Raw) -> Result<Blobref, Failure> {
        Blobref::from_digest(self.hash, &digest.0).map_err(|_| Errno::EPROTO.into())
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
            if let Err(failure) = &result
                && failure.errno != Errno::ENOENT
            {
                log.log(Severity::Err, failure.to_string());
            }
            call.finish(result.map(response));
        });
    }
}

fn digest(blobref: &Blobref) -> Raw {
    Raw(blobref.digest().to_vec().into())
}

/// As the attributes say: in the state directory, or in the run directory when there is none. What
/// is removed at exit need not outlive a crash of the machine.
fn store(attrs: &Attrs, truncate: bool) -> Result<Store, Failure> {
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let hash = attrs.get("content.hash").unwrap_or_else(|| HashType::default().to_string());
    let hash = hash.parse().map_err(|error| invalid(format!("content.hash: {error}")))?;
    let directory = attrs
        .get("statedir")
        .or_else(|| attrs.get("rundir"))
        .ok_or_else(|| invalid("neither statedir nor rundir is set".to_owned()))?;
    Store::open(directory.as_ref(), hash, attrs.kept_statedir().is_some(), truncate)
}
