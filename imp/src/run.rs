//! `flux-imp run NAME`: a command that the administrator has set up, as root.
//!
//! The caller chooses among names; path, users and what is seen of the environment are in
//! `[run.NAME]`. There are no arguments.

use std::os::unix::process::CommandExt;
use std::process::Command;

use flux_sign::secure::reason;

use crate::caller::Caller;
use crate::conf::{Conf, RunConf, caller_name};
use crate::environment::{is_for_run, of_run};
use crate::fatal::Fatal;
use crate::message::Message;
use crate::privsep::{Child, Parent};
use crate::supervise::{self, Target};
use crate::sys;

pub(crate) fn unprivileged(
    caller: &Caller,
    conf: &Conf,
    parent: Option<Parent>,
) -> Result<i32, Fatal> {
    let name = caller.arg(2).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Fatal::new("run: command required"))?.to_string_lossy();
    // The half with privilege looks it up again, by stricter measure.
    let run = lookup(caller, conf, &name)?;
    let patterns = run.allowed_environment();
    let env = caller.variables().filter(|(name, value)| is_for_run(name, value, &patterns));
    let message = Message::new("run").with("command", name.as_ref()).with_env(env);
    match parent {
        Some(parent) => parent.send(&message),
        None => Err(start(caller, &run, &message)),
    }
}

pub(crate) fn privileged(
    caller: &Caller,
    conf: &Conf,
    message: Message,
    child: Child,
) -> Result<i32, Fatal> {
    let run = lookup(caller, conf, message.str("command")?)?;
    child.wait()?;
    let become_it = || {
        let root = sys::user(0).ok_or_else(|| Fatal::new("run: failed to find target user"));
        let switched = root.and_then(|root| {
            sys::become_root_entirely(&root)
                .map_err(|error| Fatal::new(format!("run: setuid: {}", reason(&error))))
        });
        match switched {
            Ok(()) => start(caller, &run, &message),
            Err(fatal) => fatal,
        }
    };
    // A broker that has crashed runs it again when it is back: not beside this one.
    supervise::run(Target::Group, Some(caller.parent), become_it, || ())
}

fn lookup<'a>(caller: &Caller, conf: &'a Conf, name: &str) -> Result<RunConf<'a>, Fatal> {
    let run = conf.run(name, caller.trusted())?;
    match run.may_run(&caller_name(caller)?) {
        true => Ok(run),
        false => Err(Fatal::new("run: permission denied")),
    }
}

/// Become the command; returns when that is not possible.
fn start(caller: &Caller, run: &RunConf<'_>, message: &Message) -> Fatal {
    let Some(user) = sys::user(sys::uids().effective) else {
        return Fatal::new("run: failed to find target user");
    };
    let environment = of_run(message.env(), &run.allowed_environment(), &user, caller.uid);
    let mut command = Command::new(&run.path);
    command.env_clear().envs(environment).current_dir("/");
    supervise::cannot_execute(&run.path.to_string_lossy(), &command.exec())
}
