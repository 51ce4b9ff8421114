//! Processes beside the tasks, for tools: `UID-shell-ID.rexec`, the same protocol as the broker's
//! `rexec` (RFC 42).
//!
//! Whoever commands the broker could run anything here, so this works only where the shell trusts
//! it: when both are the same user's. Processes don't outlive the tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::message::Message;
use flux_protocol::payload::{decode_json, encode_json};
use flux_protocol::rpc::rexec::{
    ExecRequest, ExecResponse, Io, KillRequest, ListResponse, Process, WaitRequest, WaitResponse,
    WriteRequest, flags,
};
use nix::sys::signal::kill;
use nix::unistd::{Pid, getppid};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::fatal::Fatal;
use crate::io;
use crate::job::{Job, TaskId};
use crate::log::Log;
use crate::options::{is_on, seconds};
use crate::task::lines::{Buffering, Lines};
use crate::task::spawn::{Special, spawn};
use crate::task::{Event, Plan, Stream, Streams, Task};

const COMPONENT: &str = "rexec";
/// Bytes that a client may write to a process ahead of time.
const STDIN_CREDIT: u64 = 4 << 20;
const SHUTDOWN_TIMEOUT: f64 = 60.0;
/// Pieces of output that wait to be sent on.
const QUEUE: usize = 64;

/// An error response.
struct Refused(Errno, String);

pub(crate) struct Rexec {
    flux: Client,
    log: Log,
    rank: u32,
    userid: u32,
    uri: String,
    /// Why nothing may be run.
    denied: Option<&'static str>,
    processes: BTreeMap<usize, Running>,
    last: usize,
    events: mpsc::Sender<Event>,
    shutdown_timeout: Duration,
    shutdown: Shutdown,
}

struct Running {
    task: Task,
    label: Option<String>,
    request: Message,
    foreground: bool,
    waitable: bool,
    flags: u32,
    stdout: Lines,
    stderr: Lines,
    /// Output that is kept for who waits.
    kept: Vec<Io>,
    waiter: Option<Message>,
}

#[derive(Clone, Copy)]
enum Shutdown {
    Not,
    Terminated { deadline: Instant },
    Killed,
}

// === impl Rexec ===

