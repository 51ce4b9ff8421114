//! `rexec`: processes on this host for the owner's clients (RFC 42).
//!
//! A process runs in the foreground of the client that started it, and is killed when that client
//! goes, or in the background, where it is logged and clients may attach to it.
//! What may be done with it, by whom, is in [`process`]; its requests are decoded here.

mod output;
mod process;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use flux_protocol::credential::Rolemask;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Empty, PayloadError};
use flux_protocol::rpc::rexec::{self as rpc, flags};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::signal::unix::{SignalKind, signal};

use crate::call::{Call, Sender};
use crate::config::access::Access;
use crate::context::Context;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;
use crate::subprocess::{self, Spec, Stdio, Stream};
use process::{Process, pump};

/// How long processes have to end after SIGTERM when the service stops.
const STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// Never passed on to a process.
const PRIVATE_ENVIRONMENT: [&str; 3] = ["FLUX_PROXY_REMOTE", "NOTIFY_SOCKET", "INVOCATION_ID"];

#[derive(Debug)]
pub struct Rexec {
    /// By the order of their start.
    processes: BTreeMap<u64, Process>,
    next: u64,
    signals: tokio::task::JoinHandle<()>,
}

impl Service for Rexec {
    const NAME: &'static str = "rexec";
    const SERVICES: &'static [&'static str] = &["rexec"];

    async fn start(context: &Context<Rexec>, _: &[String]) -> Result<Rexec, Failure> {
        let signals = tokio::task::spawn_local(watch_stops(context.clone()));
        Ok(Rexec { processes: BTreeMap::new(), next: 0, signals })
    }

    fn methods() -> Methods<Rexec> {
        Methods::default()
            .serve_or::<rpc::Exec>(refusal, Rexec::exec)
            .notify::<rpc::Write>(Rexec::write)
            .serve_or::<rpc::Kill>(refusal, Rexec::kill)
            .serve_or::<rpc::Wait>(refusal, Rexec::wait)
            .serve_or::<rpc::Attach>(refusal, Rexec::attach)
            .serve::<rpc::List>(Rexec::list)
            .disconnect::<rpc::Disconnect>()
    }

    /// Foreground processes of the client are killed; background ones go on without it.
    fn disconnect(&mut self, _: &Context<Rexec>, sender: &Sender) {
        for process in self.processes.values_mut() {
            process.disconnect(sender);
        }
    }

    async fn stop(self, _: &Context<Rexec>) {
        self.signals.abort();
        let running: Vec<Process> =
            self.processes.into_values().filter(|process| !process.has_exited()).collect();
        for process in &running {
            let _ = process.kill(Signal::SIGTERM as i32);
        }
        let ended = async {
            while running.iter().any(|process| !process.has_exited()) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(STOP_TIMEOUT, ended).await;
        // What is left is killed as it is dropped.
    }
}

/// Tell clients of processes that were stopped by a signal.
async fn watch_stops(context: Context<Rexec>) {
    let Ok(mut signals) = signal(SignalKind::child()) else { return };
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
    while signals.recv().await.is_some() {
        while let Ok(WaitStatus::Stopped(pid, _)) = waitid(Id::All, flags) {
            context.later(move |rexec: &mut Rexec| {
                let stopped = |process: &&mut Process| process.pid() == pid.as_raw();
                if let Some(process) = rexec.processes.values_mut().find(stopped) {
                    process.stopped();
                }
            });
        }
    }
}

/// In the words of the real service.
fn refusal(error: PayloadError) -> Failure {
    const KEYS: [&str; 5] = ["cmd", "flags", "pid", "signum", "matchtag"];
    let text = match error {
        PayloadError::Json(error) => {
            let text = error.to_string();
            let missing = text.strip_prefix("missing field `").and_then(|t| t.split('`').next());
            match missing {
                Some(key) if KEYS.contains(&key) => {
                    format!("invalid request payload: Object item not found: {key}")
                }
                Some(_) => "error parsing command string".to_owned(),
                None => format!("invalid request payload: {text}"),
            }
        }
        _ => "failed to unpack request: Protocol error".to_owned(),
    };
    Failure::new(Errno::EPROTO, text)
}

impl Rexec {
    fn exec(
        &mut self,
        context: &Context<Rexec>,
        request: rpc::ExecRequest,
        call: Call<rpc::ExecResponse>,
    ) {
        let background = !call.is_streaming();
        let started = admit(context, &call)
            .and_then(|()| self.check(&request, background))
            .and_then(|()| spec(context, &request, background))
            .and_then(|spec| subprocess::spawn(&spec).map_err(spawn_failure));
        let (child, events) = match started {
            Ok(started) => started,
            Err(failure) => return call.fail(failure),
        };
        let id = self.next;
        self.next += 1;
        let process = Process::start(context, request, background, child, call);
        pump(context, id, events, process.listener_uuid());
        self.processes.insert(id, process);
    }

