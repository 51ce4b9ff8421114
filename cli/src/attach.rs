//! Attached to a job: its output, events and exceptions here, standard input and signals there.
//!
//! ```text
//! eventlog:   submit -> follow exec            exception, finish -> tell, and keep the exit code
//! exec:       shell.init -> follow output; attach to the terminal, or send standard input
//! end of all three, or the event that was waited for -> exit
//! ```

pub(crate) mod debugger;
mod input;
mod status;
mod terminal;

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::proctable::Row;
use flux_protocol::rpc::{job_info, job_manager};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::input::Input;
use self::status::StatusLine;
use self::terminal::Terminal;
use crate::failure::{Failure, Outcome};
use crate::job_output::Entry;
use crate::mpir;
use crate::signal::{self as signals, Ended};

/// Two interrupts within this time mean it.
const INTERRUPTS: Duration = Duration::from_secs(2);
/// How long a job whose input is refused may take to turn out to be over.
const GRACE: Duration = Duration::from_secs(3);
/// Signals that are passed on to the job.
const FORWARDED: [i32; 5] = [
    nix::libc::SIGTERM,
    nix::libc::SIGHUP,
    nix::libc::SIGALRM,
    nix::libc::SIGUSR1,
    nix::libc::SIGUSR2,
];

/// How to be attached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attach {
    pub label_io: bool,
    pub show_events: bool,
    pub show_exec: bool,
    /// Tell at once what a job waits for, rather than after a while on a terminal.
    pub show_status: bool,
    /// `clean` unless it says otherwise.
    pub wait_event: Option<String>,
    pub quiet: bool,
    pub verbose: bool,
    /// Neither input nor signals go to the job.
    pub read_only: bool,
    /// Tasks that standard input is for, all if not set.
    pub stdin_ranks: Option<String>,
    /// Of the output so far, only so many of the last entries.
    pub tail: Option<usize>,
    /// As if a debugger were there that wants no task to stay stopped.
    pub debug_emulate: bool,
}

/// What there is to listen to.
enum Heard {
    Events(Result<Option<String>, RpcError>),
    Exec(Result<Option<String>, RpcError>),
    Output(Result<Option<String>, RpcError>),
    /// The job's input has been refused, for other reasons than its end.
    Refused(RpcError),
    Terminal(terminal::Said),
    /// The processes that a debugger is to see.
    Processes(Result<Vec<Row>, Failure>),
    Signal(i32),
    /// The queue that the job waits in, when it is stopped.
    Queue(Option<String>),
}

/// Being attached.
struct Session<'a> {
    how: &'a Attach,
    flux: &'a Client,
    id: JobId,
    shown: &'a str,
    heard: mpsc::UnboundedSender<Heard>,
    /// Logs that are being read.
    open: usize,
    /// The event that was waited for has come.
    awaited: bool,
    zero: Option<f64>,
    exit_code: u8,
    fatal: bool,
    finished: bool,
    output_started: bool,
    interrupted: Option<Instant>,
    input: Option<Input>,
    /// The input was not taken; fatal unless the job turns out to be over.
    refused: Option<Instant>,
    terminal: Option<Terminal>,
    /// The terminal's output is in the log as well.
    captured: bool,
    /// Where the job's shell can be asked.
    shell: Option<(String, Nodeid)>,
    /// Tasks wait for a debugger.
    stopped: bool,
    status: StatusLine,
    /// The end of the output so far, until all of it has been seen.
    tail: Option<std::collections::VecDeque<(f64, Entry)>>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "type")]
    kind: String,
    severity: u32,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
struct Finish {
    status: i32,
}

/// What the job's shell says of itself.
#[derive(Deserialize)]
struct ShellInit {
    service: String,
    #[serde(rename = "leader-rank")]
    leader_rank: u32,
    pty: Option<String>,
    capture: Option<i64>,
}

#[derive(Default, Deserialize)]
struct ShellStart {
    /// Tasks are stopped, for a debugger to let them go.
    #[serde(default)]
    sync: bool,
}

/// Output of the execution system itself.
#[derive(Deserialize)]
struct ExecLog {
    rank: String,
    stream: String,
    component: String,
    data: String,
}

