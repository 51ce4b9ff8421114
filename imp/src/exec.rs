//! `flux-imp exec SHELL ARG...`: the job shell of a guest, as that guest.
//!
//! On standard input is an object with `J`, the job request as the guest has signed it. Its
//! signature says who that is; nothing else does. The shell is one that the administrator trusts,
//! and it verifies `J` once more: it reads it from the instance, whose owner need not be honest.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Command;

use flux_sign::secure::reason;

use crate::caller::Caller;
use crate::conf::{Conf, caller_name};
use crate::environment::{Environment, is_for_shell, of_shell};
use crate::fatal::{Fatal, warn};
use crate::json::{self, Value};
use crate::message::{MAX_LEN, Message};
use crate::privsep::{Child, Parent};
use crate::session;
use crate::supervise::{self, Target};
use crate::sys::{self, User};

/// Tells the shell that the job request is to be verified; the caller can't take it away.
const VERIFY: &str = "FLUX_SHELL_VERIFY";

pub(crate) fn unprivileged(
    caller: &Caller,
    conf: &Conf,
    parent: Option<Parent>,
) -> Result<i32, Fatal> {
    check_caller(caller, conf)?;
    if parent.is_none() && !conf.may_exec_unprivileged() {
        return Err(Fatal::new("exec: IMP not installed setuid, operation disabled."));
    }
    let args = caller.args_from(2);
    let (Some(shell), true) = (args.first(), args.len() >= 2) else {
        return Err(Fatal::new("exec: missing arguments to exec subcommand"));
    };
    let shell = shell.to_string_lossy();
    let j = read_request()?;
    verify(caller, &j)?;
    check_shell(conf, &shell)?;
    let env = caller.variables().filter(|(name, value)| is_for_shell(name, value));
    let message = Message::new("exec")
        .with("shell", shell.as_ref())
        .with("J", &j)
        .with_args(args)
        .with_env(env);
    match parent {
        Some(parent) => parent.send(&message),
        None => {
            warn("Running without privilege, userid switching not available");
            Err(start(&message, &user(caller.uid)?))
        }
    }
}

pub(crate) fn privileged(
    caller: &Caller,
    conf: &Conf,
    message: Message,
    child: Child,
) -> Result<i32, Fatal> {
    check_caller(caller, conf)?;
    let signer = verify(caller, message.str("J")?)?;
    let user = user(signer)?;
    if user.uid == 0 {
        return Err(Fatal::new("exec: switching to user root not supported"));
    }
    check_shell(conf, message.str("shell")?)?;
    let wants_pam = conf.wants_pam();
    if wants_pam && !session::IS_BUILT_IN {
        return Err(Fatal::new("exec: pam-support=true, but IMP was built without PAM"));
    }
    child.wait()?;
    let session = if wants_pam { Some(session::open(&user.name)?) } else { None };
    let own = sys::pid();
    let become_it = || {
        let switched = sys::leave_session()
            .and_then(|()| sys::become_user_with_groups(&user))
            .and_then(|()| sys::signal_at_end_of(own, libc::SIGKILL));
        match switched {
            Ok(()) => start(&message, &user),
            Err(error) => Fatal::new(format!("exec: switch to {}: {}", user.name, reason(&error))),
        }
    };
    supervise::run(Target::Process, None, become_it, || {
        session.into_iter().for_each(session::close)
    })
}

fn check_caller(caller: &Caller, conf: &Conf) -> Result<(), Fatal> {
    let name = caller_name(caller)?;
    match conf.may_exec(&name) {
        true => Ok(()),
        false => Err(Fatal::new(format!("exec: user {name} not in allowed-users list"))),
    }
}

fn check_shell(conf: &Conf, shell: &str) -> Result<(), Fatal> {
    match conf.is_shell(shell) {
        true => Ok(()),
        false => Err(Fatal::new("exec: shell not in allowed-shells list")),
    }
}

/// `J`, from standard input.
fn read_request() -> Result<String, Fatal> {
    let invalid = |why: &str| Fatal::new(format!("exec: invalid json input: {why}"));
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_LEN + 1).read_to_string(&mut text);
    read.map_err(|error| invalid(&reason(&error)))?;
    if text.len() as u64 > MAX_LEN {
        return Err(invalid("it is too large"));
    }
    let Value::Object(mut members) = json::parse(&text).map_err(|why| invalid(&why))? else {
        return Err(invalid("Expected object"));
    };
    if let Some(options) = members.get("options") {
        check_options(options)?;
    }
    match members.remove("J") {
        Some(Value::Str(j)) => Ok(j),
        Some(_) => Err(invalid("Expected string: J")),
        None => Err(invalid("Object item not found: J")),
    }
}

/// A limit that is asked for and not kept would be worse than a refusal.
fn check_options(options: &Value) -> Result<(), Fatal> {
    let Value::Object(options) = options else {
        return Err(Fatal::new("exec: invalid json input: Expected object: options"));
    };
    let limits = match (options.get("DevicePolicy"), options.get("DeviceAllow")) {
        (None, None) => false,
        (Some(Value::Str(policy)), None) => policy != "auto",
        (_, Some(Value::Array(devices))) if devices.is_empty() => options.len() > 1,
        _ => true,
    };
    match limits {
        true => Err(Fatal::new("exec: device containment is not supported")),
        false => Ok(()),
    }
}

/// Who has signed it; read with the site's own idea of what a signature is, at this moment.
fn verify(caller: &Caller, j: &str) -> Result<u32, Fatal> {
    let config = flux_sign::Config::load(caller.trusted())
        .map_err(|error| Fatal::new(format!("exec: Error loading security context: {error}")))?;
    let signed = flux_sign::unwrap(&config, j, caller.uid)
        .map_err(|error| Fatal::new(format!("exec: signature validation failed: {error}")))?;
    Ok(signed.userid)
}

fn user(uid: u32) -> Result<User, Fatal> {
    sys::user(uid).ok_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Fatal::new(format!("exec: userid {uid} is invalid on {}", host.trim_end()))
    })
}

/// Become the shell; returns when that is not possible.
fn start(message: &Message, user: &User) -> Fatal {
    let mut args = message.args().into_iter();
    let (Ok(shell), Some(_)) = (message.str("shell"), args.next()) else {
        return Fatal::new("exec: Failed to get job shell path");
    };
    let mut environment: Environment = of_shell(message.env(), user);
    environment.retain(|(name, _)| name != VERIFY);
    environment.push((VERIFY.to_owned(), "1".into()));
    let mut command = Command::new(shell);
    command.args(args).env_clear().envs(environment).current_dir("/");
    supervise::cannot_execute(shell, &command.exec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<(), Fatal> {
        check_options(&json::parse(text).unwrap())
    }

    #[test]
    fn containment_that_is_asked_for_is_not_left_out_silently() {
        for fine in [r"{}", r#"{"DevicePolicy":"auto"}"#, r#"{"DeviceAllow":[]}"#] {
            assert_eq!(options(fine), Ok(()), "{fine}");
        }
        for limit in [
            r#"{"DevicePolicy":"closed"}"#,
            r#"{"DevicePolicy":"closed","DeviceAllow":[]}"#,
            r#"{"DeviceAllow":[["/dev/null","rw"]]}"#,
            r#"{"DeviceAllow":"x"}"#,
            r"[]",
        ] {
            assert!(options(limit).is_err(), "{limit}");
        }
    }
}
