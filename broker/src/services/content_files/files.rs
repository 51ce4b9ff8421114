//! The folder with the files.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::content::Checkpoint;

use super::Place;
use crate::log::Severity;

const FOLDER: &str = "content.files";
/// What the folder was before a dump is restored.
const ASIDE: &str = "content.files-before-restore";
/// The file with the checkpoint, beside those of the blobs.
const CHECKPOINT: &str = "kvs-primary";
/// What is being written, which nobody reads before it has its name.
const NEW: &str = "new";
/// Locked by the broker that uses the folder.
const LOCK: &str = "lock";

/// Blobs in files that are named after them.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    hash: HashType,
    /// A checkpoint, and all before it, has to outlive a crash of the machine.
    durable: bool,
    /// Files of blobs and of the checkpoint.
    objects: i64,
    begin: Begin,
    /// Where what there was is until a dump has been restored.
    aside: PathBuf,
    /// Closing it gives the folder free.
    _lock: File,
}

/// What a store begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    AsItIs,
    Empty,
    /// Empty, and filled from a dump: until its checkpoint is there, what there was is set aside.
    Restored,
}

impl Files {
    /// Make the folder if it is not there.
    pub(super) fn open(
        place: &Place,
        begin: Begin,
        notes: &mut Vec<(Severity, String)>,
    ) -> Result<Files, Failure> {
        let path = place.directory.join(FOLDER);
        let aside = place.directory.join(ASIDE);
        let failed = |error| failure(&path, &error);
        let mut lock = lock(&path)?;
        let filled = match begin {
            Begin::AsItIs if aside.exists() => {
                let text = format!(
                    "{}: restoring a dump did not come to its end; the store is as it was before",
                    path.display()
                );
                notes.push((Severity::Warning, text));
                std::fs::remove_dir_all(&path).map_err(failed)?;
                std::fs::rename(&aside, &path).map_err(failed)?;
                lock = self::lock(&path)?;
                true
            }
            Begin::AsItIs => true,
            Begin::Restored if !aside.exists() => {
                std::fs::rename(&path, &aside).map_err(failed)?;
                lock = self::lock(&path)?;
                false
            }
            Begin::Restored | Begin::Empty => false,
        };
        let mut objects = 0;
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() == LOCK {
                continue;
            }
            if !filled || entry.file_name() == NEW {
                let file = entry.path();
                std::fs::remove_file(&file).map_err(|error| failure(&file, &error))?;
            } else {
                objects += 1;
            }
        }
        let Place { hash, is_kept: durable, .. } = *place;
        let files = Files { path, hash, durable, objects, begin, aside, _lock: lock };
        if begin == Begin::Empty {
            files.forget()?;
        }
        Ok(files)
    }

    /// What was set aside goes.
    fn forget(&self) -> Result<(), Failure> {
        if !self.aside.exists() {
            return Ok(());
        }
        // Half of it is not to be put back.
        let old = self.aside.with_extension("old");
        let _ = std::fs::remove_dir_all(&old);
        std::fs::rename(&self.aside, &old)
            .and_then(|()| std::fs::remove_dir_all(&old))
            .map_err(|error| failure(&self.aside, &error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn objects(&self) -> i64 {
        self.objects
    }

    pub(super) fn load(&self, blobref: &Blobref) -> Result<Bytes, Failure> {
        let path = self.path.join(blobref.to_string());
        let data = self.read(&path)?;
        // Others may write to a folder; the cache above believes what it is told.
        if !blobref.matches(&data) {
            let text = format!("{} is damaged: move it away", path.display());
            return Err(Failure::new(Errno::EIO, text));
        }
        Ok(data.into())
    }

    pub(super) fn store(&mut self, blobs: &[&Bytes]) -> Result<Vec<Blobref>, Failure> {
        let store = |blob: &&Bytes| {
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

    pub(super) fn validate(&self, blobref: &Blobref) -> Result<(), Failure> {
        let path = self.path.join(blobref.to_string());
        path.metadata().map(drop).map_err(|error| failure(&path, &error))
    }

    pub(super) fn checkpoint(&self) -> Result<Checkpoint, Failure> {
        let path = self.path.join(CHECKPOINT);
        serde_json::from_slice(&self.read(&path)?).map_err(|error| {
            let text = format!("{} is no checkpoint: {error}", path.display());
            Failure::new(Errno::EINVAL, text)
        })
    }

    /// Once it is there, all that it refers to is.
    pub(super) fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let path = self.path.join(CHECKPOINT);
        let text = serde_json::to_vec(checkpoint)
            .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
        if self.durable {
            let folder = File::open(&self.path).map_err(|error| failure(&self.path, &error))?;
            nix::unistd::syncfs(&folder)
                .map_err(|error| failure(&self.path, &std::io::Error::from(error)))?;
        }
        self.write(&path, &text, self.durable)?;
        if self.begin == Begin::Restored {
            // The checkpoint is what a restore ends with.
            self.begin = Begin::AsItIs;
            self.forget()?;
        }
        Ok(())
    }

    /// All of it or nothing.
    fn write(&mut self, path: &Path, data: &[u8], synced: bool) -> Result<(), Failure> {
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
            self.objects += 1;
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, Failure> {
        std::fs::read(path).map_err(|error| failure(path, &error))
    }
}

/// Two brokers would each have a checkpoint of their own, and one of them would lose it.
fn lock(path: &Path) -> Result<File, Failure> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(Failure::new(Errno::from(&error), name(path, &error)));
        }
        _ => {}
    }
    let file = path.join(LOCK);
    let mut options = OpenOptions::new();
    let lock = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file)
        .map_err(|error| Failure::new(Errno::from(&error), name(&file, &error)))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let text = format!("{} is in use by another broker", path.display());
            Err(Failure::new(Errno::EBUSY, text))
        }
        Err(TryLockError::Error(error)) => {
            Err(Failure::new(Errno::from(&error), name(&file, &error)))
        }
    }
}

