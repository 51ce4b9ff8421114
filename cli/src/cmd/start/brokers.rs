//! The brokers of a test instance: their PMI server, and how they end.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use flux_pmi::{Action, Server};
use flux_protocol::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Test;
use super::control::{Control, Reply, Request};
use super::rundir::Rundir;
use crate::failure::{Failure, Outcome, strerror};

/// What can happen.
enum Event {
    /// A line of a broker's PMI client.
    Pmi {
        rank: u32,
        line: String,
    },
    Exit {
        rank: u32,
        status: std::io::Result<ExitStatus>,
    },
    Control(Request, Reply),
    /// A signal to this process that is meant for the instance.
    Signal(Signal),
    /// Who is left has had time to notice that the leader has failed.
    LeaderGone,
    ExitTimeout,
}

/// What followers that were connected need, to see that the leader is gone and to end themselves.
const LEADER_GONE_GRACE: Duration = Duration::from_secs(1);

/// One broker; it may be started again after it has exited.
#[derive(Default)]
struct Broker {
    pid: Option<i32>,
    pmi: Option<OwnedWriteHalf>,
    exit_code: u8,
    waiting: Option<Reply>,
}

struct Instance<'a> {
    test: &'a Test,
    rundir: &'a Rundir,
    args: &'a [String],
    command: &'a [String],
    pmi: Server,
    brokers: Vec<Broker>,
    events: mpsc::UnboundedSender<Event>,
    timer: Option<tokio::task::JoinHandle<()>>,
    /// The highest exit code, or the leader's.
    exit_code: u8,
}

/// Start the brokers and wait until all have ended.
pub(crate) async fn run(
    test: &Test,
    rundir: &Rundir,
    args: &[String],
    command: &[String],
) -> Outcome {
    let (events, mut received) = mpsc::unbounded_channel();
    let mut pmi = Server::new("-", test.size, test.size);
    if let Some(mapping) = &test.mapping {
        pmi.preset("PMI_process_mapping", mapping.clone());
    }
    let mut instance = Instance {
        test,
        rundir,
        args,
        command,
        pmi,
        brokers: (0..test.size).map(|_| Broker::default()).collect(),
        events: events.clone(),
        timer: None,
        exit_code: 0,
    };
    forward_signals(&events)?;
    let control = Control::listen(&rundir.path().join("start"), move |request, reply| {
        events.send(Event::Control(request, reply)).is_ok()
    })?;
    let first = if test.start_all { test.size } else { 1 };
    for rank in 0..first {
        instance.start(rank)?;
    }
    while instance.running() > 0 {
        let Some(event) = received.recv().await else { break };
        instance.handle(event).await?;
    }
    drop(control);
    Ok(instance.exit_code)
}

/// What `-v` shows.
pub(crate) fn command_line(args: &[String], rank: u32, command: &[String]) -> String {
    let mut line = format!("{rank}: {}", args.join(" "));
    if rank == 0 && !command.is_empty() {
        line.push(' ');
        line.push_str(&command.join(" "));
    }
    line
}

/// The terminal sends its own signals to the brokers as well, so those are not passed on.
fn forward_signals(events: &mpsc::UnboundedSender<Event>) -> Result<(), Failure> {
    let error = |error: std::io::Error| Failure::of("signal", strerror(&error));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(error)?;
    let mut quit = signal(SignalKind::quit()).map_err(error)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(error)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(error)?;
    let events = events.clone();
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                _ = interrupt.recv() => continue,
                _ = quit.recv() => continue,
                _ = terminate.recv() => Signal::SIGTERM,
                _ = hangup.recv() => Signal::SIGHUP,
            };
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

