//! Processes in the foreground: their output as it comes, our input and signals to them.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::{Duration, Instant};

use flux_client::{Client, Request, RpcError, Stream};
use flux_protocol::errno::Errno;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::rexec::{
    self, AttachRequest, ExecRequest, ExecResponse, Io, KillRequest, WriteRequest,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{Exec, Plan, Process, input};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::signal::{Ended, describe};

/// A second interrupt within this time is the last one.
const INTERRUPT_WINDOW: Duration = Duration::from_secs(1);
/// As sysexits(3) has it: host name unknown.
const EX_NOHOST: u8 = 68;
/// The IMP takes SIGUSR1 for SIGKILL (RFC 15).
const SIGKILL: i32 = 9;
const SIGUSR1: i32 = 10;

pub(super) struct Run<'a> {
    flux: Client,
    options: &'a Exec,
    service: String,
    /// What is run, as messages call it.
    name: String,
    attach: Option<Process>,
    flow: bool,
    uses_imp: bool,
    processes: BTreeMap<u32, Remote>,
    answers: mpsc::Receiver<(u32, Answer)>,
    /// By what is said of the end, the ranks of which it is said; in order of appearance.
    ends: Vec<(String, Idset)>,
    code: u8,
    interrupts: u32,
    last_interrupt: Option<Instant>,
    start: Instant,
}

type Answer = Result<Option<ExecResponse>, RpcError>;

