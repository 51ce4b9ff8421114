//! `flux-imp`, the Independent Minister of Privilege (RFC 15): the one program of an instance that
//! is root, by its setuid bit. It starts the job shells of guests as those guests, on the strength
//! of what they have signed, and the commands that the administrator has set up.
//!
//! ```text
//! flux-imp exec SHELL ARG...   {"J": ...} on stdin; SHELL runs as the user that signed J
//! flux-imp run NAME            [run.NAME] path runs as root
//! flux-imp kill SIGNAL PID     to a process of a job that the caller has started through exec
//! flux-imp whoami | version
//! ```
//!
//! Whoever may execute it is an attacker until shown otherwise. So: what was inherited (descriptors,
//! environment, signals, directory) is dropped at once; all that is configured is in files that
//! only root can have written; what the caller says is read by a child that has given up
//! privilege, and what that child says is checked again; nothing becomes root but what
//! `[run.NAME]` names.

mod caller;
mod cgroup;
mod conf;
mod environment;
mod exec;
mod fatal;
mod glob;
mod json;
mod kill;
mod message;
mod privsep;
mod processes;
mod run;
mod session;
mod supervise;
mod sys;
mod whoami;

use caller::Caller;
use conf::Conf;
use fatal::Fatal;
use message::Message;
use privsep::Parent;

/// A command: the half without privilege, which reads what the caller says, and, where the IMP is
/// setuid, the half with it.
struct Command {
    name: &'static str,
    /// With somewhere to send the request to, unless this process has no privileged half.
    unprivileged: fn(&Caller, &Conf, Option<Parent>) -> Result<i32, Fatal>,
    /// With what the other half has sent.
    privileged: fn(&Caller, &Conf, Message, privsep::Child) -> Result<i32, Fatal>,
}

const COMMANDS: [Command; 4] = [
    Command { name: "exec", unprivileged: exec::unprivileged, privileged: exec::privileged },
    Command { name: "run", unprivileged: run::unprivileged, privileged: run::privileged },
    Command { name: "kill", unprivileged: kill::unprivileged, privileged: kill::privileged },
    Command { name: "whoami", unprivileged: whoami::unprivileged, privileged: whoami::privileged },
];

fn main() {
    let caller = Caller::take();
    let code = match serve(&caller) {
        Ok(code) => code,
        Err(fatal) => fatal.report(),
    };
    std::process::exit(code);
}

fn serve(caller: &Caller) -> Result<i32, Fatal> {
    if caller.is_odd() {
        return Err(Fatal::new("Refusing to run setgid, or setuid to another user than root"));
    }
    let conf = Conf::load(caller)?;
    if !caller.is_privileged() {
        return unprivileged(caller, &conf, None);
    }
    if caller.uid == 0 {
        return Err(Fatal::new("Refusing to run as root"));
    }
    match privsep::split(caller)? {
        privsep::Half::Child(parent) => unprivileged(caller, &conf, Some(parent)),
        privsep::Half::Parent(child) => privileged(caller, &conf, child),
    }
}

fn unprivileged(caller: &Caller, conf: &Conf, parent: Option<Parent>) -> Result<i32, Fatal> {
    let name = caller.arg(1).ok_or_else(|| Fatal::new("command required"))?;
    if name == "version" {
        return whoami::version();
    }
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command.ok_or_else(|| {
        Fatal::new(format!("Unknown IMP command: {}", name.to_string_lossy().escape_debug()))
    })?;
    (command.unprivileged)(caller, conf, parent)
}

fn privileged(caller: &Caller, conf: &Conf, mut child: privsep::Child) -> Result<i32, Fatal> {
    let Some(message) = child.receive()? else {
        // It had nothing to ask for, or has said itself what is wrong.
        return child.wait().map(|()| 0).or(Ok(1));
    };
    let name = message.str("cmd")?;
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => (command.privileged)(caller, conf, message, child),
        None => Err(Fatal::new("Failed to read command from privsep child")),
    }
}
