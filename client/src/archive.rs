//! Files in archives of RFC 37: put into one, and taken out again.

mod create;
mod extract;

use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::content;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::create::{Creation, Put};
pub use self::extract::Extraction;
use crate::client::Client;

/// File type bits of a mode.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

/// A file system object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileObject {
    /// Absent in archives that are dictionaries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctime: Option<i64>,
    /// As in `st_mode`.
    pub mode: u32,
}

/// Where data of a file is: offset, size, and the blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Region(u64, u64, String);

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("error decoding fileref object: {0}")]
    Object(#[from] serde_json::Error),
    #[error("an archive is a list or an object, not {0}")]
    Archive(Value),
    #[error("{0}: a path in an archive is relative, and without '..'")]
    Path(String),
    #[error("{0}: missing symlink data")]
    NoTarget(String),
    #[error("{path}: unknown file type (mode=0{mode:o})")]
    Type { path: String, mode: u32 },
    #[error("{0}: unsupported file type")]
    Unsupported(String),
    #[error("{0}: not UTF-8, as names in an archive are")]
    Name(String),
    #[error("{path}: unknown RFC 37 encoding {encoding}")]
    Encoding { path: String, encoding: String },
    #[error("{path}: could not decode {encoding} file data")]
    Data { path: String, encoding: String },
    #[error("{path}: {}", reason(source))]
    Io { path: String, source: std::io::Error },
    #[error("{path}: error storing blob: {reason}")]
    Store { path: String, reason: String },
    #[error("{path}: error loading offset={offset} size={size} from {blobref}: {reason}")]
    Blob { path: String, offset: u64, size: u64, blobref: String, reason: String },
}

/// The objects of an archive, each with its path.
pub fn objects(archive: &Value) -> Result<Vec<(String, FileObject)>, FileError> {
    let objects: Vec<(Option<&str>, &Value)> = match archive {
        Value::Array(list) => list.iter().map(|object| (None, object)).collect(),
        Value::Object(map) => {
            map.iter().map(|(path, object)| (Some(path.as_str()), object)).collect()
        }
        other => return Err(FileError::Archive(other.clone())),
    };
    let object = |(path, object): (Option<&str>, &Value)| {
        let object = FileObject::deserialize(object)?;
        let path = object.path.as_deref().or(path).unwrap_or_default().to_owned();
        Ok((path, object))
    };
    objects.into_iter().map(object).collect()
}

impl FileObject {
    /// `f`, `d`, `l`, or `?` for what an archive can't have.
    pub fn kind(&self) -> char {
        match self.mode & S_IFMT {
            S_IFREG => 'f',
            S_IFDIR => 'd',
            S_IFLNK => 'l',
            _ => '?',
        }
    }
}

async fn load(flux: &Client, path: &str, region: &Region) -> Result<Bytes, FileError> {
    let Region(offset, size, name) = region;
    let failed = |reason: String| FileError::Blob {
        path: path.to_owned(),
        offset: *offset,
        size: *size,
        blobref: name.clone(),
        reason,
    };
    let blobref: Blobref = name.parse().map_err(|_| failed("invalid blobref".to_owned()))?;
    let request = Raw(Bytes::copy_from_slice(blobref.digest()));
    let loaded = flux.rpc::<content::Load>(Nodeid::ANY, &request).await;
    let blob = loaded.map_err(|e| failed(e.to_string()))?.0;
    if blob.len() as u64 != *size {
        return Err(failed(format!("unexpected size {}", blob.len())));
    }
    Ok(blob)
}

/// An error as strerror(3) words it.
fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => Errno(errno.unsigned_abs()).to_string(),
        None => error.to_string(),
    }
}
