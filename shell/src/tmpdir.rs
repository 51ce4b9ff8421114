//! The job's temporary directory on this node, which is gone when the shell is.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::Mode;

use crate::fatal::Fatal;
use crate::job::Job;

const COMPONENT: &str = "tmpdir";

/// Removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct JobTmpdir {
    path: PathBuf,
}

// === impl JobTmpdir ===

impl JobTmpdir {
    /// Make it in the broker's directory, or where that is not ours to write, in `tmpdir`.
    pub(crate) fn new(job: &Job, rundir: Option<&str>, tmpdir: &str) -> Result<JobTmpdir, Fatal> {
        let name = format!("jobtmp-{}-{}", job.shell_rank, job.f58);
        let parents = rundir.into_iter().chain([tmpdir]);
        let mut error = String::new();
        for parent in parents {
            let path = Path::new(parent).join(&name);
            match make(&path) {
                Ok(()) => return Ok(JobTmpdir { path }),
                Err(errno) => error = format!("mkdir {}: {}", path.display(), errno.desc()),
            }
        }
        Err(Fatal::new(COMPONENT, format!("error creating FLUX_JOB_TMPDIR: {error}")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for JobTmpdir {
    fn drop(&mut self) {
        // Nearly always it is empty.
        if nix::unistd::unlinkat(
            nix::fcntl::AT_FDCWD,
            &self.path,
            nix::unistd::UnlinkatFlags::RemoveDir,
        )
        .is_err()
        {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Make a directory that may be there already, if it is this user's alone: in a directory that
/// all can write to, others may have been there first.
pub(crate) fn make(path: &Path) -> Result<(), Errno> {
    match nix::unistd::mkdir(path, Mode::S_IRWXU) {
        Err(Errno::EEXIST) => {
            let stat = nix::sys::stat::lstat(path)?;
            let own = stat.st_uid == nix::unistd::geteuid().as_raw();
            let private = stat.st_mode & (libc::S_IFMT | 0o022) == libc::S_IFDIR;
            if own && private { Ok(()) } else { Err(Errno::EEXIST) }
        }
        made => made,
    }
}
