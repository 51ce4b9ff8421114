//! The folder with the files, and the thread that reads and writes them, so that the broker does not
//! wait for a disk.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::content::Checkpoint;
use tokio::sync::oneshot;

const FOLDER: &str = "content.files";
/// The file with the checkpoint, beside those of the blobs.
const CHECKPOINT: &str = "kvs-primary";
/// What is being written, which nobody reads before it has its name.
const NEW: &str = "new";

pub(super) type Reply<T> = oneshot::Sender<Result<T, Failure>>;

pub(super) enum Job {
    Load(Blobref, Reply<Bytes>),
    Store(Vec<Bytes>, Reply<Vec<Blobref>>),
    Validate(Blobref, Reply<()>),
    Checkpoint(Reply<Checkpoint>),
    PutCheckpoint(Checkpoint, Reply<()>),
}

/// Blobs in files that are named after them.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    hash: HashType,
    /// A checkpoint, and all before it, has to outlive a crash of the machine.
    durable: bool,
    /// Files here.
    objects: Arc<AtomicU64>,
}

/// The broker's end of the thread. Dropped, the thread ends.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Sender<Job>,
    objects: Arc<AtomicU64>,
    ended: oneshot::Receiver<()>,
}

// === impl Store ===

impl Store {
    /// Make the folder if it is not there; `truncate` is to begin with an empty one.
    pub(super) fn open(
        directory: &Path,
        hash: HashType,
        durable: bool,
        truncate: bool,
    ) -> Result<Store, Failure> {
        let path = directory.join(FOLDER);
        let store = Store { path, hash, durable, objects: Arc::default() };
        if truncate && let Err(error) = std::fs::remove_dir_all(&store.path) {
            store.unless_missing(error)?;
        }
        match DirBuilder::new().mode(0o700).create(&store.path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failure(&store.path, &error));
            }
            _ => {}
        }
        let files = std::fs::read_dir(&store.path).map_err(|error| failure(&store.path, &error))?;
        let count = files.filter(|file| file.as_ref().is_ok_and(|f| f.file_name() != NEW)).count();
        store.objects.store(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(store)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn hash(&self) -> HashType {
        self.hash
    }

    fn load(&self, blobref: &Blobref) -> Result<Bytes, Failure> {
        let path = self.path.join(blobref.to_string());
        let data = self.read(&path)?;
        // Others may write to a folder; the cache above believes what it is told.
        if !blobref.matches(&data) {
            let text = format!("{} is damaged: move it away", path.display());
            return Err(Failure::new(Errno::EIO, text));
        }
        Ok(data.into())
    }

    fn store(&self, blobs: &[Bytes]) -> Result<Vec<Blobref>, Failure> {
        let store = |blob: &Bytes| {
            let blobref = self.hash.hash(blob);
            let path = self.path.join(blobref.to_string());
            // One that is there may be damaged: it is as good as new then.
            let size = u64::try_from(blob.len()).unwrap_or(u64::MAX);
            if !path.metadata().is_ok_and(|file| file.len() == size) || self.load(&blobref).is_err()
            {
                self.write(&path, blob, false)?;
            }
            Ok(blobref)
        };
        blobs.iter().map(store).collect()
    }

    fn validate(&self, blobref: &Blobref) -> Result<(), Failure> {
        let path = self.path.join(blobref.to_string());
        path.metadata().map(drop).map_err(|error| failure(&path, &error))
    }

    fn checkpoint(&self) -> Result<Checkpoint, Failure> {
        let path = self.path.join(CHECKPOINT);
        serde_json::from_slice(&self.read(&path)?).map_err(|error| {
            let text = format!("{} is no checkpoint: {error}", path.display());
            Failure::new(Errno::EINVAL, text)
        })
    }

    /// Once it is there, all that it refers to is.
    fn put_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let path = self.path.join(CHECKPOINT);
        let text = serde_json::to_vec(checkpoint)
            .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
        if self.durable {
            let folder = File::open(&self.path).map_err(|error| failure(&self.path, &error))?;
            nix::unistd::syncfs(&folder)
                .map_err(|error| failure(&self.path, &std::io::Error::from(error)))?;
        }
        self.write(&path, &text, self.durable)
    }

    /// All of it or nothing.
    fn write(&self, path: &Path, data: &[u8], synced: bool) -> Result<(), Failure> {
        let new = self.path.join(NEW);
        let is_there = path.exists();
        let write = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(data)?;
            if synced {
                file.sync_all()?;
            }
            std::fs::rename(&new, path)?;
            if synced { File::open(&self.path)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|error| {
            // Half a file takes room on a disk that is full.
            let _ = std::fs::remove_file(&new);
            failure(path, &error)
        })?;
        if !is_there {
            self.objects.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, Failure> {
        std::fs::read(path).map_err(|error| failure(path, &error))
    }

    fn unless_missing(&self, error: std::io::Error) -> Result<(), Failure> {
        if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(failure(&self.path, &error)) }
    }

    fn run(self, queue: &Receiver<Job>) {
        // Who has gone does not need an answer.
        while let Ok(job) = queue.recv() {
            match job {
                Job::Load(blobref, reply) => drop(reply.send(self.load(&blobref))),
                Job::Store(blobs, reply) => drop(reply.send(self.store(&blobs))),
                Job::Validate(blobref, reply) => drop(reply.send(self.validate(&blobref))),
                Job::Checkpoint(reply) => drop(reply.send(self.checkpoint())),
                Job::PutCheckpoint(checkpoint, reply) => {
                    drop(reply.send(self.put_checkpoint(&checkpoint)));
                }
            }
        }
    }
}