/// One process.
struct Remote {
    matchtag: u32,
    pid: Option<i64>,
    /// Bytes that may be written to it.
    credit: u64,
    state: State,
    /// Output without the end of its line, where lines are labelled.
    partial: HashMap<String, Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum State {
    Starting,
    Running,
    Exited,
    /// And nothing more will come from it.
    Done,
}

impl<'a> Run<'a> {
    pub(super) fn start(flux: &Client, options: &'a Exec, plan: Plan) -> Result<Run<'a>, Failure> {
        let start = Instant::now();
        let name = match &plan.attach {
            Some(Process::Pid(pid)) => format!("pid {pid}"),
            Some(Process::Label(label)) => format!("label {label}"),
            None => plan.command.cmdline.first().cloned().unwrap_or_default(),
        };
        if options.verbose {
            let ms = start.elapsed().as_secs_f64() * 1e3;
            eprintln!("{ms:.6}ms: Starting {name} on {}", brackets(&plan.targets));
        }
        let (sink, answers) = mpsc::channel(64);
        let mut processes = BTreeMap::new();
        for rank in plan.targets.iter() {
            let request = request(&plan, rank)?.service(&plan.service);
            let stream = flux.stream_raw(request)?.decode::<ExecResponse>();
            let matchtag = stream.matchtag().0;
            tokio::spawn(forward(rank, stream, sink.clone()));
            let remote = Remote {
                matchtag,
                pid: None,
                credit: 0,
                state: State::Starting,
                partial: HashMap::new(),
            };
            processes.insert(rank, remote);
        }
        if options.verbose {
            let ms = start.elapsed().as_secs_f64() * 1e3;
            eprintln!("{ms:.6}ms: Sent all requests");
        }
        Ok(Run {
            flux: flux.clone(),
            options,
            service: plan.service,
            uses_imp: options.with_imp || name.rsplit('/').next() == Some("flux-imp"),
            name,
            attach: plan.attach,
            flow: plan.flow,
            processes,
            answers,
            ends: Vec::new(),
            code: 0,
            interrupts: 0,
            last_interrupt: None,
            start,
        })
    }

    /// Until nothing more comes from any process.
    pub(super) async fn finish(mut self) -> Outcome {
        let mut interrupts = catch(SignalKind::interrupt())?;
        let mut terminations = catch(SignalKind::terminate())?;
        let mut chunks = (!self.options.noinput).then(input::stdin);
        // Input that is still to be written.
        let mut chunk: Option<Vec<u8>> = None;
        if self.options.noinput {
            self.write(&[])?;
        }
        while self.processes.values().any(|process| process.state != State::Done) {
            if let Some(bytes) = chunk.take() {
                chunk = self.write_some(bytes)?;
            }
            tokio::select! {
                Some((rank, answer)) = self.answers.recv() => self.answer(rank, answer),
                _ = interrupts.recv() => {
                    if let Some(code) = self.interrupt()? {
                        return Ok(code);
                    }
                }
                _ = terminations.recv() => self.kill_all(SignalKind::terminate().as_raw_value())?,
                Some(bytes) = next_chunk(&mut chunks), if chunk.is_none() && self.takes_input() => {
                    if bytes.is_empty() {
                        self.write(&[])?;
                        chunks = None;
                    } else {
                        chunk = Some(bytes);
                    }
                }
            }
        }
        if self.options.verbose {
            let ms = self.start.elapsed().as_secs_f64() * 1e3;
            let count = self.processes.len();
            eprintln!("{ms:.6}ms: {count} tasks complete with code {}", self.code);
        }
        if !self.options.quiet {
            for (text, ranks) in &self.ends {
                eprintln!("{}: {text}", brackets(ranks));
            }
        }
        Ok(self.code)
    }

    fn answer(&mut self, rank: u32, answer: Answer) {
        let Some(process) = self.processes.get_mut(&rank) else { return };
        match answer {
            Ok(Some(ExecResponse::Started { pid } | ExecResponse::Attached { pid, .. })) => {
                process.pid = Some(pid);
                process.state = State::Running;
            }
            Ok(Some(ExecResponse::AddCredit { channels })) => {
                process.credit += channels.get("stdin").copied().unwrap_or(0);
            }
            Ok(Some(ExecResponse::Output { io, .. })) => self.output(rank, &io),
            Ok(Some(ExecResponse::Stopped)) => {}
            Ok(Some(ExecResponse::Finished { status })) => {
                process.state = State::Exited;
                self.ended(rank, Ended::from_status(status));
            }
            Ok(None) => process.state = State::Done,
            Err(e) => {
                process.state = State::Done;
                eprintln!("flux-exec: Error: rank {rank}: {}: {e}", self.name);
                let code = match e.errno() {
                    Errno::EPERM | Errno::EACCES => 126,
                    Errno::ENOENT => 127,
                    Errno::EHOSTUNREACH => EX_NOHOST,
                    _ => 1,
                };
                self.code = self.code.max(code);
            }
        }
    }

    fn ended(&mut self, rank: u32, ended: Ended) {
        let code = ended.code();
        self.code = self.code.max(code);
        if code == 0 {
            return;
        }
        let text = match ended {
            Ended::Exited(code) => format!("Exit {code}"),
            Ended::Killed(signal) => describe(signal),
        };
        match self.ends.iter_mut().find(|(other, _)| *other == text) {
            Some((_, ranks)) => {
                ranks.insert(rank);
            }
            None => self.ends.push((text, Idset::from_range(rank, rank))),
        }
    }

    fn output(&mut self, rank: u32, io: &Io) {
        let bytes = input::bytes(io);
        let to_stderr = io.stream == "stderr";
        let Some(process) = self.processes.get_mut(&rank).filter(|_| self.options.label_io) else {
            emit(to_stderr, &bytes);
            return;
        };
        let partial = process.partial.entry(io.stream.clone()).or_default();
        partial.extend(bytes);
        let mut end = partial.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if io.eof {
            end = partial.len();
        }
        let whole: Vec<u8> = partial.drain(..end).collect();
        for line in whole.split_inclusive(|&byte| byte == b'\n') {
            let mut labelled = format!("{rank}: ").into_bytes();
            labelled.extend(line);
            emit(to_stderr, &labelled);
        }
    }

    /// Input goes to all processes alike, so it waits for the slowest.
    fn takes_input(&self) -> bool {
        let mut waiting = self.processes.values();
        let started = waiting.all(|process| process.state != State::Starting);
        started && self.credit() > 0
    }

    fn credit(&self) -> u64 {
        let running = self.processes.values().filter(|process| process.state == State::Running);
        let least = running.map(|process| if self.flow { process.credit } else { u64::MAX }).min();
        least.unwrap_or(0)
    }

    /// Write as much as all processes take; returns the rest.
    fn write_some(&mut self, mut bytes: Vec<u8>) -> Result<Option<Vec<u8>>, Failure> {
        let size = usize::try_from(self.credit()).unwrap_or(usize::MAX).min(bytes.len());
        if size == 0 {
            // Processes that are gone take nothing any more.
            let any = self.processes.values().any(|process| process.state < State::Exited);
            return Ok(any.then_some(bytes));
        }
        let rest = bytes.split_off(size);
        self.write(&bytes)?;
        Ok(Some(rest).filter(|rest| !rest.is_empty()))
    }

    /// Write to all processes; no bytes end their input.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for (rank, process) in &mut self.processes {
            // The end is told even to those that do not read any more, as long as they can hear it.
            let last = if bytes.is_empty() { State::Done } else { State::Exited };
            if process.state >= last {
                continue;
            }
            process.credit = process.credit.saturating_sub(bytes.len() as u64);
            let request = WriteRequest { matchtag: process.matchtag, io: input::io(bytes) };
            let request = Request::of::<rexec::Write>(Nodeid(*rank), &request)?;
            self.flux.notify_raw(request.service(&self.service))?;
        }
        Ok(())
    }

