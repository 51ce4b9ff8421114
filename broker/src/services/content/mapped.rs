//! Files that serve their blobs themselves: those of `flux archive create --mmap`, on rank 0.
//!
//! A file is read anew for each blob, and what was read is given out only if it still has the
//! digest: a file that was changed or cut loses blobs and never makes one false, and the kernel's
//! cache makes it fast. Such blobs stay out of our own cache, which holds only what is stored.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::{content as rpc, content_backing as backing};
use nix::unistd::{Whence, lseek};
use serde_json::{Value, json};

use super::Content;
use crate::call::Call;
use crate::context::Context;
use crate::handle::Handle;

/// Files by the name of their archive, and where blobs are in them.
#[derive(Debug, Default)]
pub(super) struct Mapped {
    tags: BTreeMap<String, Vec<MappedFile>>,
    blobs: HashMap<Blobref, Region>,
}

#[derive(Debug)]
struct MappedFile {
    path: Arc<Path>,
    regions: Vec<(Blobref, Region)>,
}

#[derive(Debug, Clone)]
pub(super) struct Region {
    path: Arc<Path>,
    offset: u64,
    length: usize,
}

impl Mapped {
    pub(super) fn find(&self, blobref: &Blobref) -> Option<Region> {
        self.blobs.get(blobref).cloned()
    }

    pub(super) fn stats(&self) -> Value {
        let paths = |files: &Vec<MappedFile>| -> Vec<String> {
            files.iter().map(|file| file.path.display().to_string()).collect()
        };
        let tags: BTreeMap<&String, Vec<String>> =
            self.tags.iter().map(|(tag, files)| (tag, paths(files))).collect();
        json!({"tags": tags, "blobs": self.blobs.len()})
    }

    fn add(&mut self, tag: String, file: MappedFile) {
        self.blobs.extend(file.regions.iter().cloned());
        self.tags.entry(tag).or_default().push(file);
    }

    fn remove(&mut self, tag: &str) {
        self.tags.remove(tag);
        // Other files may have some of the blobs, too.
        let files = self.tags.values().flatten();
        self.blobs = files.flat_map(|file| file.regions.iter().cloned()).collect();
    }
}

impl Content {
    pub(super) fn mmap_add(
        &mut self,
        context: &Context<Self>,
        request: rpc::MmapAddRequest,
        call: Call<Value>,
    ) {
        if self.rank != 0 {
            let text = "content may only be mmapped on rank 0";
            return call.fail(Failure::new(Errno::EINVAL, text));
        }
        let path = PathBuf::from(&request.path);
        if !path.is_absolute() {
            let text = format!("{}: path must be fully qualified", request.path);
            return call.fail(Failure::new(Errno::EINVAL, text));
        }
        let hash = self.hash;
        let map = tokio::task::spawn_blocking(move || map(&path, hash, request.chunksize));
        context.spawn(map, move |content, mapped| match mapped {
            Ok(Ok(file)) => {
                content.mapped.add(request.tag, file);
                call.reply(&json!({}));
            }
            Ok(Err(error)) => {
                let errno =
                    error.raw_os_error().map_or(Errno::EIO, |errno| Errno(errno.unsigned_abs()));
                call.fail(Failure::new(errno, format!("{}: {errno}", request.path)));
            }
            Err(_) => call.fail(Errno::EIO),
        });
    }

    pub(super) fn mmap_remove(&mut self, tag: &str) {
        self.mapped.remove(tag);
    }
}

/// The blob in a region; where the file has changed it may have been stored, too.
pub(super) async fn read_or_load(
    handle: Handle,
    region: Region,
    blobref: Blobref,
    digest: Raw,
) -> Result<Raw, Failure> {
    let path = region.path.clone();
    if let Some(data) = read(region, blobref).await {
        return Ok(Raw(data));
    }
    handle.rpc::<backing::Load>(&digest).await.map_err(|_| {
        let text = format!("mapped file {} has changed", path.display());
        Failure::new(Errno::ENOENT, text)
    })
}

/// The blob in a region, if it is still there.
async fn read(region: Region, blobref: Blobref) -> Option<Bytes> {
    let read = move || {
        let mut data = vec![0; region.length];
        let file = File::open(&region.path).ok()?;
        file.read_exact_at(&mut data, region.offset).ok()?;
        blobref.matches(&data).then(|| Bytes::from(data))
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// Find the blobs of a file: what is between its holes, in pieces of `chunksize`.
fn map(path: &Path, hash: HashType, chunksize: u64) -> std::io::Result<MappedFile> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(nix::errno::Errno::EINVAL.into());
    }
    let seek = |from: u64, whence| -> Result<u64, nix::errno::Errno> {
        let from = i64::try_from(from).map_err(|_| nix::errno::Errno::EOVERFLOW)?;
        lseek(&file, from, whence).map(i64::unsigned_abs)
    };
    let path: Arc<Path> = path.into();
    let mut regions = Vec::new();
    let mut at = 0;
    while at < meta.len() {
        let offset = match seek(at, Whence::SeekData) {
            Ok(offset) if offset < meta.len() => offset,
            Ok(_) | Err(nix::errno::Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(offset, Whence::SeekHole)?.min(meta.len());
        let limit = if chunksize == 0 { u64::MAX } else { chunksize };
        let length = limit.min(end - offset);
        at = offset + length;
        let length = usize::try_from(length).map_err(|_| nix::errno::Errno::EFBIG)?;
        let mut data = vec![0; length];
        file.read_exact_at(&mut data, offset)?;
        regions.push((hash.hash(&data), Region { path: path.clone(), offset, length }));
    }
    Ok(MappedFile { path, regions })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[tokio::test]
    async fn a_mapped_file_gives_its_blobs_until_it_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789abc").unwrap();
        let hash = HashType::default();
        let mut mapped = Mapped::default();
        mapped.add("one".to_owned(), map(&path, hash, 5).unwrap());
        mapped.add("two".to_owned(), map(&path, hash, 5).unwrap());
        assert_eq!(mapped.stats()["blobs"], 3);
        mapped.remove("one");
        let blobref = hash.hash(b"abc");
        let region = mapped.find(&blobref).unwrap();
        assert_eq!(read(region.clone(), blobref).await.unwrap(), "abc");
        std::fs::write(&path, b"0123456789xyz").unwrap();
        assert_eq!(read(region.clone(), blobref).await, None);
        std::fs::write(&path, b"0").unwrap();
        assert_eq!(read(region, blobref).await, None);
        mapped.remove("two");
        assert!(mapped.find(&blobref).is_none());
    }
}
