//! `rexec`: processes on this broker's host (RFC 42).
//!
//! A process in the foreground belongs to the stream of its exec request: when the client goes, it
//! is killed. One in the background goes on by itself.

mod process;

use std::collections::BTreeMap;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::rexec as rpc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use crate::call::{Call, Sender};
use crate::methods::Methods;
use crate::service::Service;
use process::{Process, Told};

type Context = crate::context::Context<Rexec>;

/// The service; one on each rank.
#[derive(Debug, Default)]
pub struct Rexec {
    processes: BTreeMap<i64, Entry>,
}

/// A process that has not been waited for.
#[derive(Debug)]
struct Entry {
    label: Option<String>,
    program: String,
    cmd: rpc::Command,
    owner: Sender,
    matchtag: u32,
    stdin: Option<mpsc::UnboundedSender<Option<Vec<u8>>>>,
    /// The stream, of one in the foreground or attached to.
    call: Option<Call<rpc::ExecResponse>>,
    background: bool,
    waitable: bool,
    status: Option<i32>,
    waiters: Vec<Call<rpc::WaitResponse>>,
}

impl Service for Rexec {
    const NAME: &'static str = "rexec";
    const SERVICES: &'static [&'static str] = &["rexec"];

    async fn start(_: &Context, _: &[String]) -> Result<Rexec, Failure> {
        Ok(Rexec::default())
    }

    fn methods() -> Methods<Rexec> {
        Methods::default()
            .serve::<rpc::Exec>(Rexec::exec)
            .reply::<rpc::Write>(Rexec::write)
            .reply::<rpc::Kill>(Rexec::kill)
            .serve::<rpc::Wait>(Rexec::wait)
            .serve::<rpc::Attach>(Rexec::attach)
            .reply::<rpc::List>(Rexec::list)
    }

    fn disconnect(&mut self, _: &Context, sender: &Sender) {
        for (pid, entry) in &mut self.processes {
            if !entry.owner.ended_by(sender) {
                continue;
            }
            if let Some(call) = entry.call.take() {
                call.into_request();
            }
            if !entry.background && entry.status.is_none() {
                let _ = signal_group(*pid, Signal::SIGKILL);
            }
        }
    }

    /// Nothing that was started here outlives the broker.
    async fn stop(self, _: &Context) {
        for (pid, entry) in &self.processes {
            if entry.status.is_none() {
                let _ = signal_group(*pid, Signal::SIGKILL);
            }
        }
        for (_, entry) in self.processes {
            if let Some(call) = entry.call {
                call.fail(Failure::new(Errno::ENOSYS, "subprocess server is shutting down"));
            }
        }
    }
}

impl Rexec {
    fn exec(
        &mut self,
        context: &Context,
        request: rpc::ExecRequest,
        call: Call<rpc::ExecResponse>,
    ) {
        let label = request.cmd.label.clone();
        if label.is_some() && self.processes.values().any(|entry| entry.label == label) {
            return call.fail(Failure::new(Errno::EEXIST, "command label exists"));
        }
        let Some(program) = request.cmd.cmdline.first().cloned() else {
            return call.fail(Failure::new(Errno::EPROTO, "empty command line"));
        };
        let background = !call.is_streaming();
        let mut process = match Process::spawn(context.broker(), &request, background) {
            Ok(process) => process,
            Err(failure) => return call.fail(failure),
        };
        let pid = process.pid();
        let stdin = process.take_stdin();
        let started = rpc::ExecResponse::Started { pid };
        let (owner, matchtag) = (call.sender(), call.matchtag().0);
        let call = match background {
            true => {
                call.reply(&started);
                None
            }
            false => {
                call.send(&started);
                Some(call)
            }
        };
        let entry = Entry {
            label,
            program,
            cmd: request.cmd,
            owner,
            matchtag,
            stdin,
            call,
            background,
            waitable: request.flags & rpc::flags::WAITABLE != 0,
            status: None,
            waiters: Vec::new(),
        };
        self.processes.insert(pid, entry);
        let after = context.clone();
        tokio::task::spawn_local(process.run(move |told| {
            let again = after.clone();
            after.later(move |rexec: &mut Rexec| rexec.told(&again, pid, told));
        }));
    }

