//! What the system is asked for that Rust's standard library does not offer. All unsafe code of
//! the IMP is here, and in `pam`, where that is built in.
#![allow(unsafe_code)]

#[cfg(feature = "pam")]
pub(crate) mod pam;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr::{null, null_mut};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) real: u32,
    pub(crate) effective: u32,
    pub(crate) saved: u32,
}

/// An entry of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) name: String,
    pub(crate) home: String,
    pub(crate) shell: String,
}

pub(crate) enum Forked {
    Child,
    Parent(i32),
}

/// A process that stays the same one, whatever becomes of its number.
pub(crate) struct PidFd(OwnedFd);

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

// === who ===

pub(crate) fn uids() -> Ids {
    let mut ids = Ids { real: u32::MAX, effective: u32::MAX, saved: u32::MAX };
    // SAFETY: the three are valid for writing; the call can't fail with such.
    unsafe { libc::getresuid(&mut ids.real, &mut ids.effective, &mut ids.saved) };
    ids
}

pub(crate) fn gids() -> Ids {
    let mut ids = Ids { real: u32::MAX, effective: u32::MAX, saved: u32::MAX };
    // SAFETY: as above.
    unsafe { libc::getresgid(&mut ids.real, &mut ids.effective, &mut ids.saved) };
    ids
}

pub(crate) fn pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(-1)
}

/// Process id of the parent; that of whoever has taken its place when it is gone.
pub(crate) fn parent() -> i32 {
    i32::try_from(std::os::unix::process::parent_id()).unwrap_or(0)
}

/// Look up a user by id.
pub(crate) fn user(uid: u32) -> Option<User> {
    let mut buf = vec![0; 64 << 10];
    // SAFETY: all zero is a value of this struct of integers and pointers.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = null_mut();
    // SAFETY: the buffer is valid for its length, and all of it outlives the use of `entry`.
    let rc = unsafe { libc::getpwuid_r(uid, &mut entry, buf.as_mut_ptr(), buf.len(), &mut found) };
    if rc != 0 || found.is_null() {
        return None;
    }
    let text = |text: *const libc::c_char| {
        // SAFETY: not null, and a string that the call has put into the buffer.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })?;
        text.to_str().ok().map(str::to_owned)
    };
    (entry.pw_uid == uid).then_some(User {
        uid,
        gid: entry.pw_gid,
        name: text(entry.pw_name).filter(|name| !name.is_empty())?,
        home: text(entry.pw_dir)?,
        shell: text(entry.pw_shell)?,
    })
}

// === becoming somebody else ===

/// Give up privilege for that of the caller, for good. The groups are the caller's already.
pub(crate) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: plain system calls.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(uid, uid, uid) })?;
    verify_ids(uid, gid)
}

/// Become a user with his groups, for good.
pub(crate) fn become_user_with_groups(user: &User) -> io::Result<()> {
    init_groups(user)?;
    become_user(user.uid, user.gid)
}