    fn check(&self, request: &rpc::ExecRequest, background: bool) -> Result<(), Failure> {
        let refuse = |errno, text: &str| Err(Failure::new(errno, text));
        let cmd = &request.cmd;
        if background && request.flags & flags::WRITE_CREDIT != 0 {
            let text = "write-credit flag is not allowed in background mode";
            return refuse(Errno::EINVAL, text);
        }
        if background && request.local_flags & rpc::local_flags::STDIO_FALLTHROUGH != 0 {
            let text = "stdio-fallthrough flag is not allowed in background mode";
            return refuse(Errno::EINVAL, text);
        }
        let same_label = |process: &Process| process.label() == cmd.label.as_deref();
        if cmd.label.is_some() && self.processes.values().any(same_label) {
            return refuse(Errno::EEXIST, "command label is not unique");
        }
        if cmd.cmdline.is_empty() {
            return refuse(Errno::EPROTO, "command string is empty");
        }
        if background && !cmd.channels.is_empty() {
            let text = "auxiliary channels are not allowed in background mode";
            return refuse(Errno::EINVAL, text);
        }
        if !background && request.flags & flags::WAITABLE != 0 {
            return refuse(Errno::EINVAL, "waitable flag only supported in background mode");
        }
        if !cmd.msgchan.is_empty() {
            return refuse(Errno::EINVAL, "message channels are not supported");
        }
        Ok(())
    }

    fn write(&mut self, context: &Context<Rexec>, request: rpc::WriteRequest, sender: &Sender) {
        let Some(data) = output::decode(&request.io) else {
            return context.log(Severity::Err, "Error decoding rexec.write request");
        };
        let of = |process: &&mut Process| process.is_listened_to_by(sender, request.matchtag);
        // Input that is under way when a process ends is lost, which is nobody's fault.
        let Some(process) = self.processes.values_mut().find(of) else { return };
        process.write(context, &request.io.stream, Bytes::from(data), request.io.eof);
    }

    fn kill(&mut self, context: &Context<Rexec>, request: rpc::KillRequest, call: Call<Empty>) {
        let result = admit(context, &call)
            .and_then(|()| self.find(request.pid, request.label.as_deref()))
            .and_then(|id| match self.processes.get(&id) {
                Some(process) => process.kill(request.signum).map_err(nix_failure),
                None => Err(Errno::ESRCH.into()),
            });
        call.finish(result.map(|()| Empty));
    }

    fn wait(
        &mut self,
        context: &Context<Rexec>,
        request: rpc::WaitRequest,
        call: Call<rpc::WaitResponse>,
    ) {
        let found =
            admit(context, &call).and_then(|()| self.find(request.pid, request.label.as_deref()));
        match found {
            Ok(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.wait(call);
                }
                self.forget_if_done(id);
            }
            Err(failure) => call.fail(failure),
        }
    }

    fn attach(
        &mut self,
        context: &Context<Rexec>,
        request: rpc::AttachRequest,
        call: Call<rpc::ExecResponse>,
    ) {
        let found = admit(context, &call)
            .and_then(|()| self.find(request.pid, request.label.as_deref()))
            .map_err(|failure| match failure.errno {
                Errno::ESRCH => Failure { errno: Errno::ENOENT, ..failure },
                _ => failure,
            });
        match found {
            Ok(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.attach(context.rank(), request.flags, call);
                }
                self.forget_if_done(id);
            }
            Err(failure) => call.fail(failure),
        }
    }

    fn list(&mut self, context: &Context<Rexec>, _: Empty, call: Call<rpc::ListResponse>) {
        let result = admit(context, &call).map(|()| rpc::ListResponse {
            rank: context.rank(),
            procs: self.processes.values().map(Process::info).collect(),
        });
        call.finish(result);
    }

    /// A process by its label, else by its pid.
    fn find(&self, pid: i64, label: Option<&str>) -> Result<u64, Failure> {
        let matches = |process: &Process| match label {
            Some(label) => process.label() == Some(label),
            None => i64::from(process.pid()) == pid,
        };
        let found = self.processes.iter().find(|(_, process)| matches(process));
        found.map(|(id, _)| *id).ok_or_else(|| {
            let text = match label {
                Some(label) => format!("label {label} does not belong to any subprocess"),
                None => format!("pid {pid} does not belong to any subprocess"),
            };
            Failure::new(Errno::ESRCH, text)
        })
    }

    /// An event of a process's.
    fn event(&mut self, context: &Context<Rexec>, id: u64, event: subprocess::Event) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.event(context, event);
        }
    }

    /// A process has exited, and nothing more comes from it.
    fn completed(&mut self, context: &Context<Rexec>, id: u64) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.completed(context);
        }
        self.forget_if_done(id);
    }

    fn forget_if_done(&mut self, id: u64) {
        if self.processes.get(&id).is_some_and(Process::is_done) {
            self.processes.remove(&id);
        }
    }
}