impl Attach {
    /// Until the end of the job; the exit code is the job's. `shown` is the id as the user has it.
    pub(crate) async fn run(&self, flux: &Client, id: JobId, shown: &str) -> Outcome {
        let outcome = self.attach(flux, id, shown).await;
        outcome.map_err(|failure| failure.prefix("flux-job"))
    }

    async fn attach(&self, flux: &Client, id: JobId, shown: &str) -> Outcome {
        let (sender, mut heard) = mpsc::unbounded_channel();
        let mut session = Session {
            how: self,
            flux,
            id,
            shown,
            heard: sender,
            open: 0,
            awaited: false,
            zero: None,
            exit_code: 1,
            fatal: false,
            finished: false,
            output_started: false,
            interrupted: None,
            input: None,
            refused: None,
            terminal: None,
            captured: false,
            shell: None,
            stopped: false,
            status: StatusLine::new(self.show_status, self.show_events),
            tail: self.tail.map(|_| std::collections::VecDeque::new()),
        };
        if mpir::is_debugged() {
            debugger::check(flux, id, shown).await?;
            mpir::name_job(id.0);
        }
        session.listen("eventlog", 0, Heard::Events)?;
        if !self.read_only {
            session.trap_signals()?;
        }
        while session.open > 0 {
            let now = Instant::now();
            if session.refused.is_some_and(|since| now.duration_since(since) > GRACE) {
                return Err(Failure::new("stdin not accepted by job"));
            }
            let tick = tokio::time::sleep(session.status.interval());
            tokio::select! {
                Some(heard) = heard.recv() => {
                    if let Some(code) = session.hear(heard)? {
                        return Ok(code);
                    }
                }
                () = tick => session.tick(),
            }
        }
        session.status.end();
        let code = session.exit_code;
        Ok(if session.fatal && code == 0 { 1 } else { code })
    }
}

// === impl Session ===

