//! A process that the IMP stays with: signals are passed on to it, its exit code is the IMP's.
//!
//! The caller may signal the IMP, whose real user he is, but not what runs as somebody else. So
//! the IMP passes on what it receives; SIGUSR1 stands for SIGKILL, which nobody can pass on, and
//! goes to everything that was started.

use std::process::ExitStatus;

use flux_sign::secure::reason;

use crate::cgroup::Cgroup;
use crate::fatal::Fatal;
use crate::processes;
use crate::sys::{self, Forked};

/// Whom signals are passed on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Process,
    /// A process group of its own.
    Group,
}

/// That the caller may have died.
const CALLER_DIED: i32 = libc::SIGUSR2;

const HEARD: [i32; 9] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGCONT,
    libc::SIGALRM,
    libc::SIGWINCH,
    libc::SIGTTIN,
    libc::SIGTTOU,
    CALLER_DIED,
];

/// Run `become_it`, which does not return unless it fails, in a new process, until its end, and
/// `at_end` after that. When the process `caller` dies, if one is given, all is killed.
pub(crate) fn run(
    target: Target,
    caller: Option<i32>,
    become_it: impl FnOnce() -> Fatal,
    at_end: impl FnOnce(),
) -> Result<i32, Fatal> {
    // Before there is a process to pass signals on to, they wait.
    sys::block_signals();
    // What the process leaves behind becomes ours: it can still be found and killed.
    sys::adopt_orphans();
    let forked = match sys::fork() {
        Ok(forked) => forked,
        Err(error) => {
            at_end();
            return Err(Fatal::new(format!("fork: {}", reason(&error))));
        }
    };
    match forked {
        Forked::Child => {
            if target == Target::Group {
                sys::lead_group(0);
            }
            sys::unblock_signals();
            let fatal = become_it();
            fatal.report();
            std::process::exit(fatal.code);
        }
        Forked::Parent(pid) => {
            if target == Target::Group {
                // Both do it, so that it is done before either goes on.
                sys::lead_group(pid);
            }
            if let Some(caller) = caller
                && sys::signal_at_end_of(caller, CALLER_DIED).is_err()
            {
                sys::kill(sys::pid(), CALLER_DIED);
            }
            let cgroup = Cgroup::own();
            let status = follow(pid, target, caller, cgroup.as_ref());
            if cgroup.is_some() {
                // The job has a place of its own, which is free for another when nobody is there.
                wait_for_orphans(cgroup.as_ref());
            }
            at_end();
            Ok(end_as(status))
        }
    }
}

fn follow(pid: i32, target: Target, caller: Option<i32>, cgroup: Option<&Cgroup>) -> ExitStatus {
    loop {
        match sys::next_signal(&HEARD) {
            libc::SIGCHLD => {
                while let Some((ended, status)) = sys::reap() {
                    if ended == pid {
                        return status;
                    }
                }
            }
            libc::SIGUSR1 => processes::kill_all(cgroup),
            // It may be that only the thread has ended that started this, or that he says so.
            CALLER_DIED if caller.is_some_and(|caller| caller != sys::parent()) => {
                processes::kill_all(cgroup);
            }
            CALLER_DIED => {}
            signal => sys::kill(if target == Target::Group { -pid } else { pid }, signal),
        }
    }
}

/// Until nothing is left of what was started. SIGUSR1 kills that; other signals were for the shell.
fn wait_for_orphans(cgroup: Option<&Cgroup>) {
    loop {
        while sys::reap().is_some() {}
        if !sys::has_children() {
            return;
        }
        if sys::next_signal(&HEARD) == libc::SIGUSR1 {
            processes::kill_all(cgroup);
        }
    }
}

/// With the same code, or by the same signal.
fn end_as(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => {
            sys::die_of(signal);
            128 + signal
        }
        (None, None) => 1,
    }
}

/// As a shell puts it: 126 may not, 127 not there.
pub(crate) fn cannot_execute(path: &str, error: &std::io::Error) -> Fatal {
    let code = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => 126,
        _ => 127,
    };
    Fatal::new(format!("{path}: {}", reason(error))).with_code(code)
}
