//! Taking files out of an archive.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize as _;
use serde_json::Value;

use super::{FileError, FileObject, Region, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, load};
use crate::client::Client;

/// Files on their way into a directory.
#[derive(Debug)]
pub struct Extraction<'a> {
    flux: &'a Client,
    directory: &'a Path,
    /// What is there gives way.
    overwrite: bool,
    /// Directories that were made for what is in them.
    made: HashSet<PathBuf>,
    /// Directories of the archive, which may be read-only once all is in them.
    modes: Vec<(PathBuf, u32)>,
}

impl<'a> Extraction<'a> {
    pub fn new(flux: &'a Client, directory: &'a Path, overwrite: bool) -> Extraction<'a> {
        Extraction { flux, directory, overwrite, made: HashSet::new(), modes: Vec::new() }
    }

    /// Make one object; [`Extraction::finish`] is to be called after the last.
    pub async fn extract(&mut self, path: &str, object: &FileObject) -> Result<(), FileError> {
        let target = inside(self.directory, path)?;
        let io = |source| FileError::Io { path: path.to_owned(), source };
        if let Some(parent) = target.parent() {
            self.make_directory(parent).map_err(io)?;
        }
        match object.mode & S_IFMT {
            S_IFDIR => {
                self.make_directory(&target).map_err(io)?;
                self.modes.push((target, object.mode));
                Ok(())
            }
            S_IFLNK => {
                let text = object.data.as_ref().and_then(Value::as_str);
                let text = text.ok_or_else(|| FileError::NoTarget(path.to_owned()))?;
                self.make_way(&target);
                symlink(text, &target).map_err(io)
            }
            S_IFREG => {
                self.make_way(&target);
                let mut options = File::options();
                options.write(true).create_new(true).mode(object.mode & 0o7777);
                let file = options.open(&target).map_err(io)?;
                if let Some(size) = object.size {
                    file.set_len(size).map_err(io)?;
                }
                self.write(path, object, file).await
            }
            _ => Err(FileError::Type { path: path.to_owned(), mode: object.mode }),
        }
    }

    /// Give the directories their permissions.
    pub fn finish(mut self) -> Result<(), FileError> {
        // The deepest first: one above may be closed afterwards.
        self.modes.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, mode) in &self.modes {
            if !self.made.contains(path) {
                continue;
            }
            let io = |source| FileError::Io { path: path.display().to_string(), source };
            // It was made with all that the umask leaves.
            let left = fs::metadata(path).map_err(io)?.permissions().mode();
            let mode = mode & (left & 0o777 | 0o7000);
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io)?;
        }
        Ok(())
    }

    async fn write(
        &self,
        path: &str,
        object: &FileObject,
        mut file: File,
    ) -> Result<(), FileError> {
        let io = |source| FileError::Io { path: path.to_owned(), source };
        let Some(data) = &object.data else { return Ok(()) };
        let encoding = object.encoding.as_deref().unwrap_or("json");
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
                    let blob = load(self.flux, path, &region).await?;
                    file.write_all_at(&blob, region.0).map_err(io)?;
                }
                Ok(())
            }
            other => Err(FileError::Encoding { path: path.to_owned(), encoding: other.to_owned() }),
        }
    }

    /// Make a directory and those above it, where they are missing.
    fn make_directory(&mut self, path: &Path) -> std::io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_directory(parent)?;
        }
        fs::create_dir(path)?;
        self.made.insert(path.to_owned());
        Ok(())
    }

    /// A file that is there gives way, even if it is a link.
    fn make_way(&self, target: &Path) {
        if self.overwrite {
            // Whatever is wrong is said when the new one is made.
            let _ = fs::remove_file(target);
        }
    }
}

fn inside(directory: &Path, path: &str) -> Result<PathBuf, FileError> {
    let plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !Path::new(path).components().all(plain) {
        return Err(FileError::Path(path.to_owned()));
    }
    Ok(directory.join(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use crate::archive::objects;
    use serde_json::json;

    /// Nothing here is loaded from the broker.
    fn client() -> (Client, tokio::net::UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        (Client::from_stream(ours, flux_protocol::credential::Credential::UNSET), theirs)
    }

    async fn extract(archive: &Value, into: &Path, overwrite: bool) -> Result<(), FileError> {
        let (flux, _other_end) = client();
        let mut extraction = Extraction::new(&flux, into, overwrite);
        for (path, object) in objects(archive)? {
            extraction.extract(&path, &object).await?;
        }
        extraction.finish()
    }

    #[tokio::test]
    async fn files_directories_and_links_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let archive = json!({
            "script": {"mode": 0o100_700, "data": "#!/bin/sh\n", "encoding": "utf-8", "size": 10},
            "sub/bin": {"mode": 0o100_600, "data": "AP8=", "encoding": "base64"},
            "conf.json": {"mode": 0o100_600, "data": {"a": 1}},
            "empty": {"mode": 0o100_600, "size": 3},
            "d": {"mode": 0o040_700},
            "sub": {"mode": 0o040_500},
            "link": {"mode": 0o120_777, "data": "script"},
        });
        extract(&archive, dir.path(), false).await.unwrap();
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        assert_eq!(read("script"), b"#!/bin/sh\n");
        assert_eq!(read("link"), b"#!/bin/sh\n");
        assert_eq!(read("sub/bin"), b"\0\xff");
        assert_eq!(read("conf.json"), br#"{"a":1}"#);
        assert_eq!(read("empty"), b"\0\0\0");
        let mode =
            |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode("script"), mode("d"), mode("sub")),
            (0o700, 0o700, 0o500),
            "a directory is closed when all is in it"
        );
        fs::set_permissions(dir.path().join("sub"), Permissions::from_mode(0o700)).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_there_gives_way_only_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let archive = json!([
            {"path": "d", "mode": 0o040_700},
            {"path": "x", "mode": 0o100_600, "data": "y", "encoding": "utf-8"}
        ]);
        extract(&archive, dir.path(), false).await.unwrap();
        let error = extract(&archive, dir.path(), false).await.unwrap_err();
        assert_eq!(error.to_string(), "x: File exists");
        fs::write(dir.path().join("x"), "z").unwrap();
        extract(&archive, dir.path(), true).await.unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"y");
    }

    #[tokio::test]
    async fn archives_that_make_no_sense_are_refused() {
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
            assert!(extract(&bad, dir.path(), true).await.is_err(), "{bad}");
        }
    }
}