/// On a system instance rank 0 is a management node: only its own clients start processes there.
fn admit<R>(context: &Context<Rexec>, call: &Call<R>) -> Result<(), Failure> {
    let local = call.cred().rolemask.contains(Rolemask::LOCAL);
    let guests = || Access::parse(&context.config()).is_ok_and(|access| access.allow_guest_user);
    if context.rank() == 0 && !local && guests() {
        let text = "Remote rexec requests are not allowed on rank 0";
        return Err(Failure::new(Errno::EPERM, text));
    }
    Ok(())
}

fn nix_failure(errno: nix::errno::Errno) -> Failure {
    Errno(errno as u32).into()
}

fn spawn_failure(error: subprocess::SpawnError) -> Failure {
    match error {
        subprocess::SpawnError::NoCommand => Failure::new(Errno::EPROTO, error.to_string()),
        subprocess::SpawnError::Io(error) => {
            let errno = Errno::from(&error);
            Failure::new(errno, format!("error launching process: {errno}"))
        }
    }
}

fn spec(
    context: &Context<Rexec>,
    request: &rpc::ExecRequest,
    background: bool,
) -> Result<Spec, Failure> {
    let cmd = &request.cmd;
    let mut env = match cmd.env.is_empty() {
        true => crate::rc::environment(context.broker()),
        false => cmd.env.clone(),
    };
    if let Some(uri) = context.broker().attrs().get("local-uri") {
        env.insert("FLUX_URI".to_owned(), uri);
    }
    for name in PRIVATE_ENVIRONMENT {
        env.remove(name);
    }
    let stdio = |name: &str, flag: u32| -> Result<Stdio, Failure> {
        if request.local_flags & rpc::local_flags::STDIO_FALLTHROUGH != 0 {
            return Ok(Stdio::Inherit);
        }
        // What a background process writes is logged.
        match background || request.flags & flag != 0 {
            true => Ok(Stdio::Piped(stream(cmd, name)?)),
            false => Ok(Stdio::Null),
        }
    };
    let channels = cmd.channels.iter().map(|name| Ok((name.clone(), stream(cmd, name)?)));
    let names = ["stdin", "stdout", "stderr"].into_iter().chain(cmd.channels.iter().map(|c| &**c));
    Ok(Spec {
        stdin: !background,
        stdout: stdio("stdout", flags::STDOUT)?,
        stderr: stdio("stderr", flags::STDERR)?,
        channels: channels.collect::<Result<_, Failure>>()?,
        bufsize: names
            .filter_map(|name| bufsize(cmd, name).transpose())
            .collect::<Result<_, _>>()?,
        cwd: cmd.cwd.as_ref().map(PathBuf::from),
        group: request.local_flags & rpc::local_flags::NO_SETPGRP == 0,
        dies_with_broker: request.local_flags & rpc::local_flags::FORK_EXEC != 0,
        // The IMP is told to kill what it runs as others: killed itself, it would leave that behind.
        kill_signal: match context.config().get_str("exec.imp") {
            Some(imp) if cmd.cmdline.first().is_some_and(|program| program == imp) => {
                Signal::SIGUSR1
            }
            _ => Signal::SIGKILL,
        },
        ..Spec::new(cmd.cmdline.clone(), env)
    })
}

/// Option `NAME_LINE_BUFFER`.
fn stream(cmd: &rpc::Command, name: &str) -> Result<Stream, Failure> {
    match cmd.opts.get(&format!("{name}_LINE_BUFFER")).map(|v| v.to_lowercase()).as_deref() {
        None | Some("true") => Ok(Stream::Lines),
        Some("false") => Ok(Stream::Pieces),
        Some(_) => Err(launch_failure(Errno::EINVAL)),
    }
}

/// Option `NAME_BUFSIZE`: bytes, with a suffix of powers of 1024.
fn bufsize(cmd: &rpc::Command, name: &str) -> Result<Option<(String, usize)>, Failure> {
    let Some(text) = cmd.opts.get(&format!("{name}_BUFSIZE")) else { return Ok(None) };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(launch_failure(Errno::EINVAL)),
    };
    let size = digits.parse::<usize>().ok().and_then(|size| size.checked_shl(shift));
    match size {
        Some(0) | None => Err(launch_failure(Errno::EINVAL)),
        Some(size) => Ok(Some((name.to_owned(), size))),
    }
}

fn launch_failure(errno: Errno) -> Failure {
    Failure::new(errno, format!("error launching process: {errno}"))
}