    /// Returns the exit code where this interrupt was the last one.
    fn interrupt(&mut self) -> Result<Option<u8>, Failure> {
        if let Some(process) = &self.attach {
            let name = match process {
                Process::Pid(pid) => pid.to_string(),
                Process::Label(label) => label.clone(),
            };
            eprintln!("detached; use 'flux sproc kill {name}' to signal it");
            return Ok(Some(0));
        }
        let recent = self.last_interrupt.is_some_and(|last| last.elapsed() < INTERRUPT_WINDOW);
        if self.interrupts >= 2 && recent {
            let mut hanging = Idset::new();
            for (rank, process) in &self.processes {
                if process.state < State::Exited {
                    hanging.insert(*rank);
                }
            }
            eprintln!("{}: command still running at exit", brackets(&hanging));
            return Ok(Some(1));
        }
        self.kill_all(SignalKind::interrupt().as_raw_value())?;
        if self.interrupts > 0 {
            let seconds = INTERRUPT_WINDOW.as_secs_f64();
            eprintln!("interrupt (Ctrl+C) one more time within {seconds:.2} sec to exit");
        }
        self.last_interrupt = Some(Instant::now());
        self.interrupts += 1;
        Ok(None)
    }

    fn kill_all(&self, signum: i32) -> Result<(), Failure> {
        let running: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, process)| process.state == State::Running)
            .filter_map(|(rank, process)| Some((*rank, process.pid?)))
            .collect();
        if self.options.verbose {
            eprintln!("sending signal {signum} to {} running processes", running.len());
        }
        let signum = if self.uses_imp && signum == SIGKILL { SIGUSR1 } else { signum };
        for (rank, pid) in running {
            let request = KillRequest { pid, label: None, signum };
            let request = Request::of::<rexec::Kill>(Nodeid(rank), &request)?;
            // Processes that have just ended can't be signalled, and that is fine.
            drop(self.flux.start_raw(request.service(&self.service))?);
        }
        Ok(())
    }
}

fn request(plan: &Plan, rank: u32) -> Result<Request, Failure> {
    let flags = plan.exec_flags();
    let request = match &plan.attach {
        None => {
            let request = ExecRequest { cmd: plan.command.clone(), flags, local_flags: 0 };
            Request::of::<rexec::Exec>(Nodeid(rank), &request)
        }
        Some(process) => {
            let (pid, label) = match process {
                Process::Pid(pid) => (*pid, None),
                Process::Label(label) => (-1, Some(label.clone())),
            };
            let request = AttachRequest { pid, flags, label };
            Request::of::<rexec::Attach>(Nodeid(rank), &request)
        }
    };
    Ok(request?)
}

async fn forward(rank: u32, mut stream: Stream<ExecResponse>, sink: mpsc::Sender<(u32, Answer)>) {
    loop {
        let answer = stream.next().await;
        let last = !matches!(answer, Ok(Some(_)));
        if sink.send((rank, answer)).await.is_err() || last {
            return;
        }
    }
}

async fn next_chunk(chunks: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match chunks {
        Some(chunks) => chunks.recv().await,
        None => std::future::pending().await,
    }
}

fn catch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|e| Failure::of("signal", e))
}

fn emit(to_stderr: bool, bytes: &[u8]) {
    if to_stderr {
        // Where standard error is gone there is nobody to tell.
        let _ = std::io::stderr().lock().write_all(bytes);
    } else {
        output::emit_bytes(bytes);
        output::flush();
    }
}

fn brackets(ids: &Idset) -> String {
    if ids.count() > 1 { format!("[{ids}]") } else { ids.to_string() }
}
