//! The thread that owns the store: it blocks so that the broker doesn't.
//!
//! Stores that wait in the queue together are written together. Order is kept: a request sees
//! everything that was sent before it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::content::Checkpoint;
use flux_protocol::rpc::content_backing::{GcInfoResponse, SweepRequest, SweepResponse};
use tokio::sync::oneshot;

use super::{Store, Trouble};
use crate::log::Severity;
use crate::tstat::Tstat;

/// Bounds of what is written together.
const BATCH_BLOBS: usize = 1024;
const BATCH_BYTES: usize = 32 << 20;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Trouble>>;

/// Blobs to store, and who waits for it.
type Request = (Vec<Bytes>, Reply<Vec<Blobref>>);

pub(super) enum Job {
    Load(Blobref, Reply<Bytes>),
    Store(Vec<Bytes>, Reply<Vec<Blobref>>),
    Validate(Blobref, Reply<()>),
    Checkpoints(Reply<Vec<Checkpoint>>),
    PutCheckpoint(Checkpoint, Reply<()>),
    GcInfo { epoch: i64, get_count: bool, reply: Reply<GcInfoResponse> },
    Mark(i64, Vec<Blobref>, Reply<u64>),
    Sweep(SweepRequest, Reply<SweepResponse>),
}

/// What `stats-get` tells; the thread keeps it up to date.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub objects: i64,
    /// Number of the last checkpoint.
    pub epoch: i64,
    /// Milliseconds.
    pub load_time: Tstat,
    pub store_time: Tstat,
    pub checkpoints: Vec<(i64, Checkpoint)>,
}

/// The broker's end of the thread. Dropped, the thread closes the store and ends.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Sender<Job>,
    stats: Arc<Mutex<Stats>>,
    ended: oneshot::Receiver<()>,
}

/// What the log is to say of a store that was opened.
type Notes = Vec<(Severity, String)>;

impl Worker {
    /// Start the thread and wait until it has opened the store.
    pub(super) async fn start<S: Store>(options: S::Options) -> Result<(Worker, Notes), Failure> {
        let (jobs, queue) = channel();
        let (opened_tx, opened) = oneshot::channel();
        let (ended_tx, ended) = oneshot::channel();
        let stats = Arc::new(Mutex::new(Stats::default()));
        let shared = stats.clone();
        let body = move || {
            let mut notes = Notes::new();
            match S::open(options, &mut notes) {
                Ok(store) => {
                    let mut thread = Thread { store, stats: shared };
                    thread.publish();
                    let _ = opened_tx.send(Ok(notes));
                    thread.run(&queue);
                }
                Err(trouble) => drop(opened_tx.send(Err(trouble.failure))),
            }
            let _ = ended_tx.send(());
        };
        std::thread::Builder::new()
            .name(S::MODULE.to_owned())
            .spawn(body)
            .map_err(|error| Failure::new(Errno::from(&error), format!("thread: {error}")))?;
        let notes = opened.await.map_err(|_| closed())??;
        Ok((Worker { jobs, stats, ended }, notes))
    }

    /// Queue a job, and return the future that waits for its result.
    pub(super) fn call<T>(
        &self,
        job: impl FnOnce(Reply<T>) -> Job,
    ) -> impl Future<Output = Result<T, Trouble>> + 'static
    where
        T: 'static,
    {
        let (reply, result) = oneshot::channel();
        // When the thread is gone, so is the reply.
        let _ = self.jobs.send(job(reply));
        async move { result.await.unwrap_or_else(|_| Err(closed().into())) }
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn clear_times(&self) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.load_time = Tstat::default();
        stats.store_time = Tstat::default();
    }

    /// Finish what is queued and close the store.
    pub(super) async fn stop(self) {
        drop(self.jobs);
        let _ = self.ended.await;
    }
}

fn closed() -> Failure {
    Failure::new(Errno::ENOSYS, "the store has been closed")
}

struct Thread<S> {
    store: S,
    stats: Arc<Mutex<Stats>>,
}

impl<S: Store> Thread<S> {
    fn run(mut self, queue: &Receiver<Job>) {
        let mut next = queue.recv().ok();
        while let Some(job) = next.take() {
            match job {
                Job::Store(blobs, reply) => next = self.store_together((blobs, reply), queue),
                job => self.serve(job),
            }
            if next.is_none() {
                next = queue.recv().ok();
            }
        }
    }