// === impl Worker ===

impl Worker {
    pub(super) fn start(store: Store) -> Result<Worker, Failure> {
        let (jobs, queue) = channel();
        let (ended_tx, ended) = oneshot::channel();
        let objects = store.objects.clone();
        let body = move || {
            store.run(&queue);
            let _ = ended_tx.send(());
        };
        std::thread::Builder::new()
            .name("content-files".to_owned())
            .spawn(body)
            .map_err(|error| Failure::from(Errno::from(&error)))?;
        Ok(Worker { jobs, objects, ended })
    }

    /// Queue a job, and return the future that waits for its result.
    pub(super) fn call<T>(
        &self,
        job: impl FnOnce(Reply<T>) -> Job,
    ) -> impl Future<Output = Result<T, Failure>> + 'static
    where
        T: 'static,
    {
        let (reply, result) = oneshot::channel();
        // When the thread is gone, so is the reply.
        let _ = self.jobs.send(job(reply));
        async move { result.await.unwrap_or(Err(Errno::ENOSYS.into())) }
    }

    pub(super) fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }

    /// Finish what is queued.
    pub(super) async fn stop(self) {
        drop(self.jobs);
        let _ = self.ended.await;
    }
}

/// A blob or a checkpoint that is not there needs no explanation.
fn failure(path: &Path, error: &std::io::Error) -> Failure {
    match Errno::from(error) {
        Errno::ENOENT => Errno::ENOENT.into(),
        errno => Failure::new(errno, format!("{}: {errno}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, truncate: bool) -> Store {
        Store::open(dir, HashType::default(), true, truncate).unwrap()
    }

    fn objects(store: &Store) -> u64 {
        store.objects.load(Ordering::Relaxed)
    }

    #[test]
    fn blobs_are_there_when_the_store_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), false);
        let blobs = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"one")];
        let refs = store.store(&blobs).unwrap();
        assert_eq!(objects(&store), 2);
        drop(store);
        let store = open(dir.path(), false);
        assert_eq!(objects(&store), 2);
        let [one, nothing, _] = &refs[..] else { panic!("{refs:?}") };
        assert_eq!(store.load(one).unwrap(), "one");
        assert_eq!(store.load(nothing).unwrap(), "");
        store.validate(one).unwrap();
        let unknown = HashType::default().hash(b"two");
        assert_eq!(store.load(&unknown).unwrap_err().errno, Errno::ENOENT);
        assert_eq!(store.validate(&unknown).unwrap_err().errno, Errno::ENOENT);
        let store = open(dir.path(), true);
        assert_eq!(objects(&store), 0);
        assert_eq!(store.load(one).unwrap_err().errno, Errno::ENOENT);
    }

    #[test]
    fn a_damaged_file_is_found_and_mended_by_storing_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), false);
        let blob = [Bytes::from_static(b"one")];
        let refs = store.store(&blob).unwrap();
        let [one] = &refs[..] else { panic!("{refs:?}") };
        std::fs::write(store.path().join(one.to_string()), "two").unwrap();
        let failure = store.load(one).unwrap_err();
        assert_eq!(failure.errno, Errno::EIO);
        assert!(failure.to_string().ends_with("is damaged: move it away"), "{failure}");
        store.store(&blob).unwrap();
        assert_eq!(store.load(one).unwrap(), "one");
        std::fs::write(store.path().join(CHECKPOINT), "{").unwrap();
        assert_eq!(store.checkpoint().unwrap_err().errno, Errno::EINVAL);
    }

    #[test]
    fn the_last_checkpoint_is_the_one_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), false);
        assert_eq!(store.checkpoint().unwrap_err().errno, Errno::ENOENT);
        for rootref in ["sha1-1", "sha1-2"] {
            let checkpoint = serde_json::json!({
                "version": 1, "rootref": rootref, "sequence": 5, "timestamp": 1.5
            });
            let checkpoint = serde_json::from_value(checkpoint).unwrap();
            store.put_checkpoint(&checkpoint).unwrap();
        }
        let store = open(dir.path(), false);
        let found = serde_json::to_value(store.checkpoint().unwrap()).unwrap();
        assert_eq!(found["rootref"], "sha1-2");
    }
}
