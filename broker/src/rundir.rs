//! The run directory, with the sockets, and the state directory, with what lasts.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flux_protocol::errno::Errno;
use nix::unistd::getuid;

use crate::attrs::{Access, Attrs};

/// Directories of this broker, with what has to be removed at its end.
#[derive(Debug, Default)]
pub struct Rundir {
    remove: Vec<PathBuf>,
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RundirError {
    #[error("{attr} {}: {}", path.display(), Errno::from(error))]
    Io { attr: &'static str, path: PathBuf, error: std::io::Error },
    #[error("{attr} {} is not a directory", path.display())]
    NotADirectory { attr: &'static str, path: PathBuf },
    #[error("{attr} {} is not owned by the instance owner (uid {owner}); chown it, or start as its owner",
        path.display())]
    Owner { attr: &'static str, path: PathBuf, owner: u32 },
    #[error("{attr} {} can't be written to by the instance owner: {}", path.display(),
        errno.desc())]
    NotWritable { attr: &'static str, path: PathBuf, errno: nix::errno::Errno },
}

impl Rundir {
    /// Make or check `rundir`, and `statedir` at rank 0; sets both attributes.
    pub fn create(attrs: &Attrs, rank: u32) -> Result<Rundir, RundirError> {
        let mut rundir = Rundir::default();
        let path = rundir.prepare(attrs, "rundir", true)?;
        let cleanup = if rundir.remove.contains(&path) { "1" } else { "0" };
        attrs.put("rundir-cleanup", cleanup, Access::Immutable);
        attrs.put("rundir", path.to_string_lossy(), Access::Immutable);
        if rank == 0 && attrs.get("statedir").is_some() {
            let path = rundir.prepare(attrs, "statedir", false)?;
            attrs.put("statedir", path.to_string_lossy(), Access::Immutable);
        }
        Ok(rundir)
    }

    fn prepare(
        &mut self,
        attrs: &Attrs,
        attr: &'static str,
        shared: bool,
    ) -> Result<PathBuf, RundirError> {
        let cleanup = attrs.get(&format!("{attr}-cleanup")).map(|value| value != "0");
        let (path, created) = match attrs.get(attr) {
            None => (unique_dir(&std::env::temp_dir(), attr)?, true),
            Some(path) => existing_or_new(Path::new(&path), attr)?,
        };
        check(&path, attr, shared)?;
        if cleanup.unwrap_or(created) {
            self.remove.push(path.clone());
        }
        Ok(path)
    }

    /// Remove what was made for this broker alone.
    pub fn remove(self) {
        for path in self.remove {
            // Nobody misses what can't be removed any more.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

fn existing_or_new(path: &Path, attr: &'static str) -> Result<(PathBuf, bool), RundirError> {
    match std::fs::metadata(path) {
        // A directory like /tmp is where to make a new one, not one to use.
        Ok(meta) if meta.is_dir() && meta.permissions().mode() & 0o1000 != 0 => {
            Ok((unique_dir(path, attr)?, true))
        }
        Ok(_) => Ok((path.to_owned(), false)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            make_dir(path, attr)?;
            Ok((path.to_owned(), true))
        }
        Err(error) => Err(RundirError::Io { attr, path: path.to_owned(), error }),
    }
}

fn unique_dir(parent: &Path, attr: &'static str) -> Result<PathBuf, RundirError> {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let path = parent.join(format!("flux-{}", unique.get(..6).unwrap_or(&unique)));
    make_dir(&path, attr)?;
    Ok(path)
}

fn make_dir(path: &Path, attr: &'static str) -> Result<(), RundirError> {
    std::fs::DirBuilder::new().mode(0o700).create(path).map_err(|error| RundirError::Io {
        attr,
        path: path.to_owned(),
        error,
    })
}

/// A rundir is shared by the brokers of a test instance; what lasts is the owner's alone.
fn check(path: &Path, attr: &'static str, shared: bool) -> Result<(), RundirError> {
    let meta = std::fs::metadata(path).map_err(|error| RundirError::Io {
        attr,
        path: path.to_owned(),
        error,
    })?;
    let (path, owner) = (path.to_owned(), getuid().as_raw());
    if !meta.is_dir() {
        return Err(RundirError::NotADirectory { attr, path });
    }
    if meta.uid() != owner {
        return Err(RundirError::Owner { attr, path, owner });
    }
    if !shared && let Err(errno) = nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK) {
        return Err(RundirError::NotWritable { attr, path, errno });
    }
    Ok(())
}