impl Rexec {
    pub(crate) fn new(
        job: &Job,
        flux: &Client,
        log: &Log,
    ) -> Result<(Rexec, mpsc::Receiver<Event>), Fatal> {
        let options = &job.jobspec.options;
        let timeout = match options.get("rexec-shutdown-timeout") {
            None => SHUTDOWN_TIMEOUT,
            // A number is no duration here: seconds are written 5s.
            Some(value) => seconds(value)
                .filter(|_| value.is_string())
                .ok_or_else(|| Fatal::new(COMPONENT, "failed to parse rexec-shutdown-timeout"))?,
        };
        let must_sign = options.get(COMPONENT).and_then(|rexec| rexec.get("sign-required"));
        let (events, receiver) = mpsc::channel(QUEUE);
        let rexec = Rexec {
            flux: flux.clone(),
            log: log.clone(),
            rank: job.broker_rank,
            userid: job.userid,
            uri: std::env::var("FLUX_URI").unwrap_or_default(),
            denied: denied(must_sign.is_some_and(is_on)),
            processes: BTreeMap::new(),
            last: 0,
            events,
            shutdown_timeout: Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX),
            shutdown: Shutdown::Not,
        };
        Ok((rexec, receiver))
    }

    /// A request to `rexec.METHOD`.
    pub(crate) fn request(&mut self, request: &Message, method: &str) {
        let result = match method {
            "disconnect" => {
                self.disconnect(request);
                return;
            }
            "write" => {
                self.write(request);
                return;
            }
            _ => self.authorize(request).and_then(|()| match method {
                "exec" => self.exec(request),
                "kill" => self.kill(request),
                "wait" => self.wait(request),
                "list" => self.list(request),
                _ => Err(Refused(Errno::ENOSYS, String::new())),
            }),
        };
        if let Err(Refused(errno, text)) = result {
            // Who asked has gone if that fails.
            let _ = self.flux.refuse(request, errno, &text);
        }
    }

    /// All tasks have ended: processes are to end as well.
    pub(crate) fn shut_down(&mut self) {
        if !matches!(self.shutdown, Shutdown::Not) {
            return;
        }
        let now = Instant::now();
        let deadline = now.checked_add(self.shutdown_timeout);
        self.shutdown = match deadline {
            Some(deadline) => Shutdown::Terminated { deadline },
            None => Shutdown::Killed,
        };
        self.kill_all(libc::SIGTERM);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.processes.values().all(|process| process.task.is_complete())
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.shutdown {
            Shutdown::Terminated { deadline } if !self.is_idle() => Some(deadline),
            _ => None,
        }
    }

    /// The deadline has passed.
    pub(crate) fn expire(&mut self) {
        self.shutdown = Shutdown::Killed;
        self.kill_all(libc::SIGKILL);
    }

    /// A process does something.
    pub(crate) fn event(&mut self, event: Event) {
        match event {
            Event::Output { index, stream, data } => {
                let Some(process) = self.processes.get_mut(&index) else { return };
                process.lines(stream).push(&data);
                while let Some(piece) = process.lines(stream).next() {
                    process.output(&self.flux, self.rank, stream, Some(&piece));
                }
            }
            Event::Eof { index, stream } => {
                let Some(process) = self.processes.get_mut(&index) else { return };
                if let Some(rest) = process.lines(stream).finish() {
                    process.output(&self.flux, self.rank, stream, Some(&rest));
                }
                process.output(&self.flux, self.rank, stream, None);
            }
            Event::Exited { index, status } => self.exited(index, status),
        }
    }

    pub(crate) fn kill_all(&self, signum: i32) {
        for process in self.processes.values() {
            // One that has just ended needs no signal.
            let _ = process.task.kill(signum);
        }
    }

    fn authorize(&self, request: &Message) -> Result<(), Refused> {
        let refused = |text: &str| Err(Refused(Errno::EPERM, text.to_owned()));
        if let Some(why) = self.denied {
            return refused(why);
        }
        if !request.cred.is_owner() {
            return refused("Request requires owner credentials");
        }
        if request.cred.userid.0 != self.userid {
            return refused("Access denied");
        }
        Ok(())
    }

    fn exec(&mut self, request: &Message) -> Result<(), Refused> {
        if !matches!(self.shutdown, Shutdown::Not) {
            return Err(Refused(Errno::ENOSYS, "subprocess server is shutting down".to_owned()));
        }
        let ExecRequest { cmd, flags, .. } = decode(request)?;
        if cmd.cmdline.is_empty() {
            return Err(Refused(Errno::EPROTO, "command string is empty".to_owned()));
        }
        if let Some(label) = &cmd.label
            && self.processes.values().any(|process| process.label.as_ref() == Some(label))
        {
            return Err(Refused(Errno::EEXIST, format!("label {label} is in use")));
        }
        let mut env = cmd.env;
        env.insert("FLUX_URI".to_owned(), self.uri.clone());
        self.last += 1;
        let index = self.last;
        let plan = Plan { id: TaskId { rank: self.rank, index }, argv: cmd.cmdline, env };
        let special = Special { cwd: cmd.cwd.map(Into::into), ..Special::default() };
        let child = spawn(&plan, Streams::default(), &special, Vec::new()).map_err(|e| {
            let errno = Errno::from(&e);
            Refused(errno, format!("error launching process: {errno}"))
        })?;
        let task = Task::follow(&plan, child, true, self.events.clone());
        let buffering = |option: &str| match cmd.opts.get(option).map(String::as_str) {
            Some("false") => Buffering::None,
            _ => Buffering::Line,
        };
        let process = Running {
            label: cmd.label,
            request: request.clone(),
            foreground: request.is_streaming(),
            waitable: !request.is_streaming() && flags & flags::WAITABLE != 0,
            flags,
            stdout: Lines::new(buffering("stdout_LINE_BUFFER")),
            stderr: Lines::new(buffering("stderr_LINE_BUFFER")),
            kept: Vec::new(),
            waiter: None,
            task,
        };
        process.send(&self.flux, &ExecResponse::Started { pid: i64::from(process.task.pid) });
        if process.foreground && flags & flags::WRITE_CREDIT != 0 {
            process.send_credit(&self.flux, STDIN_CREDIT);
        }
        self.processes.insert(index, process);
        Ok(())
    }

    fn write(&mut self, request: &Message) {
        let Ok(WriteRequest { matchtag, io }) = decode_json(request.payload.as_ref()) else {
            return;
        };
        let sender = request.first_route();
        let process = self.processes.values_mut().find(|process| {
            process.foreground
                && process.request.matchtag().0 == matchtag
                && process.request.first_route() == sender
        });
        let Some(process) = process else { return };
        let data = io::decode(&io).unwrap_or_default();
        let len = data.len() as u64;
        if len > 0 && process.task.write_stdin(Bytes::from(data)).is_ok() {
            process.send_credit(&self.flux, len);
        }
        if io.eof {
            process.task.close_stdin();
        }
    }

    fn kill(&mut self, request: &Message) -> Result<(), Refused> {
        let KillRequest { pid, label, signum } = decode(request)?;
        let index = self.find(pid, label.as_deref(), false)?;
        let result = self.processes.get(&index).map_or(Ok(()), |process| process.task.kill(signum));
        result.map_err(|e| {
            Refused(Errno(u32::try_from(e as i32).unwrap_or(Errno::EIO.0)), String::new())
        })?;
        self.respond(request, None);
        Ok(())
    }

    fn wait(&mut self, request: &Message) -> Result<(), Refused> {
        let WaitRequest { pid, label } = decode(request)?;
        let index = self.find(pid, label.as_deref(), true)?;
        let Some(process) = self.processes.get_mut(&index) else { return Ok(()) };
        if !process.waitable || process.waiter.is_some() {
            let text = format!("pid {} cannot be waited for", process.task.pid);
            return Err(Refused(Errno::EINVAL, text));
        }
        process.waiter = Some(request.clone());
        self.reap(index);
        Ok(())
    }

    fn list(&mut self, request: &Message) -> Result<(), Refused> {
        let procs = self.processes.values().map(|process| Process {
            pid: i64::from(process.task.pid),
            cmd: process.task.program.clone(),
            label: process.label.clone().unwrap_or_default(),
            state: if process.task.is_complete() { "Z" } else { "R" }.to_owned(),
        });
        let response = ListResponse { rank: self.rank, procs: procs.collect() };
        self.respond(request, encode_json(&response).unwrap_or_default());
        Ok(())
    }

    /// A client that goes takes its processes with it.
    fn disconnect(&mut self, request: &Message) {
        let sender = request.first_route();
        for process in self.processes.values_mut() {
            if process.foreground && process.request.first_route() == sender {
                let _ = process.task.kill(libc::SIGKILL);
            }
            if process.waiter.as_ref().is_some_and(|waiter| waiter.first_route() == sender) {
                process.waiter = None;
            }
        }
    }

    fn exited(&mut self, index: usize, status: i32) {
        let Some(process) = self.processes.get_mut(&index) else { return };
        process.task.status = Some(status);
        if process.foreground {
            process.send(&self.flux, &ExecResponse::Finished { status });
            let _ = self.flux.refuse(&process.request, Errno::ENODATA, "");
        }
        if process.waitable {
            self.reap(index);
        } else {
            self.processes.remove(&index);
        }
    }

    /// Answer who waits for a process that has ended.
    fn reap(&mut self, index: usize) {
        let Some(process) = self.processes.get_mut(&index) else { return };
        let (Some(status), Some(waiter)) = (process.task.status, process.waiter.clone()) else {
            return;
        };
        let response = WaitResponse { status, output: std::mem::take(&mut process.kept) };
        self.processes.remove(&index);
        self.respond(&waiter, encode_json(&response).unwrap_or_default());
    }

    fn find(&self, pid: i64, label: Option<&str>, ended: bool) -> Result<usize, Refused> {
        let found = self.processes.iter().find(|(_, process)| {
            let this = match (pid, label) {
                (-1, Some(label)) => process.label.as_deref() == Some(label),
                _ => i64::from(process.task.pid) == pid,
            };
            this && (ended || !process.task.is_complete())
        });
        found.map(|(index, _)| *index).ok_or_else(|| {
            let name = match (pid, label) {
                (-1, Some(label)) => format!("label {label}"),
                _ => format!("pid {pid}"),
            };
            Refused(Errno::ESRCH, format!("{name} does not belong to any subprocess"))
        })
    }

    fn respond(&self, request: &Message, payload: Option<Bytes>) {
        if let Err(e) = self.flux.respond(request, payload) {
            self.log.debug(COMPONENT, format_args!("can't answer {}: {e}", request.topic));
        }
    }
}

