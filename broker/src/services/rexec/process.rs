//! One process of the service: who listens to it, and what is kept of it.
//!
//! ```text
//! foreground:  exec --- started, output.., finished, ENODATA --> gone
//! background:  exec --- started                 (output is logged)
//!                attach --- attached, output.., finished, ENODATA --> gone
//!                wait   --- status, latest output --> gone
//!              without a reader: gone when it exits, unless it is waitable
//! ```

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::rexec::{self as rpc, flags};

use super::Rexec;
use super::output::encode;
use crate::call::{Call, Sender};
use crate::context::Context;
use crate::log::Severity;
use crate::subprocess::{self, Event, Events, WriteError};

/// Bytes of the latest output of a waitable process that its waiter gets.
const RETAINED_MAX: usize = 8192;
/// Unsent bytes of a client at which the output of its processes is left where it is.
const BACKLOG_MAX: usize = 4 << 20;
const BACKLOG_RETRY: Duration = Duration::from_millis(20);

/// Whose connection output goes to; shared with the task that takes it from the process.
pub(super) type ListenerUuid = Rc<RefCell<Option<Bytes>>>;

#[derive(Debug)]
pub(super) struct Process {
    child: subprocess::Process,
    command: rpc::Command,
    /// Bits of [`flags`]: of the exec request, or of the attach request.
    flags: u32,
    rank: u32,
    background: bool,
    waitable: bool,
    listener: Option<Call<rpc::ExecResponse>>,
    listener_uuid: ListenerUuid,
    waiter: Option<Call<rpc::WaitResponse>>,
    retained: VecDeque<(rpc::Io, usize)>,
    retained_bytes: usize,
    status: Option<i32>,
    ended_streams: BTreeSet<Rc<str>>,
    complete: bool,
}

/// Take the events of a process, no faster than its listener reads.
pub(super) fn pump(context: &Context<Rexec>, id: u64, mut events: Events, listener: ListenerUuid) {
    let context = context.clone();
    tokio::task::spawn_local(async move {
        while let Some(event) = events.recv().await {
            loop {
                let uuid = listener.borrow().clone();
                let backlog = uuid.map_or(0, |uuid| context.router().backlog(&uuid));
                if backlog <= BACKLOG_MAX {
                    break;
                }
                tokio::time::sleep(BACKLOG_RETRY).await;
            }
            let again = context.clone();
            context.later(move |rexec: &mut Rexec| rexec.event(&again, id, event));
            // Let the service answer before there is more.
            tokio::task::yield_now().await;
        }
        let again = context.clone();
        context.later(move |rexec: &mut Rexec| rexec.completed(&again, id));
    });
}

impl Process {
    /// Tell the client that it runs; a background process is let go.
    pub(super) fn start(
        context: &Context<Rexec>,
        request: rpc::ExecRequest,
        background: bool,
        child: subprocess::Process,
        call: Call<rpc::ExecResponse>,
    ) -> Process {
        let started = rpc::ExecResponse::Started { pid: child.pid().into() };
        let mut process = Process {
            child,
            command: request.cmd,
            flags: request.flags,
            rank: context.rank(),
            background,
            waitable: background && request.flags & flags::WAITABLE != 0,
            listener: None,
            listener_uuid: ListenerUuid::default(),
            waiter: None,
            retained: VecDeque::new(),
            retained_bytes: 0,
            status: None,
            ended_streams: BTreeSet::new(),
            complete: false,
        };
        if background {
            call.reply(&started);
        } else {
            call.send(&started);
            process.listen(Some(call));
        }
        process
    }

    fn listen(&mut self, call: Option<Call<rpc::ExecResponse>>) {
        *self.listener_uuid.borrow_mut() = call.as_ref().map(|call| call.sender().uuid);
        self.listener = call;
    }

    pub(super) fn listener_uuid(&self) -> ListenerUuid {
        self.listener_uuid.clone()
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.pid()
    }

    pub(super) fn label(&self) -> Option<&str> {
        self.command.label.as_deref()
    }

