//! Files that come with the job (RFC 37 archives): in the jobspec, or by name in the KVS.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flux_client::{Client, RpcError, kvs};
use flux_protocol::blobref::Blobref;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::content;
use serde::Deserialize;
use serde_json::Value;

use crate::fatal::{Fatal, reason};
use crate::job::Job;
use crate::log::Log;

const FILES: &str = "files";
const STAGE_IN: &str = "stage-in";

/// File type bits of a mode.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

#[derive(Debug, Deserialize)]
struct FileObject {
    path: Option<String>,
    mode: u32,
    size: Option<u64>,
    encoding: Option<String>,
    data: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Region(u64, u64, String);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StageIn {
    names: Option<String>,
    /// Of old for `names`.
    tags: Option<String>,
    pattern: Option<String>,
    destination: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum FileError {
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
    #[error("{path}: unknown RFC 37 encoding {encoding}")]
    Encoding { path: String, encoding: String },
    #[error("{path}: could not decode {encoding} file data")]
    Data { path: String, encoding: String },
    #[error("{path}: {}", reason(source))]
    Io { path: String, source: std::io::Error },
    #[error("{path}: error loading offset={offset} size={size} from {blobref}: {reason}")]
    Blob { path: String, offset: u64, size: u64, blobref: String, reason: String },
}

/// Put the jobspec's files into the job's temporary directory.
pub(crate) async fn extract_job_files(
    job: &Job,
    tmpdir: &Path,
    flux: &Client,
) -> Result<(), Fatal> {
    match &job.jobspec.files {
        Some(archive) if !archive.is_null() => {
            extract(flux, archive, tmpdir, &|_| true).await.map_err(|e| Fatal::new(FILES, e))?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Put files that `flux archive` has stored where the `stage-in` option says.
pub(crate) async fn stage_in(
    job: &Job,
    tmpdir: &Path,
    flux: &Client,
    log: &Log,
) -> Result<(), Fatal> {
    let Some(option) = job.jobspec.options.parse_object::<StageIn>(STAGE_IN)? else {
        return Ok(());
    };
    if option.tags.is_some() && job.is_leader() {
        log.warn(
            STAGE_IN,
            "Setting stage-in.names to the value of deprecated option stage-in.tags.",
        );
    }
    let names = option.tags.or(option.names).unwrap_or_default();
    let mut names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        names.push("main");
    }
    let (scope, destination) = match option.destination.as_deref() {
        None => ("local", tmpdir),
        Some(destination) => match destination.split_once(':') {
            None => ("local", Path::new(destination)),
            Some((scope @ ("local" | "global"), path)) => (scope, Path::new(path)),
            Some(_) => {
                let text = "destination prefix must be local: or global:";
                return Err(Fatal::new(STAGE_IN, text));
            }
        },
    };
    if scope == "global" && !job.is_leader() {
        return Ok(());
    }
    let wanted = |path: &str| match &option.pattern {
        Some(pattern) => crate::sys::fnmatch(pattern, path),
        None => true,
    };
    let started = std::time::Instant::now();
    let (mut count, mut bytes) = (0, 0);
    for name in names {
        let archive = lookup(flux, name).await?;
        let extracted = extract(flux, &archive, destination, &wanted).await;
        let (files, size) = extracted.map_err(|e| Fatal::new(STAGE_IN, e))?;
        count += files;
        bytes += size;
    }
    let rate = bytes as f64 / 1e6 / started.elapsed().as_secs_f64();
    log.debug(STAGE_IN, format_args!("{count} files {rate:.1}MB/s"));
    Ok(())
}

async fn lookup(flux: &Client, name: &str) -> Result<Value, Fatal> {
    let key = format!("archive.{name}");
    let failed = |e: &dyn std::fmt::Display| {
        Fatal::new(STAGE_IN, format!("could not lookup {key} in primary KVS namespace: {e}"))
    };
    let value = kvs::get(flux, kvs::Root::Namespace("primary"), &key).await;
    serde_json::from_slice(&value.map_err(|e| failed(&e))?).map_err(|e| failed(&e))
}

/// Returns how many files there were, and their sizes.
async fn extract(
    flux: &Client,
    archive: &Value,
    directory: &Path,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<(usize, u64), FileError> {
    let objects: Vec<(Option<&str>, &Value)> = match archive {
        Value::Array(list) => list.iter().map(|object| (None, object)).collect(),
        Value::Object(map) => {
            map.iter().map(|(path, object)| (Some(path.as_str()), object)).collect()
        }
        other => return Err(FileError::Archive(other.clone())),
    };
    let (mut count, mut bytes) = (0, 0);
    for (path, object) in objects {
        let object = FileObject::deserialize(object)?;
        let path = object.path.as_deref().or(path).unwrap_or_default().to_owned();
        if wanted(&path) {
            count += 1;
            bytes += object.size.unwrap_or(0);
            object.extract(flux, &path, directory).await?;
        }
    }
    Ok((count, bytes))
}

impl FileObject {
    async fn extract(self, flux: &Client, path: &str, directory: &Path) -> Result<(), FileError> {
        let target = inside(directory, path)?;
        let io = |source| FileError::Io { path: path.to_owned(), source };
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        match self.mode & S_IFMT {
            S_IFDIR => fs::create_dir_all(&target).map_err(io),
            S_IFLNK => {
                let text = self.data.as_ref().and_then(Value::as_str);
                let text = text.ok_or_else(|| FileError::NoTarget(path.to_owned()))?;
                replace(&target);
                symlink(text, &target).map_err(io)
            }
            S_IFREG => {
                replace(&target);
                let mut options = File::options();
                options.write(true).create_new(true).mode(self.mode & 0o7777);
                let file = options.open(&target).map_err(io)?;
                if let Some(size) = self.size {
                    file.set_len(size).map_err(io)?;
                }
                self.write(flux, path, file).await
            }
            _ => Err(FileError::Type { path: path.to_owned(), mode: self.mode }),
        }
    }

    async fn write(self, flux: &Client, path: &str, mut file: File) -> Result<(), FileError> {
        let io = |source| FileError::Io { path: path.to_owned(), source };
        let Some(data) = self.data else { return Ok(()) };
        let encoding = self.encoding.as_deref().unwrap_or("json");
        let bad = || FileError::Data { path: path.to_owned(), encoding: encoding.to_owned() };
        match encoding {
            "json" => file.write_all(data.to_string().as_bytes()).map_err(io),
            "utf-8" => file.write_all(data.as_str().ok_or_else(bad)?.as_bytes()).map_err(io),
            "base64" => {
                let text = data.as_str().ok_or_else(bad)?;
                file.write_all(&STANDARD.decode(text).map_err(|_| bad())?).map_err(io)
            }
            "blobvec" => {
                for region in Vec::<Region>::deserialize(data).map_err(|_| bad())? {
                    let blob = load(flux, path, &region).await?;
                    file.write_all_at(&blob, region.0).map_err(io)?;
                }
                Ok(())
            }
            other => Err(FileError::Encoding { path: path.to_owned(), encoding: other.to_owned() }),
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
    let loaded: Result<Raw, RpcError> = flux.rpc::<content::Load>(Nodeid::ANY, &request).await;
    let blob = loaded.map_err(|e| failed(e.to_string()))?.0;
    if blob.len() as u64 != *size {
        return Err(failed(format!("unexpected size {}", blob.len())));
    }
    Ok(blob)
}

fn inside(directory: &Path, path: &str) -> Result<PathBuf, FileError> {
    let plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !Path::new(path).components().all(plain) {
        return Err(FileError::Path(path.to_owned()));
    }
    Ok(directory.join(path))
}

/// A file that is there gives way, even if it is a link.
fn replace(target: &Path) {
    // Whatever is wrong is said when the new one is made.
    let _ = fs::remove_file(target);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    /// Nothing here is loaded from the broker.
    fn client() -> (Client, tokio::net::UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        (Client::from_stream(ours, flux_protocol::credential::Credential::UNSET), theirs)
    }

    #[tokio::test]
    async fn files_directories_and_links_are_made() {
        let (flux, _other_end) = client();
        let dir = tempfile::tempdir().unwrap();
        let archive = json!({
            "script": {"mode": 0o100_700, "data": "#!/bin/sh\n", "encoding": "utf-8", "size": 10},
            "sub/bin": {"mode": 0o100_600, "data": "AP8=", "encoding": "base64"},
            "conf.json": {"mode": 0o100_600, "data": {"a": 1}},
            "empty": {"mode": 0o100_600, "size": 3},
            "d": {"mode": 0o040_755},
            "link": {"mode": 0o120_777, "data": "script"},
        });
        let (count, bytes) = extract(&flux, &archive, dir.path(), &|_| true).await.unwrap();
        assert_eq!((count, bytes), (6, 13));
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        assert_eq!(read("script"), b"#!/bin/sh\n");
        assert_eq!(read("link"), b"#!/bin/sh\n");
        assert_eq!(read("sub/bin"), b"\0\xff");
        assert_eq!(read("conf.json"), br#"{"a":1}"#);
        assert_eq!(read("empty"), b"\0\0\0");
        assert!(dir.path().join("d").is_dir());
        let mode = fs::metadata(dir.path().join("script")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        // Once more: what is there gives way.
        extract(&flux, &archive, dir.path(), &|path| path == "script").await.unwrap();
    }

    #[tokio::test]
    async fn a_list_names_its_paths_itself() {
        let (flux, _other_end) = client();
        let dir = tempfile::tempdir().unwrap();
        let archive = json!([{"path": "x", "mode": 0o100_600, "data": "y", "encoding": "utf-8"}]);
        extract(&flux, &archive, dir.path(), &|_| true).await.unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"y");
    }

    #[tokio::test]
    async fn archives_that_make_no_sense_are_refused() {
        let (flux, _other_end) = client();
        let dir = tempfile::tempdir().unwrap();
        for bad in [
            json!("x"),
            json!({"../x": {"mode": 0o100_600}}),
            json!({"/etc/x": {"mode": 0o100_600}}),
            json!({"x": {}}),
            json!({"x": {"mode": 0o010_600}}),
            json!({"x": {"mode": 0o120_777}}),
            json!({"x": {"mode": 0o100_600, "data": "!", "encoding": "base64"}}),
            json!({"x": {"mode": 0o100_600, "data": "!", "encoding": "rot13"}}),
        ] {
            assert!(extract(&flux, &bad, dir.path(), &|_| true).await.is_err(), "{bad}");
        }
    }
}