fn name(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {}", path.display(), Errno::from(error))
}

/// A blob or a checkpoint that is not there needs no explanation.
fn failure(path: &Path, error: &std::io::Error) -> Failure {
    match Errno::from(error) {
        Errno::ENOENT => Errno::ENOENT.into(),
        errno => Failure::new(errno, name(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, truncate: bool) -> Files {
        let begin = if truncate { Begin::Empty } else { Begin::AsItIs };
        Files::open(&place(dir), begin, &mut Vec::new()).unwrap()
    }

    fn place(dir: &Path) -> Place {
        Place { directory: dir.into(), hash: HashType::default(), is_kept: true }
    }

    fn store(files: &mut Files, blobs: &[&'static [u8]]) -> Vec<Blobref> {
        let blobs: Vec<Bytes> = blobs.iter().map(|blob| Bytes::from_static(blob)).collect();
        files.store(&blobs.iter().collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn blobs_are_there_when_the_store_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = open(dir.path(), false);
        let refs = store(&mut files, &[b"one", b"", b"one"]);
        assert_eq!(files.objects(), 2);
        drop(files);
        let files = open(dir.path(), false);
        assert_eq!(files.objects(), 2);
        let [one, nothing, _] = &refs[..] else { panic!("{refs:?}") };
        assert_eq!(files.load(one).unwrap(), "one");
        assert_eq!(files.load(nothing).unwrap(), "");
        files.validate(one).unwrap();
        let unknown = HashType::default().hash(b"two");
        assert_eq!(files.load(&unknown).unwrap_err().errno, Errno::ENOENT);
        assert_eq!(files.validate(&unknown).unwrap_err().errno, Errno::ENOENT);
        drop(files);
        let files = open(dir.path(), true);
        assert_eq!(files.objects(), 0);
        assert_eq!(files.load(one).unwrap_err().errno, Errno::ENOENT);
    }

    #[test]
    fn a_folder_that_is_in_use_is_not_opened_nor_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = open(dir.path(), false);
        let refs = store(&mut files, &[b"one"]);
        for begin in [Begin::AsItIs, Begin::Empty, Begin::Restored] {
            let failure = Files::open(&place(dir.path()), begin, &mut Vec::new()).unwrap_err();
            assert_eq!(failure.errno, Errno::EBUSY);
            let said = failure.to_string();
            assert!(said.ends_with("content.files is in use by another broker"), "{said}");
        }
        assert_eq!(files.load(&refs[0]).unwrap(), "one");
    }

    #[test]
    fn what_there_was_is_back_when_a_restore_did_not_come_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut notes = Vec::new();
        let mut open = |begin| Files::open(&place(dir.path()), begin, &mut notes).unwrap();
        let mut files = open(Begin::AsItIs);
        let old = store(&mut files, &[b"old"]);
        drop(files);
        for _ in 0..2 {
            let mut files = open(Begin::Restored);
            assert_eq!(files.objects(), 0);
            store(&mut files, &[b"half"]);
        }
        let files = open(Begin::AsItIs);
        assert_eq!(files.load(&old[0]).unwrap(), "old");
        assert_eq!(files.objects(), 1);
        drop(files);
        let mut files = open(Begin::Restored);
        let new = store(&mut files, &[b"new"]);
        let checkpoint = serde_json::json!({
            "version": 1, "rootref": "sha1-1", "sequence": 5, "timestamp": 1.5
        });
        files.put_checkpoint(&serde_json::from_value(checkpoint).unwrap()).unwrap();
        drop(files);
        let files = open(Begin::AsItIs);
        assert_eq!(files.load(&new[0]).unwrap(), "new");
        assert_eq!(files.load(&old[0]).unwrap_err().errno, Errno::ENOENT);
        assert_eq!(notes.len(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_found_and_mended_by_storing_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = open(dir.path(), false);
        let refs = store(&mut files, &[b"one"]);
        let [one] = &refs[..] else { panic!("{refs:?}") };
        std::fs::write(files.path().join(one.to_string()), "two").unwrap();
        let failure = files.load(one).unwrap_err();
        assert_eq!(failure.errno, Errno::EIO);
        assert!(failure.to_string().ends_with("is damaged: move it away"), "{failure}");
        store(&mut files, &[b"one"]);
        assert_eq!(files.load(one).unwrap(), "one");
        std::fs::write(files.path().join(CHECKPOINT), "{").unwrap();
        assert_eq!(files.checkpoint().unwrap_err().errno, Errno::EINVAL);
    }

    #[test]
    fn the_last_checkpoint_is_the_one_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = open(dir.path(), false);
        assert_eq!(files.checkpoint().unwrap_err().errno, Errno::ENOENT);
        for rootref in ["sha1-1", "sha1-2"] {
            let checkpoint = serde_json::json!({
                "version": 1, "rootref": rootref, "sequence": 5, "timestamp": 1.5
            });
            let checkpoint = serde_json::from_value(checkpoint).unwrap();
            files.put_checkpoint(&checkpoint).unwrap();
        }
        drop(files);
        let files = open(dir.path(), false);
        let found = serde_json::to_value(files.checkpoint().unwrap()).unwrap();
        assert_eq!(found["rootref"], "sha1-2");
    }
}