impl Instance<'_> {
    fn running(&self) -> usize {
        self.brokers.iter().filter(|broker| broker.pid.is_some()).count()
    }

    fn broker(&mut self, rank: u32) -> Option<&mut Broker> {
        self.brokers.get_mut(rank as usize)
    }

    fn start(&mut self, rank: u32) -> Result<(), Failure> {
        let error = |error: std::io::Error| Failure::of("starting a broker", strerror(&error));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(error)?;
        ours.set_nonblocking(true).map_err(error)?;
        let mut child = self.spawn(rank, theirs.into())?;
        let (read, write) = UnixStream::from_std(ours).map_err(error)?.into_split();
        if let Some(broker) = self.broker(rank) {
            broker.pid = child.id().and_then(|pid| i32::try_from(pid).ok());
            broker.pmi = Some(write);
        }
        let events = self.events.clone();
        let mut lines = BufReader::new(read).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if events.send(Event::Pmi { rank, line }).is_err() {
                    return;
                }
            }
        });
        let events = self.events.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            let _ = events.send(Event::Exit { rank, status });
        });
        Ok(())
    }

    fn spawn(&self, rank: u32, pmi: OwnedFd) -> Result<Child, Failure> {
        let (program, rest) = self.args.split_first().ok_or_else(|| Failure::new("no broker"))?;
        let mut command = Command::new(program);
        command.args(rest);
        command.arg(format!("--setattr=rundir={}", self.rundir.path().display()));
        if let Some(host) = self.test.hosts.as_ref().and_then(|hosts| hosts.nth(u64::from(rank))) {
            command.arg(format!("--setattr=hostname={host}"));
        }
        if rank == 0 {
            command.args(self.command);
        }
        if self.test.verbose >= 1 {
            eprintln!("flux-start: {}", command_line(self.args, rank, self.command));
        }
        let fd = crate::descriptor::inherit(&pmi)
            .map_err(|error| Failure::of("starting a broker", strerror(&error)))?;
        command
            .env("PMI_FD", fd.number().to_string())
            .env("PMI_RANK", rank.to_string())
            .env("PMI_SIZE", self.test.size.to_string())
            .env("FLUX_START_URI", format!("local://{}/start", self.rundir.path().display()));
        command.spawn().map_err(|error| Failure::of(program, strerror(&error)))
    }

    async fn handle(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Pmi { rank, line } => self.pmi_line(rank, &line).await,
            Event::Exit { rank, status } => self.exited(rank, status),
            Event::Control(request, reply) => self.control(request, reply)?,
            Event::Signal(signal) => self.signal_all(signal),
            // A follower that never got as far as its parent would wait for it: for ever, as the
            // followers of a system instance do, but here it does not come back.
            Event::LeaderGone => self.signal_all(Signal::SIGTERM),
            Event::ExitTimeout => {
                let (running, size) = (self.running(), self.test.size);
                eprintln!("flux-start: timeout: killing {running} of {size} brokers");
                self.signal_all(Signal::SIGKILL);
            }
        }
        Ok(())
    }

    // --- PMI ---

    async fn pmi_line(&mut self, rank: u32, line: &str) {
        self.trace(rank, 'C', line);
        match self.pmi.request(line) {
            Ok(Action::Reply(reply)) => self.send(rank, &reply).await,
            Ok(Action::Finalized(reply)) => {
                self.send(rank, &reply).await;
            }
            Ok(Action::Wait) => {}
            Ok(Action::Complete) => {
                let line = self.pmi.release([]);
                for rank in 0..self.test.size {
                    self.send(rank, &line).await;
                }
            }
            Ok(Action::Abort { exit_code, text }) => {
                eprintln!("flux-start: {rank}: PMI_Abort(): {text} (exit code {exit_code})");
                self.signal_all(Signal::SIGKILL);
            }
            Err(error) => {
                eprintln!("flux-start: {rank}: {error}");
                if let Some(broker) = self.broker(rank) {
                    broker.pmi = None;
                }
            }
        }
    }

    async fn send(&mut self, rank: u32, line: &str) {
        self.trace(rank, 'S', line);
        if let Some(Broker { pmi: Some(pmi), .. }) = self.broker(rank) {
            // A client that is gone shows by its exit.
            let _ = pmi.write_all(format!("{line}\n").as_bytes()).await;
        }
    }

    fn trace(&self, rank: u32, side: char, line: &str) {
        if self.test.verbose >= 2 {
            eprintln!("{rank}: {side}: {line}");
        }
    }

    // --- ends ---

    fn exited(&mut self, rank: u32, status: std::io::Result<ExitStatus>) {
        let code = status.as_ref().map_or(1, |status| exit_code(*status));
        if let Ok(status) = &status {
            report(rank, *status);
        }
        if let Some(broker) = self.broker(rank) {
            broker.pid = None;
            broker.pmi = None;
            broker.exit_code = code;
            if let Some(reply) = broker.waiting.take() {
                reply.send(Ok(json!({ "exit_rc": code })));
            }
        }
        if self.test.exit_any {
            self.exit_code = self.exit_code.max(code);
            self.set_exit_timer();
        } else if rank == 0 {
            self.exit_code = code;
            self.set_exit_timer();
        }
        if rank == 0 && code != 0 && self.timer.is_some() {
            self.later(LEADER_GONE_GRACE, Event::LeaderGone);
        }
    }

    fn set_exit_timer(&mut self) {
        let Some(timeout) = self.test.exit_timeout else { return };
        if self.timer.is_some() || self.running() == 0 {
            return;
        }
        self.timer = Some(self.later(timeout, Event::ExitTimeout));
    }

    fn later(&self, wait: Duration, event: Event) -> tokio::task::JoinHandle<()> {
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
            let _ = events.send(event);
        })
    }

    fn signal_all(&self, signal: Signal) {
        for pid in self.brokers.iter().filter_map(|broker| broker.pid) {
            // One that has just exited is waited for already.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    // --- control ---

    fn control(&mut self, request: Request, reply: Reply) -> Result<(), Failure> {
        let rank = match request {
            Request::Status => {
                reply.send(Ok(self.status()));
                return Ok(());
            }
            Request::Kill { rank, .. } | Request::Wait { rank } | Request::Run { rank } => rank,
        };
        let Some(broker) = self.brokers.get_mut(rank as usize) else {
            reply.send(Err(Errno::ESRCH));
            return Ok(());
        };
        match request {
            Request::Status => {}
            Request::Kill { signum, .. } => reply.send(broker.kill(signum)),
            Request::Wait { .. } if broker.waiting.is_some() => reply.send(Err(Errno::EEXIST)),
            Request::Wait { .. } if broker.pid.is_none() => {
                reply.send(Ok(json!({ "exit_rc": broker.exit_code })));
            }
            Request::Wait { .. } => broker.waiting = Some(reply),
            Request::Run { .. } if broker.pid.is_some() => reply.send(Err(Errno::EEXIST)),
            Request::Run { .. } => {
                self.start(rank)?;
                reply.send(Ok(Value::Null));
            }
        }
        Ok(())
    }

    fn status(&self) -> Value {
        let procs: Vec<Value> =
            self.brokers.iter().map(|broker| json!({ "pid": broker.pid.unwrap_or(-1) })).collect();
        json!({ "procs": procs })
    }
}

impl Broker {
    /// Signalling a broker that does not run is no error.
    fn kill(&self, signum: i32) -> Result<Value, Errno> {
        let signal = Signal::try_from(signum).map_err(|_| Errno::EINVAL)?;
        if let Some(pid) = self.pid {
            kill(Pid::from_raw(pid), signal).map_err(|error| Errno(error as u32))?;
        }
        Ok(Value::Null)
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or(0),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn report(rank: u32, status: ExitStatus) {
    if let Some(signal) = status.signal() {
        let name = Signal::try_from(signal).map_or("unknown signal", Signal::as_str);
        eprintln!("flux-start: {rank} was ended by {name}");
    } else if let Some(code @ 1..) = status.code() {
        eprintln!("flux-start: {rank} exited with rc={code}");
    }
}