    pub(super) fn has_exited(&self) -> bool {
        self.child.has_exited()
    }

    pub(super) fn kill(&self, signum: i32) -> Result<(), nix::errno::Errno> {
        self.child.kill(signum)
    }

    /// Is nothing left of it that anybody can ask for?
    pub(super) fn is_done(&self) -> bool {
        self.complete && !self.waitable
    }

    pub(super) fn is_listened_to_by(&self, sender: &Sender, matchtag: u32) -> bool {
        self.listener
            .as_ref()
            .is_some_and(|call| call.matchtag().0 == matchtag && call.sender().ended_by(sender))
    }

    pub(super) fn info(&self) -> rpc::Process {
        let mut words = self.command.cmdline.iter();
        let name = words.next().map_or("", String::as_str);
        let cmd = match (name, words.next()) {
            // Every command of ours begins with it: the next word says more.
            ("flux", Some(subcommand)) => format!("flux {subcommand}"),
            _ => name.to_owned(),
        };
        rpc::Process {
            pid: self.pid().into(),
            cmd,
            label: self.label().unwrap_or_default().to_owned(),
            state: if self.complete { "Z" } else { "R" }.to_owned(),
        }
    }

    // --- what the process does ---

    pub(super) fn event(&mut self, context: &Context<Rexec>, event: Event) {
        match event {
            Event::Credit { stream, bytes } => self.credit(&stream, bytes),
            Event::Output { stream, data } => self.output(context, &stream, &data),
            Event::Eof { stream } => {
                self.send_output(&stream, &[], true);
                self.ended_streams.insert(stream);
            }
            Event::Exited { status } => {
                self.status = Some(status);
                self.send(&rpc::ExecResponse::Finished { status });
            }
        }
    }

    pub(super) fn stopped(&self) {
        self.send(&rpc::ExecResponse::Stopped);
    }

    fn credit(&self, stream: &str, bytes: usize) {
        if self.flags & flags::WRITE_CREDIT != 0 && !self.background {
            let channels = [(stream.to_owned(), bytes as u64)].into();
            self.send(&rpc::ExecResponse::AddCredit { channels });
        }
    }

    fn output(&mut self, context: &Context<Rexec>, stream: &str, data: &[u8]) {
        self.send_output(stream, data, false);
        if !self.background {
            return;
        }
        let severity = if stream == "stderr" { Severity::Err } else { Severity::Info };
        let name = self.label().unwrap_or(base_name(&self.command));
        let text = String::from_utf8_lossy(data);
        context.log(severity, format!("{name}[{}]: {}", self.pid(), text.trim_end()));
        if self.waitable {
            self.retain(stream, data);
        }
    }

    fn retain(&mut self, stream: &str, data: &[u8]) {
        self.retained.push_back((encode(stream, self.rank, data, false), data.len()));
        self.retained_bytes += data.len();
        while self.retained_bytes > RETAINED_MAX && self.retained.len() > 1 {
            if let Some((_, bytes)) = self.retained.pop_front() {
                self.retained_bytes -= bytes;
            }
        }
    }

    /// It has exited, and nothing more comes from it.
    pub(super) fn completed(&mut self, context: &Context<Rexec>) {
        self.complete = true;
        if self.background {
            self.log_exit(context);
        }
        let listener = self.listener.take();
        self.listen(None);
        if let Some(call) = listener {
            call.end();
            self.waitable = false;
        }
        self.answer_waiter();
    }

    fn log_exit(&self, context: &Context<Rexec>) {
        let label = self.label().map(|label| format!("{label}: ")).unwrap_or_default();
        let status = self.status.unwrap_or_default();
        let how = match status & 0x7f {
            0 => format!("Exit {}", (status >> 8) & 0xff),
            signal => format!("Killed by signal {signal}"),
        };
        let name = base_name(&self.command);
        context.log(Severity::Info, format!("{label}{name}[{}]: {how}", self.pid()));
    }

    fn send(&self, response: &rpc::ExecResponse) {
        if let Some(call) = &self.listener {
            call.send(response);
        }
    }