    /// Store what one request has with what all those right behind it have; returns the first
    /// other job.
    fn store_together(&mut self, first: Request, queue: &Receiver<Job>) -> Option<Job> {
        let size = |request: &Request| request.0.iter().map(Bytes::len).sum::<usize>();
        let (mut blobs, mut bytes) = (first.0.len(), size(&first));
        let mut requests = vec![first];
        let mut other = None;
        while blobs < BATCH_BLOBS && bytes < BATCH_BYTES {
            match queue.try_recv() {
                Ok(Job::Store(more, reply)) => {
                    requests.push((more, reply));
                    blobs += requests.last().map_or(0, |request| request.0.len());
                    bytes += requests.last().map_or(0, size);
                }
                Ok(job) => {
                    other = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        self.store(requests);
        other
    }

    fn store(&mut self, requests: Vec<Request>) {
        let all: Vec<&Bytes> = requests.iter().flat_map(|(blobs, _)| blobs).collect();
        match self.store_timed(&all) {
            Ok(refs) => {
                let mut refs = refs.into_iter();
                for (blobs, reply) in requests {
                    let _ = reply.send(Ok(refs.by_ref().take(blobs.len()).collect()));
                }
            }
            Err(trouble) if trouble.is_about_one_blob && all.len() > 1 => {
                for (blobs, reply) in requests {
                    let _ = reply.send(self.store_one_by_one(&blobs));
                }
            }
            // All are told the same. The cache says it in the log, once for all.
            Err(Trouble { failure, .. }) => {
                for (_, reply) in requests {
                    let _ = reply.send(Err(failure.clone().into()));
                }
            }
        }
    }

    /// One that can't be stored does not keep the others out.
    fn store_one_by_one(&mut self, blobs: &[Bytes]) -> Result<Vec<Blobref>, Trouble> {
        let results: Vec<_> = blobs.iter().map(|blob| self.store_timed(&[blob])).collect();
        let refs: Result<Vec<Vec<_>>, _> = results.into_iter().collect();
        Ok(refs?.concat())
    }

    fn store_timed(&mut self, blobs: &[&Bytes]) -> Result<Vec<Blobref>, Trouble> {
        let start = Instant::now();
        let refs = self.store.store(blobs)?;
        let each = millis(start) / refs.len().max(1) as f64;
        self.update(|stats| {
            for _ in &refs {
                stats.store_time.push(each);
            }
        });
        Ok(refs)
    }

    fn serve(&mut self, job: Job) {
        // Who has gone does not need an answer.
        match job {
            Job::Load(blobref, reply) => {
                let start = Instant::now();
                let result = self.store.load(&blobref);
                self.update(|stats| stats.load_time.push(millis(start)));
                let _ = reply.send(result);
            }
            Job::Store(blobs, reply) => self.store(vec![(blobs, reply)]),
            Job::Validate(blobref, reply) => drop(reply.send(self.store.validate(&blobref))),
            Job::Checkpoints(reply) => {
                let result = self.store.checkpoints().and_then(|list| match list.is_empty() {
                    true => Err(Errno::ENOENT.into()),
                    false => Ok(list.into_iter().map(|(_, checkpoint)| checkpoint).collect()),
                });
                let _ = reply.send(result);
            }
            Job::PutCheckpoint(checkpoint, reply) => {
                let result = self.store.put_checkpoint(&checkpoint);
                self.publish();
                let _ = reply.send(result);
            }
            Job::GcInfo { epoch, get_count, reply } => {
                let _ = reply.send(self.store.gc_info(epoch, get_count));
            }
            Job::Mark(epoch, blobrefs, reply) => {
                let _ = reply.send(self.store.mark(epoch, &blobrefs));
            }
            Job::Sweep(request, reply) => {
                let result = self.store.sweep(&request);
                self.update(|_| ());
                let _ = reply.send(result);
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut Stats)) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        (stats.objects, stats.epoch) = self.store.counts();
        change(&mut stats);
    }

    fn publish(&mut self) {
        // What can't be read is an error of `checkpoint-get`.
        let checkpoints = self.store.checkpoints().unwrap_or_default();
        self.update(|stats| stats.checkpoints = checkpoints);
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
