//! What needs unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};

/// Take over an open file descriptor that this process was started with.
///
/// Returns nothing where there is none, or where it is one of standard input, output and error.
pub(crate) fn inherited_fd(fd: RawFd) -> Option<OwnedFd> {
    if fd <= 2 {
        return None;
    }
    // SAFETY: the descriptor is only borrowed to see whether it is open.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_GETFD).ok()?;
    // SAFETY: it is open, it was open before this process started to open files of its own (the
    // parent names it in the environment), and nothing else here refers to it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
