//! `flux-imp kill SIGNAL PID`: a signal to a guest's process, from the owner of the instance.
//!
//! The owner may signal what he has started through [`crate::exec`], and nothing else: a process
//! that does not run as root, and is below a running IMP whose caller he is, or in the control group
//! of a job that is his.

use flux_sign::secure::reason;

use crate::caller::Caller;
use crate::conf::{Conf, caller_name};
use crate::fatal::Fatal;
use crate::message::Message;
use crate::privsep::{Child, Parent};
use crate::processes;
use crate::sys::PidFd;

const MAX_SIGNAL: i32 = 64;

pub(crate) fn unprivileged(
    caller: &Caller,
    conf: &Conf,
    parent: Option<Parent>,
) -> Result<i32, Fatal> {
    check_caller(caller, conf)?;
    let Some(parent) = parent else {
        return Err(Fatal::new("kill: IMP not installed setuid, operation disabled."));
    };
    let argument = |index| caller.arg(index).and_then(|arg| arg.to_str()).and_then(number);
    let (Some(signal), Some(pid)) = (argument(2), argument(3)) else {
        return Err(Fatal::new("kill: usage: flux-imp kill SIGNAL PID"));
    };
    parent
        .send(&Message::new("kill").with("signal", signal.to_string()).with("pid", pid.to_string()))
}

pub(crate) fn privileged(
    caller: &Caller,
    conf: &Conf,
    message: Message,
    child: Child,
) -> Result<i32, Fatal> {
    check_caller(caller, conf)?;
    let (signal, pid) = (message.number::<i32>("signal")?, message.number::<i32>("pid")?);
    child.wait()?;
    if !(0..=MAX_SIGNAL).contains(&signal) {
        return Err(Fatal::new(format!("kill: invalid signal number {signal}")));
    }
    if pid <= 1 {
        return Err(refusal(caller, pid));
    }
    let failed = |error: std::io::Error| Fatal::new(format!("kill: pid {pid}: {}", reason(&error)));
    // From here on the number means this process, whatever becomes of it.
    let target = PidFd::open(pid).map_err(failed)?;
    if !processes::is_of_a_job(pid, caller.uid) {
        return Err(refusal(caller, pid));
    }
    target.kill(signal).map_err(failed)?;
    Ok(0)
}

fn check_caller(caller: &Caller, conf: &Conf) -> Result<(), Fatal> {
    let name = caller_name(caller)?;
    match conf.may_exec(&name) {
        true => Ok(()),
        false => Err(Fatal::new(format!("kill: user {name} not in allowed-users list"))),
    }
}

fn refusal(caller: &Caller, pid: i32) -> Fatal {
    let uid = caller.uid;
    Fatal::new(format!("kill: refusing request from uid={uid} to kill pid {pid}: not of its jobs"))
}

/// Decimal, and nothing else.
fn number(text: &str) -> Option<i32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_and_positive() {
        assert_eq!(number("15"), Some(15));
        for bad in ["-1", "+9", " 9", "0x9", "", "99999999999", "9a"] {
            assert_eq!(number(bad).filter(|_| !bad.is_empty()), None, "{bad}");
        }
    }
}
