//! System calls for which the standard library has no function.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(crate) fn effective_uid() -> u32 {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() }
}

/// What this thread mounts from now on is there for it and for what it starts.
pub(crate) fn leave_mount_namespace() -> io::Result<()> {
    // SAFETY: a plain system call, which concerns this thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: a valid string; the other arguments are not looked at.
    check(unsafe { libc::mount(null(), c"/".as_ptr(), null(), flags, null()) })
}

pub(crate) fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (path(from)?, path(to)?);
    // SAFETY: valid strings; the other arguments are not looked at.
    check(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), null(), libc::MS_BIND, null()) })
}

pub(crate) fn unmount(what: &Path) {
    if let Ok(what) = path(what) {
        // SAFETY: a valid string.
        unsafe { libc::umount2(what.as_ptr(), libc::MNT_DETACH) };
    }
}

fn path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Do something as another user, on a thread of its own: the bare system call changes nothing but
/// the thread that makes it.
pub(crate) fn as_user<T: Send + 'static>(uid: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        // SAFETY: a plain system call.
        let rc = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(rc, 0, "setresuid: {}", io::Error::last_os_error());
        work()
    });
    thread.join().unwrap()
}