// === impl Running ===

impl Running {
    fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn output(&mut self, flux: &Client, rank: u32, stream: Stream, data: Option<&[u8]>) {
        let wanted = match stream {
            Stream::Stdout => flags::STDOUT,
            Stream::Stderr => flags::STDERR,
        };
        let io = io::encode(stream.name(), &rank.to_string(), data);
        if self.waitable && data.is_some() {
            self.kept.push(io);
        } else if self.foreground && self.flags & wanted != 0 {
            self.send(flux, &ExecResponse::Output { pid: i64::from(self.task.pid), io });
        }
    }

    fn send_credit(&self, flux: &Client, bytes: u64) {
        let channels = [("stdin".to_owned(), bytes)].into();
        self.send(flux, &ExecResponse::AddCredit { channels });
    }

    fn send(&self, flux: &Client, response: &ExecResponse) {
        // Who asked has gone if that fails.
        let _ = flux.respond(&self.request, encode_json(response).unwrap_or_default());
    }
}

/// Whether the broker could be somebody else's: then the process that has started this is.
fn denied(must_sign: bool) -> Option<&'static str> {
    const SIGNED: &str = "request signature required";
    let parent = getppid();
    let trusted = parent != Pid::from_raw(0) && kill(parent, None).is_ok();
    (must_sign || !trusted).then_some(SIGNED)
}

fn decode<T: serde::de::DeserializeOwned>(request: &Message) -> Result<T, Refused> {
    decode_json(request.payload.as_ref())
        .map_err(|e| Refused(Errno::EPROTO, format!("invalid request payload: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_that_has_to_verify_signatures_runs_nothing() {
        assert_eq!(denied(true), Some("request signature required"));
    }
}
