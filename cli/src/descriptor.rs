//! Handing a file descriptor to one child process.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// A descriptor that a child inherits while this value lives.
#[derive(Debug)]
pub(crate) struct Inherited {
    fd: OwnedFd,
}

/// Duplicate without the close-on-exec flag. Spawn the child, and no other, before it is dropped.
pub(crate) fn inherit(fd: &OwnedFd) -> std::io::Result<Inherited> {
    let copy = fd.try_clone()?;
    fcntl(&copy, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(Inherited { fd: copy })
}

impl Inherited {
    /// The number under which the child finds it.
    pub(crate) fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