/// Not only in effect, as by the setuid bit, but with root's own groups, too.
pub(crate) fn become_root_entirely(root: &User) -> io::Result<()> {
    init_groups(root)?;
    // SAFETY: plain system calls.
    check(unsafe { libc::setresgid(root.gid, root.gid, root.gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(0, 0, 0) })?;
    Ok(())
}

fn init_groups(user: &User) -> io::Result<()> {
    let name = CString::new(user.name.as_str())?;
    // SAFETY: a valid string.
    check(unsafe { libc::initgroups(name.as_ptr(), user.gid) })?;
    Ok(())
}

/// It has happened, and can't be undone.
fn verify_ids(uid: u32, gid: u32) -> io::Result<()> {
    let all = |id| Ids { real: id, effective: id, saved: id };
    if uid == 0 || uids() != all(uid) || gids() != all(gid) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    // SAFETY: plain system calls, which had better fail.
    let regained = unsafe { libc::setreuid(u32::MAX, 0) == 0 || libc::setuid(0) == 0 };
    match regained {
        true => Err(io::Error::from_raw_os_error(libc::EPERM)),
        false => Ok(()),
    }
}

// === what is inherited ===

/// Descriptors beyond the standard ones, environment, effects of signals, directory, umask.
pub(crate) fn drop_inherited() {
    // SAFETY: closes descriptors that nothing in this process owns yet.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    // SAFETY: there are no other threads that could read the environment.
    unsafe { libc::clearenv() };
    for signal in 1..=64 {
        // SAFETY: installs no handler. SIGKILL and others refuse, as they may.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    unblock_signals();
    // SAFETY: a plain system call.
    unsafe { libc::umask(0o022) };
    // The root directory is always there.
    let _ = std::env::set_current_dir("/");
}

// === processes ===

/// There is one thread, so the child is all of the process.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: no other thread holds locks that the child could miss.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

pub(crate) fn wait(pid: i32) -> io::Result<ExitStatus> {
    let mut status = 0;
    loop {
        // SAFETY: the status is valid for writing.
        match check(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Ok(_) => return Ok(ExitStatus::from_raw(status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A child that has ended, if there is one.
pub(crate) fn reap() -> Option<(i32, ExitStatus)> {
    let mut status = 0;
    // SAFETY: the status is valid for writing.
    match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
        pid if pid > 0 => Some((pid, ExitStatus::from_raw(status))),
        _ => None,
    }
}

/// Is there a child that has not been reaped?
pub(crate) fn has_children() -> bool {
    // SAFETY: nothing is written. It fails without children alone.
    unsafe {
        libc::waitid(libc::P_ALL, 0, null_mut(), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) == 0
    }
}

/// Orphans below this process become its children.
pub(crate) fn adopt_orphans() {
    // SAFETY: a plain system call.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Be sent a signal when the parent, whose id is given, dies, or the thread of it that has made
/// this process. Lasts until the next change of users.
pub(crate) fn signal_at_end_of(parent: i32, signal: i32) -> io::Result<()> {
    // SAFETY: a plain system call.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) })?;
    // It may be dead already.
    match self::parent() == parent {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// Leave the session: a terminal that the caller has is not to be written to from here.
pub(crate) fn leave_session() -> io::Result<()> {
    // SAFETY: a plain system call.
    check(unsafe { libc::setsid() })?;
    Ok(())
}

/// Make a process, 0 for this one, the leader of a group.
pub(crate) fn lead_group(pid: i32) {
    // SAFETY: a plain system call. It fails where the child has done it and gone on.
    unsafe { libc::setpgid(pid, pid) };
}

impl PidFd {
    pub(crate) fn open(pid: i32) -> io::Result<PidFd> {
        // SAFETY: a plain system call.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = check(libc::c_int::try_from(fd).unwrap_or(-1))?;
        // SAFETY: a new descriptor, which nothing else owns.
        Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn kill(&self, signal: i32) -> io::Result<()> {
        let (fd, info) = (self.0.as_raw_fd(), null::<libc::siginfo_t>());
        // SAFETY: the descriptor is open; no information is passed.
        let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
        check(libc::c_int::try_from(rc).unwrap_or(-1))?;
        Ok(())
    }
}

// === signals ===

fn signal_set(fill: bool) -> libc::sigset_t {
    // SAFETY: all zero is a value of this array of integers, and is made a set at once.
    unsafe {
        let mut set = std::mem::zeroed();
        match fill {
            true => libc::sigfillset(&mut set),
            false => libc::sigemptyset(&mut set),
        };
        set
    }
}

pub(crate) fn block_signals() {
    // SAFETY: the set is valid.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &signal_set(true), null_mut()) };
}

pub(crate) fn unblock_signals() {
    // SAFETY: the set is valid.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &signal_set(false), null_mut()) };
}

/// The next signal that has come, or comes, of these, SIGCHLD and SIGUSR1. All are blocked.
pub(crate) fn next_signal(signals: &[i32]) -> i32 {
    let mut set = signal_set(false);
    for signal in signals.iter().chain(&[libc::SIGCHLD, libc::SIGUSR1]) {
        // SAFETY: the set is valid.
        unsafe { libc::sigaddset(&mut set, *signal) };
    }
    let mut signal = 0;
    // SAFETY: both are valid. It fails for invalid sets alone.
    while unsafe { libc::sigwait(&set, &mut signal) } != 0 {}
    signal
}

/// To a process, or a group when negative. That it is gone is no fault.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: a plain system call.
    unsafe { libc::kill(pid, signal) };
}

/// End as a process that does not handle this signal; returns if that is not its effect.
pub(crate) fn die_of(signal: i32) {
    // SAFETY: a struct of integers, and plain system calls.
    unsafe {
        // Whatever the process was, this one's memory is nobody's to look at.
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        libc::signal(signal, libc::SIG_DFL);
    }
    unblock_signals();
    kill(pid(), signal);
}
