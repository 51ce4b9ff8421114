//! Changing a tree so that it refers to nothing that is missing.
//!
//! Directories on the way to a change are loaded and become part of the tree; when it is stored,
//! they are blobs again.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::time::{SystemTime, UNIX_EPOCH};

use flux_client::Client;
use flux_protocol::blobref::Blobref;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::content::{Checkpoint, CheckpointPutRequest};
use flux_protocol::rpc::content_backing;
use flux_protocol::treeobj::{Dir, Treeobj};

use super::{Tell, WINDOW};
use crate::blobstore::Store;
use crate::failure::Failure;

/// Where values go that have lost some of their data.
const LOST_AND_FOUND: &str = "lost+found";

/// What is to be done, by path.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// What is left of values.
    values: Vec<(String, Treeobj)>,
    directories: Vec<String>,
}

pub(super) struct Repair<'a> {
    pub(super) flux: &'a Client,
    pub(super) tell: Tell,
    pub(super) job_aware: bool,
}

impl Repairs {
    pub(super) fn move_value(&mut self, path: &str, rest: Treeobj) {
        self.values.push((path.to_owned(), rest));
    }

    pub(super) fn unlink(&mut self, path: &str) {
        self.directories.push(path.to_owned());
    }

    pub(super) fn moved(&self) -> usize {
        self.values.len()
    }

    pub(super) fn unlinked(&self) -> usize {
        self.directories.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.directories.is_empty()
    }

    fn damaged_jobs(&self) -> BTreeSet<String> {
        let values = self.values.iter().map(|(path, _)| path);
        values.chain(&self.directories).filter_map(|path| job_directory(path)).collect()
    }
}

impl Repair<'_> {
    /// Make the changes and a checkpoint of the result, which is returned.
    pub(super) async fn apply(
        &self,
        root: Blobref,
        repairs: Repairs,
        sequence: i64,
    ) -> Result<Blobref, Failure> {
        let mut root = self.load(&[root]).await?;
        let jobs = if self.job_aware { repairs.damaged_jobs() } else { BTreeSet::new() };
        for path in &repairs.directories {
            self.take(&mut root, path).await?;
        }
        for (path, rest) in repairs.values {
            self.take(&mut root, &path).await?;
            self.keep(&mut root, &path, rest).await?;
        }
        for path in jobs {
            if let Some(job) = self.take(&mut root, &path).await? {
                self.keep(&mut root, &path, job).await?;
                self.tell.aside(format_args!("{path} moved to lost+found"));
            }
        }
        self.store(root, sequence).await
    }

    async fn store(&self, root: Dir, sequence: i64) -> Result<Blobref, Failure> {
        let hash = self.flux.attr("content.hash").await;
        let hash = hash.map_err(|e| Failure::of("getattr content.hash", e))?;
        let hash = hash.parse().map_err(Failure::new)?;
        let mut store = Store::new(self.flux, hash, true, WINDOW);
        let root = store.directories(root).await?;
        store.settle(0).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let value = Checkpoint {
            version: 1,
            rootref: root.to_string(),
            sequence: sequence + 1,
            timestamp: now.as_secs_f64(),
        };
        let request = CheckpointPutRequest { value };
        let put = self.flux.rpc::<content_backing::CheckpointPut>(Nodeid(0), &request).await;
        put.map_err(|e| Failure::of("error updating checkpoint", e))?;
        Ok(root)
    }

    /// Remove what is at a path; its directory is left, even if it is empty.
    async fn take(&self, root: &mut Dir, path: &str) -> Result<Option<Treeobj>, Failure> {
        let (way, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut dir = root;
        for part in way.split('.').filter(|part| !part.is_empty()) {
            let Some(object) = dir.get_mut(part) else { return Ok(None) };
            dir = self.open(object).await?;
        }
        Ok(dir.remove(name))
    }

    /// Put something below `lost+found`, where it takes the place of what is there.
    async fn keep(&self, root: &mut Dir, path: &str, object: Treeobj) -> Result<(), Failure> {
        let path = format!("{LOST_AND_FOUND}.{path}");
        let (way, name) = path.rsplit_once('.').unwrap_or(("", &path));
        let mut dir = root;
        for part in way.split('.') {
            let object = dir.entry(part.to_owned()).or_insert_with(Treeobj::empty_dir);
            dir = self.open(object).await?;
        }
        self.merge(dir, name.to_owned(), object).await
    }

    /// Directories become one, anything else is replaced.
    async fn merge(&self, dir: &mut Dir, name: String, object: Treeobj) -> Result<(), Failure> {
        let is_dir = |object: &Treeobj| matches!(object, Treeobj::Dir(_) | Treeobj::Dirref(_));
        match dir.entry(name) {
            Entry::Vacant(slot) => {
                slot.insert(object);
            }
            Entry::Occupied(mut slot) if is_dir(slot.get()) && is_dir(&object) => {
                let mut object = object;
                let from = std::mem::take(self.open(&mut object).await?);
                let into = self.open(slot.get_mut()).await?;
                for (name, object) in from {
                    Box::pin(self.merge(into, name, object)).await?;
                }
            }
            Entry::Occupied(mut slot) => {
                slot.insert(object);
            }
        }
        Ok(())
    }

    /// The entries of a directory, which is in the tree from now on. What is none becomes one.
    async fn open<'t>(&self, object: &'t mut Treeobj) -> Result<&'t mut Dir, Failure> {
        if let Treeobj::Dirref(blobs) = object {
            *object = Treeobj::Dir(self.load(blobs).await?);
        } else if object.as_dir().is_none() {
            *object = Treeobj::empty_dir();
        }
        object.as_dir_mut().ok_or_else(|| Failure::new("not a directory"))
    }

    async fn load(&self, blobs: &[Blobref]) -> Result<Dir, Failure> {
        let mut text = Vec::new();
        for blobref in blobs {
            let digest = Raw(blobref.digest().to_vec().into());
            let loaded = self.flux.rpc::<content_backing::Load>(Nodeid(0), &digest).await;
            text.extend_from_slice(&loaded.map_err(|e| Failure::of(blobref, e.errno()))?.0);
        }
        match Treeobj::decode(&text).map_err(Failure::new)? {
            Treeobj::Dir(dir) => Ok(dir),
            other => Err(Failure::new(format_args!("expected a dir, not a {}", other.type_name()))),
        }
    }
}

/// `job.XXXX.XXXX.XXXX.XXXX`, where a path is in or at the directory of a job.
fn job_directory(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('.').take(5).collect();
    let [first, id @ ..] = parts.as_slice() else { return None };
    let hex = |part: &&str| part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    (*first == "job" && id.len() == 4 && id.iter().all(hex)).then(|| parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_known_by_their_directories() {
        let id = "job.0123.4567.89ab.CDEF";
        assert_eq!(job_directory(&format!("{id}.guest.output")).as_deref(), Some(id));
        assert_eq!(job_directory(id).as_deref(), Some(id));
        for other in ["job.0123.4567.89ab", "job.0123.4567.89ab.wxyz.a", "a.job.0123.4567.89ab.0"] {
            assert_eq!(job_directory(other), None);
        }
    }
}