impl Session<'_> {
    /// Read a log of the job.
    fn listen(
        &mut self,
        path: &str,
        flags: u32,
        wrap: fn(Result<Option<String>, RpcError>) -> Heard,
    ) -> Result<(), Failure> {
        let request = job_info::EventlogWatchRequest {
            id: self.id,
            path: path.to_owned(),
            flags: i64::from(flags),
        };
        let mut stream = self.flux.stream::<job_info::EventlogWatch>(Nodeid::ANY, &request)?;
        let heard = self.heard.clone();
        self.open += 1;
        tokio::spawn(async move {
            loop {
                let said = stream.next().await.map(|said| said.map(|said| said.event));
                let is_last = !matches!(said, Ok(Some(_)));
                if heard.send(wrap(said)).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Something has happened; an exit code when that is the end.
    fn hear(&mut self, heard: Heard) -> Result<Option<u8>, Failure> {
        match heard {
            Heard::Events(_) if self.awaited => {}
            Heard::Events(Ok(Some(line))) => return self.event(&line),
            Heard::Exec(Ok(Some(line))) => self.exec_event(&line)?,
            Heard::Output(Ok(Some(line))) => self.output_entry(&line)?,
            Heard::Events(Ok(None)) | Heard::Exec(Ok(None)) | Heard::Output(Ok(None)) => {
                self.open -= 1;
            }
            Heard::Events(Err(error)) => return Err(self.no_job(&error)),
            Heard::Output(Err(error)) if error.errno() == Errno::ENOENT => {
                eprintln!("flux-job: No job output found");
                self.open -= 1;
            }
            // The job ended without a start.
            Heard::Exec(Err(error)) if error.errno() == Errno::ENOENT => self.open -= 1,
            Heard::Exec(Err(error)) | Heard::Output(Err(error)) => {
                return Err(Failure::of("flux_job_event_watch_get", error));
            }
            Heard::Refused(error) if error.errno() == Errno::ENOSYS => {
                if !self.finished {
                    self.refused = Some(Instant::now());
                }
            }
            Heard::Refused(error) => return Err(Failure::of("stdin", error)),
            Heard::Terminal(said) => return self.terminal_said(said),
            Heard::Processes(rows) => self.show_processes(&rows?)?,
            Heard::Signal(signum) => return self.signalled(signum),
            Heard::Queue(stopped) => self.status.queue(stopped),
        }
        Ok(None)
    }

    fn tick(&mut self) {
        self.status.draw(self.shown);
        if self.status.asks_for_queue() {
            let (flux, id, heard) = (self.flux.clone(), self.id, self.heard.clone());
            tokio::spawn(async move {
                // Who can't be told why the job waits sees at least that it does.
                if let Ok(stopped) = status::stopped_queue(&flux, id).await {
                    let _ = heard.send(Heard::Queue(stopped));
                }
            });
        }
    }

    fn no_job(&self, error: &RpcError) -> Failure {
        match error.errno() {
            Errno::ENOENT => {
                Failure::new(format_args!("Failed to attach to {}: No such job", self.shown))
            }
            Errno::EPERM => Failure::new(format_args!(
                "Failed to attach to {}: that is not your job",
                self.shown
            )),
            _ => Failure::of("flux_job_event_watch_get", error),
        }
    }

    fn since(&self, timestamp: f64) -> f64 {
        timestamp - self.zero.unwrap_or(timestamp)
    }

    fn event(&mut self, line: &str) -> Result<Option<u8>, Failure> {
        let event = Event::decode(line.trim_end()).map_err(Failure::new)?;
        self.zero.get_or_insert(event.timestamp);
        match event.name.as_str() {
            "submit" => self.listen("guest.exec.eventlog", 0, Heard::Exec)?,
            "exception" => self.exception(&event)?,
            "finish" => {
                let Finish { status } = event.context_as().map_err(Failure::new)?;
                self.finish(status);
            }
            _ => {}
        }
        if self.how.show_events && event.name != "exception" {
            self.show(&event, "job");
        }
        self.status.event(&event.name, self.fatal);
        self.status.draw_event(&event.name, self.shown);
        let awaited = self.how.wait_event.as_deref().unwrap_or("clean");
        if event.name != awaited {
            return Ok(None);
        }
        self.awaited = true;
        self.open -= 1;
        self.status.end();
        Ok(None)
    }

    fn exception(&mut self, event: &Event) -> Result<(), Failure> {
        let Exception { kind, severity, note } = event.context_as().map_err(Failure::new)?;
        self.status.clear();
        let since = self.since(event.timestamp);
        let id = self.shown;
        eprintln!("{since:.3}s: job.exception {id} type={kind} severity={severity} {note}");
        self.fatal = severity == 0;
        if self.fatal {
            // Nobody is left to take any.
            self.input = None;
            self.leave_terminal();
        }
        Ok(())
    }

    fn finish(&mut self, status: i32) {
        self.finished = true;
        self.refused = None;
        let ended = Ended::from_status(status);
        self.exit_code = ended.code();
        match ended {
            Ended::Exited(0) => {}
            Ended::Killed(signal) => {
                eprintln!("flux-job: job shell {}", signals::describe(signal));
            }
            Ended::Exited(code @ 129..) => {
                let signal = i32::from(code) - 128;
                eprintln!("flux-job: task(s) {}", signals::describe(signal));
            }
            Ended::Exited(code) => {
                eprintln!("flux-job: task(s) exited with exit code {code}");
            }
        }
        self.leave_terminal();
    }

    /// A terminal that has not been reached by now won't be.
    fn leave_terminal(&mut self) {
        self.terminal.take_if(|terminal| !terminal.is_attached());
    }

    fn exec_event(&mut self, line: &str) -> Result<(), Failure> {
        let event = Event::decode(line.trim_end()).map_err(Failure::new)?;
        match event.name.as_str() {
            "shell.init" => self.shell_init(event.context_as().map_err(Failure::new)?)?,
            "shell.start" => {
                if mpir::is_debugged() {
                    self.ask_processes(&event);
                }
                if let Some(input) = &mut self.input {
                    input.tasks_start(&event)?;
                }
            }
            "log" => {
                if let Ok(log) = event.context_as::<ExecLog>() {
                    let since = self.since(event.timestamp);
                    if !self.how.quiet {
                        eprint!("{since:.3}s: {}[{}]: {}: ", log.component, log.rank, log.stream);
                    }
                    eprint!("{}", log.data);
                }
            }
            // The shell may not have got as far as that.
            "complete" => self.follow_output()?,
            _ => {}
        }
        if self.how.show_exec && event.name != "log" {
            self.show(&event, "exec");
        }
        Ok(())
    }

    fn shell_init(&mut self, shell: ShellInit) -> Result<(), Failure> {
        self.captured = shell.capture.is_some_and(|capture| capture != 0);
        self.follow_output()?;
        let leader = Nodeid(shell.leader_rank);
        self.shell = Some((shell.service.clone(), leader));
        match shell.pty {
            Some(_) if self.how.read_only => {
                Err(Failure::new("Cannot connect to pty in readonly mode"))
            }
            Some(_) if self.finished => Ok(()),
            Some(name) => {
                let topic = format!("{}.{name}", shell.service);
                let heard = self.heard.clone();
                let tell = move |said| heard.send(Heard::Terminal(said)).is_ok();
                self.input = self.input(&shell.service, leader)?;
                self.terminal = Some(Terminal::attach(self.flux, topic, leader, tell)?);
                Ok(())
            }
            None => {
                self.input = self.input(&shell.service, leader)?;
                self.start_input();
                Ok(())
            }
        }
    }

    fn ask_processes(&mut self, start: &Event) {
        let Some((service, leader)) = self.shell.clone() else { return };
        let start: ShellStart = start.context_as().unwrap_or_default();
        self.stopped = start.sync;
        let (flux, heard) = (self.flux.clone(), self.heard.clone());
        tokio::spawn(async move {
            let rows = debugger::processes(&flux, &service, leader).await;
            // Who has gone does not care.
            let _ = heard.send(Heard::Processes(rows));
        });
    }

    /// Tasks that the debugger has not attached to by then are let go, too.
    fn show_processes(&self, rows: &[Row]) -> Result<(), Failure> {
        mpir::show(rows);
        if self.stopped || self.how.debug_emulate {
            self.kill(nix::libc::SIGCONT)?;
        }
        Ok(())
    }

    fn input(&self, service: &str, leader: Nodeid) -> Result<Option<Input>, Failure> {
        if self.how.read_only {
            return Ok(None);
        }
        let ranks = self.how.stdin_ranks.as_deref();
        Input::new(self.flux, service, leader, ranks).map(Some)
    }

    fn start_input(&mut self) {
        let heard = self.heard.clone();
        if let Some(input) = &mut self.input {
            // Who has gone does not care.
            input.start(move |error| drop(heard.send(Heard::Refused(error))));
        }
    }

    fn follow_output(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.output_started, true) {
            return Ok(());
        }
        let flags = if self.tail.is_some() { job_info::watch::SENTINEL } else { 0 };
        self.listen("guest.output", flags, Heard::Output)
    }

    fn output_entry(&mut self, line: &str) -> Result<(), Failure> {
        if line.trim().is_empty() {
            // All that there was.
            for (timestamp, entry) in self.tail.take().into_iter().flatten() {
                self.print(timestamp, entry)?;
            }
            return Ok(());
        }
        let event = Event::decode(line.trim_end()).map_err(Failure::new)?;
        let Some(entry) = Entry::decode(&event) else { return Ok(()) };
        match (&mut self.tail, &entry) {
            (Some(tail), Entry::Data(_) | Entry::Log(_)) => {
                tail.push_back((event.timestamp, entry));
                if tail.len() > self.how.tail.unwrap_or_default() {
                    tail.pop_front();
                }
                Ok(())
            }
            _ => self.print(event.timestamp, entry),
        }
    }

    fn print(&self, timestamp: f64, entry: Entry) -> Result<(), Failure> {
        let mut text = match entry {
            // What has come over the terminal has been seen.
            Entry::Data(data) if self.terminal.is_some() && self.captured && data.rank == "0" => {
                return Ok(());
            }
            Entry::Data(data) => {
                let stderr = data.stderr;
                let mut text = data.text(self.how.label_io);
                if self.terminal.is_some() && !text.is_empty() {
                    text.push(b'\r');
                }
                return print_data(&text, stderr);
            }
            Entry::Redirect(_) | Entry::Log(_) if self.how.quiet => return Ok(()),
            Entry::Redirect(redirect) => format!("{redirect}\n"),
            Entry::Log(log) => {
                format!("{:.3}s: {}\n", self.since(timestamp), log.text(self.how.verbose))
            }
        };
        if self.terminal.is_some() {
            text.push('\r');
        }
        eprint!("{text}");
        Ok(())
    }

    fn show(&self, event: &Event, prefix: &str) {
        let since = self.since(event.timestamp);
        match &event.context {
            Some(context) => eprintln!("{since:.3}s: {prefix}.{} {}", event.name, context.get()),
            None => eprintln!("{since:.3}s: {prefix}.{}", event.name),
        }
    }

    /// What comes from the job's terminal; an exit code when it has closed.
    fn terminal_said(&mut self, said: terminal::Said) -> Result<Option<u8>, Failure> {
        let Some(terminal) = &mut self.terminal else { return Ok(None) };
        match terminal.said(said)? {
            terminal::Outcome::Attached => Ok(None),
            terminal::Outcome::Unreachable => {
                self.terminal = None;
                self.start_input();
                Ok(None)
            }
            terminal::Outcome::Closed(status) => Ok(Some(u8::from(status != 0))),
        }
    }

    fn trap_signals(&self) -> Result<(), Failure> {
        let own = [nix::libc::SIGINT, nix::libc::SIGTSTP];
        for signum in own.into_iter().chain(FORWARDED) {
            if signum == nix::libc::SIGTSTP && !std::io::stdin().is_terminal() {
                continue;
            }
            let mut arrivals = signal(SignalKind::from_raw(signum)).map_err(Failure::new)?;
            let heard = self.heard.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() {
                    if heard.send(Heard::Signal(signum)).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(())
    }

    /// Interrupted once, one may think again; twice, the job is canceled.
    fn signalled(&mut self, signum: i32) -> Result<Option<u8>, Failure> {
        let recently = self.interrupted.is_some_and(|at| at.elapsed() <= INTERRUPTS);
        match signum {
            nix::libc::SIGINT if !recently => {
                self.interrupted = Some(Instant::now());
                eprintln!("flux-job: one more ctrl-C within 2s to cancel or ctrl-Z to detach");
            }
            nix::libc::SIGINT => {
                let request = job_manager::RaiseRequest {
                    id: self.id,
                    severity: 0,
                    kind: "cancel".to_owned(),
                    note: Some("interrupted by ctrl-C".to_owned()),
                    wait_status: None,
                };
                let answer = self.flux.start::<job_manager::Raise>(Nodeid::ANY, &request)?;
                complain("cancel", answer);
            }
            nix::libc::SIGTSTP if recently => {
                eprintln!("flux-job: detaching...");
                return Ok(Some(self.exit_code));
            }
            nix::libc::SIGTSTP => {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).map_err(Failure::new)?;
            }
            signum => self.kill(signum)?,
        }
        Ok(None)
    }

    fn kill(&self, signum: i32) -> Result<(), Failure> {
        let request = job_manager::KillRequest { id: self.id, signum: i64::from(signum) };
        let answer = self.flux.start::<job_manager::Kill>(Nodeid::ANY, &request)?;
        complain("kill", answer);
        Ok(())
    }
}

fn complain<T: Send + 'static>(what: &'static str, answer: flux_client::Pending<T>)
where
    flux_client::Pending<T>: Future<Output = Result<T, RpcError>>,
{
    tokio::spawn(async move {
        if let Err(error) = answer.await {
            eprintln!("flux-job: {what}: {error}");
        }
    });
}

fn print_data(text: &[u8], stderr: bool) -> Result<(), Failure> {
    if stderr {
        return std::io::stderr().write_all(text).map_err(|e| Failure::of("stderr", e));
    }
    crate::output::emit_bytes(text);
    crate::output::flush();
    Ok(())
}
