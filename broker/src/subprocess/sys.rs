//! What the child does between fork and exec.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// linux/close_range.h
const CLOSE_RANGE_CLOEXEC: libc::c_int = 1 << 2;

/// Have no child inherit what this process itself was started with, such as a job server's pipe.
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
pub fn keep_descriptors_private() {
    // SAFETY: close_range with CLOEXEC only sets flags of descriptors; a kernel that does not
    // have it leaves all as it is.
    unsafe { libc::close_range(3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
}

/// Let the child keep these descriptors over exec, and be sent SIGTERM when this process dies.
#[expect(unsafe_code, reason = "pre_exec is")]
pub(super) fn prepare(command: &mut Command, keep: Vec<RawFd>, dies_with_parent: bool) {
    if keep.is_empty() && !dies_with_parent {
        // Nothing to do in the child lets the library spawn it without fork.
        return;
    }
    let parent = std::process::id();
    let in_child = move || {
        keep_descriptors_private();
        for fd in &keep {
            // SAFETY: fcntl with F_SETFD takes an integer and touches no memory.
            if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if dies_with_parent {
            // SAFETY: PR_SET_PDEATHSIG takes an integer and touches no memory.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } < 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before: then nobody would send the signal any more.
            if std::os::unix::process::parent_id() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes only system calls that are safe after fork: close_range, fcntl,
    // prctl and getppid. It allocates nothing and takes no lock.
    unsafe { command.pre_exec(in_child) };
}