    /// Something has happened to a process.
    fn told(&mut self, context: &Context, pid: i64, told: Told) {
        let Some(entry) = self.processes.get_mut(&pid) else { return };
        match told {
            Told::Output { stream, data } => {
                if let Some(call) = &entry.call {
                    let io = process::io(stream, context.rank(), data.as_deref());
                    call.send(&rpc::ExecResponse::Output { pid, io });
                }
            }
            Told::Exited { status } => {
                entry.status = Some(status);
                if let Some(call) = &entry.call {
                    call.send(&rpc::ExecResponse::Finished { status });
                }
                let response = rpc::WaitResponse { status, output: Vec::new() };
                for waiter in entry.waiters.drain(..) {
                    waiter.reply(&response);
                    entry.waitable = false;
                }
            }
            Told::Done => {
                if let Some(call) = entry.call.take() {
                    call.end();
                }
                if !entry.waitable {
                    self.processes.remove(&pid);
                }
            }
        }
    }

    fn find(&self, pid: i64, label: Option<&str>) -> Option<i64> {
        if pid > 0 {
            return self.processes.contains_key(&pid).then_some(pid);
        }
        let label = label?;
        self.processes
            .iter()
            .find(|(_, entry)| entry.label.as_deref() == Some(label))
            .map(|(pid, _)| *pid)
    }

    fn write(
        &mut self,
        _: &Context,
        request: rpc::WriteRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        let data = process::decode(&request.io)?;
        let entry = self
            .processes
            .values_mut()
            .find(|entry| entry.matchtag == request.matchtag && entry.owner.uuid == sender.uuid);
        if let Some(entry) = entry
            && request.io.stream == "stdin"
        {
            if let (Some(stdin), Some(data)) = (&entry.stdin, data) {
                // A process that has closed its stdin does not want it.
                let _ = stdin.send(Some(data));
            }
            if request.io.eof {
                entry.stdin = None;
            }
        }
        Ok(Empty)
    }

    fn kill(
        &mut self,
        _: &Context,
        request: rpc::KillRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        let signal = Signal::try_from(request.signum).map_err(|_| Errno::EINVAL)?;
        let pid = self.find(request.pid, request.label.as_deref()).ok_or_else(|| {
            Failure::new(
                Errno::ESRCH,
                format!("pid {} does not belong to any subprocess", request.pid),
            )
        })?;
        signal_group(pid, signal)?;
        Ok(Empty)
    }

    fn wait(&mut self, _: &Context, request: rpc::WaitRequest, call: Call<rpc::WaitResponse>) {
        let pid = self.find(request.pid, request.label.as_deref());
        let Some((pid, entry)) = pid.and_then(|pid| Some((pid, self.processes.get_mut(&pid)?)))
        else {
            return call.fail(Errno::ESRCH);
        };
        if !entry.waitable {
            return call.fail(Errno::EINVAL);
        }
        match entry.status {
            Some(status) => {
                call.reply(&rpc::WaitResponse { status, output: Vec::new() });
                self.processes.remove(&pid);
            }
            None => entry.waiters.push(call),
        }
    }

    fn attach(&mut self, _: &Context, request: rpc::AttachRequest, call: Call<rpc::ExecResponse>) {
        let pid = self.find(request.pid, request.label.as_deref());
        let Some((pid, entry)) = pid.and_then(|pid| Some((pid, self.processes.get_mut(&pid)?)))
        else {
            return call.fail(Errno::ENOENT);
        };
        if entry.call.is_some() {
            return call.fail(Errno::EBUSY);
        }
        call.send(&rpc::ExecResponse::Attached { pid, cmd: entry.cmd.clone() });
        entry.call = Some(call);
    }

    fn list(
        &mut self,
        context: &Context,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::ListResponse, Failure> {
        let procs = self
            .processes
            .iter()
            .map(|(pid, entry)| rpc::Process {
                pid: *pid,
                cmd: entry.program.clone(),
                label: entry.label.clone().unwrap_or_default(),
                state: if entry.status.is_none() { "R" } else { "Z" }.to_owned(),
            })
            .collect();
        Ok(rpc::ListResponse { rank: context.rank(), procs })
    }
}

fn signal_group(pid: i64, signal: Signal) -> Result<(), Failure> {
    let group = i32::try_from(pid).map(Pid::from_raw).map_err(|_| Errno::ESRCH)?;
    killpg(group, signal).map_err(|error| Errno(error as u32).into())
}