    fn send_output(&self, stream: &str, data: &[u8], eof: bool) {
        if self.forwards(stream) {
            let io = encode(stream, self.rank, data, eof);
            self.send(&rpc::ExecResponse::Output { pid: self.pid().into(), io });
        }
    }

    fn forwards(&self, stream: &str) -> bool {
        let flag = match stream {
            "stdout" => flags::STDOUT,
            "stderr" => flags::STDERR,
            _ => flags::CHANNEL,
        };
        self.flags & flag != 0
    }

    // --- what clients do ---

    pub(super) fn write(&mut self, context: &Context<Rexec>, stream: &str, data: Bytes, eof: bool) {
        let written = if data.is_empty() { Ok(()) } else { self.child.write(stream, data) };
        match written {
            Ok(()) if eof => self.child.close(stream),
            Ok(()) | Err(WriteError::NoStream) => {}
            Err(error @ WriteError::NoCredit) => {
                context
                    .log(Severity::Err, format!("Error writing to subprocess {stream}: {error}"));
                let text = format!("internal fatal error: {error}");
                let listener = self.listener.take();
                self.listen(None);
                if let Some(call) = listener {
                    call.fail(Failure::new(Errno::ENOSPC, text));
                }
                self.child.put_an_end();
            }
        }
    }

    pub(super) fn disconnect(&mut self, sender: &Sender) {
        if self.waiter.as_ref().is_some_and(|call| call.sender().uuid == sender.uuid)
            && let Some(call) = self.waiter.take()
        {
            call.into_request();
        }
        if self.listener.as_ref().is_some_and(|call| call.sender().uuid == sender.uuid) {
            if let Some(call) = self.listener.take() {
                call.into_request();
            }
            self.listen(None);
            if !self.background {
                self.child.put_an_end();
            }
        }
    }

    pub(super) fn wait(&mut self, call: Call<rpc::WaitResponse>) {
        let refusal = if !self.waitable {
            Some((Errno::EINVAL, "process is not waitable"))
        } else if self.waiter.is_some() {
            Some((Errno::EINVAL, "process is already being waited on"))
        } else if self.listener.is_some() {
            Some((Errno::EBUSY, "subprocess has a client attached"))
        } else {
            None
        };
        match refusal {
            Some((errno, text)) => call.fail(Failure::new(errno, text)),
            None => {
                self.waiter = Some(call);
                self.answer_waiter();
            }
        }
    }

    fn answer_waiter(&mut self) {
        if !self.complete {
            return;
        }
        if let Some(call) = self.waiter.take() {
            self.waitable = false;
            call.reply(&rpc::WaitResponse {
                status: self.status.unwrap_or_default(),
                output: self.retained.drain(..).map(|(io, _)| io).collect(),
            });
        }
    }

    pub(super) fn attach(&mut self, rank: u32, flags: u32, call: Call<rpc::ExecResponse>) {
        let refusal = if !self.background {
            Some("subprocess is not in background mode")
        } else if self.listener.is_some() {
            Some("subprocess already has a client attached")
        } else if self.waiter.is_some() {
            Some("subprocess is being waited on")
        } else {
            None
        };
        if let Some(text) = refusal {
            return call.fail(Failure::new(Errno::EBUSY, text));
        }
        self.flags = flags;
        self.rank = rank;
        let pid = self.pid().into();
        call.send(&rpc::ExecResponse::Attached { pid, cmd: self.command.clone() });
        self.listen(Some(call));
        // The client expects an end of each stream that it asked for.
        for stream in &self.ended_streams {
            self.send_output(stream, &[], true);
        }
        if let Some(status) = self.status {
            self.send(&rpc::ExecResponse::Finished { status });
        }
        if self.complete {
            self.waitable = false;
            let listener = self.listener.take();
            self.listen(None);
            if let Some(call) = listener {
                call.end();
            }
        }
    }
}

fn base_name(command: &rpc::Command) -> &str {
    let program = command.cmdline.first().map_or("", String::as_str);
    program.rsplit('/').next().unwrap_or(program)
}
