//! Calls that no safe interface has.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use tokio::io::unix::AsyncFd;

/// kill(2) with a real-time signal; a negative id is a process group's.
pub(crate) fn kill_realtime(pid: i32, signum: i32) -> Result<(), Errno> {
    // SAFETY: kill(2) takes any numbers and touches no memory.
    Errno::result(unsafe { libc::kill(pid, signum) }).map(drop)
}

/// Let the process that `command` starts lead a session on the terminal of that name.
pub(crate) fn attach_terminal(command: &mut Command, terminal: &str) {
    let Ok(path) = CString::new(terminal) else { return };
    let attach = move || {
        // SAFETY: only async-signal-safe calls; `path` ends in a NUL and lives in the closure.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NOCTTY);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::setsid();
            if libc::ioctl(fd, libc::TIOCSCTTY, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            for standard in 0..3 {
                if libc::dup2(fd, standard) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if fd > 2 {
                libc::close(fd);
            }
        }
        Ok(())
    };
    // SAFETY: `attach` allocates nothing, takes no lock and does not panic.
    unsafe { command.pre_exec(attach) };
}

/// Let the process that `command` starts be traced by this one from exec on.
pub(crate) fn stop_in_exec(command: &mut Command) {
    let trace_me = || {
        // SAFETY: PTRACE_TRACEME ignores its other arguments.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and nothing else.
    unsafe { command.pre_exec(trace_me) };
}

/// Wait for a process of [`stop_in_exec`], and leave it stopped without a tracer.
pub(crate) fn leave_stopped(pid: i32) -> Result<(), Errno> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    Errno::result(unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) })?;
    if !libc::WIFSTOPPED(status) {
        return Err(Errno::ECHILD);
    }
    kill_realtime(pid, libc::SIGSTOP)?;
    // SAFETY: PTRACE_DETACH of a tracee; address and data are numbers here.
    Errno::result(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) }).map(drop)
}

/// strsignal(3), for standard signals only: their text is constant.
pub(crate) fn signal_description(signum: i32) -> Option<&'static std::ffi::CStr> {
    if !(1..32).contains(&signum) {
        return None;
    }
    // SAFETY: for a standard signal the result is a string of the C library's own, which lives as
    // long as the locale, and the locale of this process is never changed.
    unsafe {
        let text = libc::strsignal(signum);
        (!text.is_null()).then(|| std::ffi::CStr::from_ptr(text))
    }
}

/// fnmatch(3) without flags.
pub(crate) fn fnmatch(pattern: &str, text: &str) -> bool {
    let (Ok(pattern), Ok(text)) = (CString::new(pattern), CString::new(text)) else {
        return false;
    };
    // SAFETY: both are NUL-terminated and outlive the call.
    unsafe { libc::fnmatch(pattern.as_ptr(), text.as_ptr(), 0) == 0 }
}
/// Set the size of a terminal.
pub(crate) fn set_window_size(terminal: RawFd, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize, which outlives the call.
    Errno::result(unsafe { libc::ioctl(terminal, libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Send a signal to the foreground process group of a terminal.
pub(crate) fn signal_terminal(terminal: RawFd, signum: i32) -> Result<(), Errno> {
    // SAFETY: TIOCSIG takes a number.
    Errno::result(unsafe { libc::ioctl(terminal, libc::TIOCSIG, signum) }).map(drop)
}

/// Watch a file for readiness.
pub(crate) fn register(file: std::fs::File) -> io::Result<AsyncFd<std::fs::File>> {
    // SAFETY: the file owns its descriptor, which is closed only when the file is dropped, and
    // that is after its removal from the reactor.
    unsafe { AsyncFd::register(file) }.map_err(io::Error::from)
}
