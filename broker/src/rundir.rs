//! The run directory, with the sockets, and the state directory, with what lasts.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flux_protocol::errno::Errno;
use nix::unistd::getuid;

use crate::attrs::{Access, Attrs};

/// Directories of this broker, with what has to be removed at its end.
#[derive(Debug, Default)]
pub struct Rundir {
    /// What goes with the broker, and whether it was made by it.
    remove: Vec<(PathBuf, bool)>,
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RundirError {
    #[error("{attr} {}: {}", path.display(), Errno::from(error))]
    Io { attr: &'static str, path: PathBuf, error: std::io::Error },
    #[error("{attr}: cannot create directory in {}: {}", place.display(), Errno::from(error))]
    NoPlace { attr: &'static str, place: PathBuf, error: std::io::Error },
    #[error("{attr} {}: Not a directory", path.display())]
    NotADirectory { attr: &'static str, path: PathBuf },
    #[error("{attr} {} is not owned by the instance owner (uid {owner}); chown it, or start as its owner",
        path.display())]
    Owner { attr: &'static str, path: PathBuf, owner: u32 },
    #[error("{attr} {} can't be written to by the instance owner: {}", path.display(),
        errno.desc())]
    NotWritable { attr: &'static str, path: PathBuf, errno: nix::errno::Errno },
    #[error("{attr} {} does not have owner=rwx permissions; chmod u+rwx it", path.display())]
    Permissions { attr: &'static str, path: PathBuf },
}

impl Rundir {
    /// Make or check `rundir`, and `statedir` at rank 0; sets both attributes.
    pub fn create(attrs: &Attrs, rank: u32) -> Result<Rundir, RundirError> {
        let mut rundir = Rundir::default();
        let path = rundir.prepare(attrs, "rundir", &std::env::temp_dir())?;
        rundir.link_command(&path)?;
        if rank == 0 {
            // It may grow beyond what a /tmp in memory has room for.
            let place = std::env::var_os("TMPDIR").unwrap_or("/var/tmp".into());
            rundir.prepare(attrs, "statedir", Path::new(&place))?;
        }
        Ok(rundir)
    }

    /// Where nobody named a directory there is a new one below `place`, which goes with the broker.
    fn prepare(
        &mut self,
        attrs: &Attrs,
        attr: &'static str,
        place: &Path,
    ) -> Result<PathBuf, RundirError> {
        let cleanup_attr = format!("{attr}-cleanup");
        let cleanup = attrs.get(&cleanup_attr).map(|value| value != "0");
        let (path, created) = match attrs.get(attr) {
            None => (unique_dir(place, attr)?, true),
            Some(path) => existing_or_new(Path::new(&path), attr)?,
        };
        check(&path, attr)?;
        let cleanup = cleanup.unwrap_or(created);
        if cleanup {
            self.remove.push((path.clone(), created));
        }
        attrs.put(attr, path.to_string_lossy(), Access::Immutable);
        attrs.put(&cleanup_attr, if cleanup { "1" } else { "0" }, Access::Immutable);
        Ok(path)
    }

    /// `bin/flux` in the rundir is the command of this broker's installation: who comes over ssh finds
    /// it there, wherever it is installed.
    fn link_command(&mut self, rundir: &Path) -> Result<(), RundirError> {
        let Some(command) = crate::paths::bin_dir().map(|dir| dir.join("flux")) else {
            return Ok(());
        };
        let dir = rundir.join("bin");
        let link = dir.join("flux");
        let failed = |error| RundirError::Io { attr: "rundir", path: link.clone(), error };
        match std::fs::DirBuilder::new().mode(0o755).create(&dir) {
            Ok(()) => self.remove.push((dir.clone(), true)),
            // A broker of the same test instance has made it, or one before us that was killed.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        if std::fs::read_link(&link).is_ok_and(|target| target == command) {
            return Ok(());
        }
        // Whoever looks meanwhile sees the old one or the new one.
        let new = dir.join(format!("flux-{}", std::process::id()));
        std::os::unix::fs::symlink(&command, &new).map_err(failed)?;
        std::fs::rename(&new, &link).map_err(failed)
    }

    /// The broker has come to its end.
    pub fn remove(mut self) {
        for (path, _) in std::mem::take(&mut self.remove) {
            // Nobody misses what can't be removed any more.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

impl Drop for Rundir {
    /// A broker that could not start takes away what it has made, but nothing that was there: that
    /// may be in use by another one.
    fn drop(&mut self) {
        for (path, _) in self.remove.drain(..).filter(|(_, created)| *created) {
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
            new_dir(path).map_err(|error| RundirError::Io {
                attr,
                path: path.to_owned(),
                error,
            })?;
            Ok((path.to_owned(), true))
        }
        Err(error) => Err(RundirError::Io { attr, path: path.to_owned(), error }),
    }
}

fn unique_dir(place: &Path, attr: &'static str) -> Result<PathBuf, RundirError> {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let path = place.join(format!("flux-{}", unique.get(..6).unwrap_or(&unique)));
    new_dir(&path).map_err(|error| RundirError::NoPlace {
        attr,
        place: place.to_owned(),
        error,
    })?;
    Ok(path)
}

fn new_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// It is the owner's, with all rights.
fn check(path: &Path, attr: &'static str) -> Result<(), RundirError> {
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
    // More than the mode says: the file system may be one that is only read.
    if let Err(errno) = nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK) {
        return Err(RundirError::NotWritable { attr, path, errno });
    }
    if meta.permissions().mode() & 0o700 != 0o700 {
        return Err(RundirError::Permissions { attr, path });
    }
    Ok(())
}
