//! Putting files into an archive.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::content;
use nix::errno::Errno as Os;
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek};
use serde_json::{Value, json};

use super::{FileError, FileObject, Region};
use crate::client::Client;
use crate::pending::Pending;

/// Blobs that are on their way to the store at a time.
const WINDOW: usize = 16;

/// How files become objects.
#[derive(Debug, Clone, Copy)]
pub struct Creation<'a> {
    pub flux: &'a Client,
    /// What blobs are named by.
    pub hash: HashType,
    /// Larger files are in blobs.
    pub small_file_threshold: u64,
    /// Of a blob; 0: without limit.
    pub chunksize: u64,
    /// Whether blobs are stored, not just named.
    pub store: bool,
}

/// A file as an object, and the blobs that hold its data.
#[derive(Debug)]
pub struct Put {
    pub object: FileObject,
    pub blobs: Vec<Blobref>,
}

impl Creation<'_> {
    /// Make an object of a file, a directory without what is in it, or a link.
    pub async fn put(&self, path: &Path) -> Result<Put, FileError> {
        let name = name(path)?;
        let shown = path.display().to_string();
        let io = |source| FileError::Io { path: shown.clone(), source };
        let found = path.symlink_metadata().map_err(io)?;
        if found.is_symlink() {
            let target = std::fs::read_link(path).map_err(io)?;
            let target = target.to_str().ok_or_else(|| FileError::Name(shown.clone()))?;
            let object = object(name, &found, None, Some(json!(target)));
            return Ok(Put { object, blobs: Vec::new() });
        }
        // What is no file any more when it is opened must not be waited for.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = File::options().read(true).custom_flags(flags).open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        let plain = |object| Ok(Put { object, blobs: Vec::new() });
        if meta.is_dir() {
            return plain(object(name, &meta, None, None));
        }
        if !meta.is_file() {
            return Err(FileError::Unsupported(shown));
        }
        if next_data(&file, 0).map_err(io)?.is_none() {
            return plain(sized(object(name, &meta, None, None), meta.size()));
        }
        if meta.size() > self.small_file_threshold {
            let (regions, blobs) = self.regions(&shown, &file, meta.size()).await?;
            let object = object(name, &meta, Some("blobvec"), Some(json!(regions)));
            return Ok(Put { object: sized(object, meta.size()), blobs });
        }
        let mut bytes = Vec::new();
        (&file).take(meta.size()).read_to_end(&mut bytes).map_err(io)?;
        let size = bytes.len() as u64;
        let (data, encoding) = match String::from_utf8(bytes) {
            Ok(text) => (text, "utf-8"),
            Err(error) => (STANDARD.encode(error.as_bytes()), "base64"),
        };
        plain(sized(object(name, &meta, Some(encoding), Some(json!(data))), size))
    }

    /// Name, and store, what there is between the holes of a file.
    async fn regions(
        &self,
        shown: &str,
        file: &File,
        size: u64,
    ) -> Result<(Vec<Region>, Vec<Blobref>), FileError> {
        let io = |source| FileError::Io { path: shown.to_owned(), source };
        let (mut regions, mut blobs) = (Vec::new(), Vec::new());
        let mut storing = VecDeque::new();
        let mut at = 0;
        while at < size
            && let Some(start) = next_data(file, at).map_err(io)?
            && start < size
        {
            let end = next_hole(file, start).map_err(io)?.min(size);
            let length = match self.chunksize {
                0 => end - start,
                limit => limit.min(end - start),
            };
            let mut chunk = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut chunk, start).map_err(io)?;
            let blobref = self.hash.hash(&chunk);
            regions.push(Region(start, length, blobref.to_string()));
            blobs.push(blobref);
            if self.store {
                if storing.len() == WINDOW {
                    stored(&mut storing, shown).await?;
                }
                let pending = self.flux.start::<content::Store>(Nodeid::ANY, &Raw(chunk.into()));
                storing.push_back(pending.map_err(|error| failed(shown, &error))?);
            }
            at = start + length;
        }
        while !storing.is_empty() {
            stored(&mut storing, shown).await?;
        }
        Ok((regions, blobs))
    }
}

/// Wait for the oldest.
async fn stored(storing: &mut VecDeque<Pending<Raw>>, shown: &str) -> Result<(), FileError> {
    if let Some(oldest) = storing.pop_front() {
        oldest.await.map_err(|error| failed(shown, &error))?;
    }
    Ok(())
}

fn failed(shown: &str, error: &crate::error::RpcError) -> FileError {
    FileError::Store { path: shown.to_owned(), reason: error.to_string() }
}

fn object(
    name: String,
    meta: &Metadata,
    encoding: Option<&str>,
    data: Option<Value>,
) -> FileObject {
    FileObject {
        path: Some(name),
        encoding: encoding.map(str::to_owned),
        data,
        size: None,
        mtime: Some(meta.mtime()),
        ctime: Some(meta.ctime()),
        mode: meta.mode(),
    }
}

fn sized(mut object: FileObject, size: u64) -> FileObject {
    object.size = Some(size);
    object
}

/// The path in the archive: below the directory that it will be extracted to.
fn name(path: &Path) -> Result<String, FileError> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => {
                let part = part.to_str();
                parts.push(part.ok_or_else(|| FileError::Name(path.display().to_string()))?);
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(FileError::Path(path.display().to_string())),
        }
    }
    Ok(parts.join("/"))
}

/// Where data goes on; none: nothing but a hole is left.
fn next_data(file: impl AsFd, from: u64) -> std::io::Result<Option<u64>> {
    match seek(file, from, Whence::SeekData) {
        Ok(at) => Ok(Some(at)),
        Err(Os::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn next_hole(file: impl AsFd, from: u64) -> std::io::Result<u64> {
    Ok(seek(file, from, Whence::SeekHole)?)
}

fn seek(file: impl AsFd, from: u64, whence: Whence) -> Result<u64, Os> {
    let from = i64::try_from(from).map_err(|_| Os::EOVERFLOW)?;
    let at = lseek(file, from, whence)?;
    u64::try_from(at).map_err(|_| Os::EOVERFLOW)
}
