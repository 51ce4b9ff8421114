//! System calls for which the standard library has no function.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub(crate) fn effective_uid() -> u32 {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() }
}

pub(crate) fn signal(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: a plain system call.
    match unsafe { libc::kill(pid.cast_signed(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Of the TCP sockets of a process that have a peer.
pub(crate) fn user_timeouts(pid: u32) -> io::Result<Vec<u32>> {
    // SAFETY: a plain system call.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let mut timeouts = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // A descriptor may be closed while this looks.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let number = entry.file_name().to_string_lossy().parse::<RawFd>();
        let (true, Ok(number)) = (target.to_string_lossy().starts_with("socket:"), number) else {
            continue;
        };
        let from = process.as_raw_fd();
        // SAFETY: a plain system call.
        let copy = owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, from, number, 0) });
        timeouts.extend(copy.ok().and_then(|socket| user_timeout(&socket)));
    }
    Ok(timeouts)
}

/// None for a socket that is not TCP, or has no peer.
fn user_timeout(socket: &OwnedFd) -> Option<u32> {
    let fd = socket.as_raw_fd();
    let mut peer = [0_u8; 128];
    let mut len = 128;
    // SAFETY: the buffer is as long as `len` says.
    let connected = unsafe { libc::getpeername(fd, peer.as_mut_ptr().cast(), &raw mut len) };
    let mut value = 0_u32;
    let mut size = 4;
    // SAFETY: the buffer is as long as `size` says.
    let got = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            (&raw mut value).cast(),
            &raw mut size,
        )
    };
    (connected == 0 && got == 0).then_some(value)
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the system has just made this descriptor, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
