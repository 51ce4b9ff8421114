//! The run directory that all brokers of a test instance share.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, strerror};

/// Removed at the end if it was made here, or if that is asked for.
#[derive(Debug)]
pub(crate) struct Rundir {
    path: PathBuf,
    remove: bool,
}

impl Rundir {
    /// `--rundir` is made where it is missing; `--test-rundir` must be there.
    pub(crate) fn prepare(
        rundir: Option<&Path>,
        test_rundir: Option<&Path>,
    ) -> Result<Rundir, Failure> {
        if let Some(path) = test_rundir {
            return match std::fs::metadata(path) {
                Ok(meta) if meta.is_dir() => Ok(Rundir { path: path.to_owned(), remove: false }),
                Ok(_) => Err(Failure::of(path.display(), "not a directory")),
                Err(error) => Err(Failure::of(path.display(), strerror(&error))),
            };
        }
        match rundir {
            Some(path) if path.is_dir() => Ok(Rundir { path: path.to_owned(), remove: false }),
            Some(path) => make(path.to_owned()),
            None => make(unique(&std::env::temp_dir())),
        }
    }

    pub(crate) fn cleaned_up(mut self, cleanup: bool) -> Rundir {
        self.remove |= cleanup;
        self
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Rundir {
    fn drop(&mut self) {
        if self.remove {
            // What can't be removed is nobody's loss.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn make(path: PathBuf) -> Result<Rundir, Failure> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(|error| Failure::of(path.display(), strerror(&error)))?;
    Ok(Rundir { path, remove: true })
}

/// A name that no other process has, now or at a later time with the same process id.
fn unique(parent: &Path) -> PathBuf {
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    parent.join(format!("flux-{:x}-{:x}", std::process::id(), time & 0xffff_ffff))
}
