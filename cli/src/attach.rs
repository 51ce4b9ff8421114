//! Attached to a job: its output, events and exceptions here, standard input and signals there.
//!
//! ```text
//! eventlog:   submit -> follow exec            exception, finish -> tell, and keep the exit code
//! exec:       shell.init -> follow output; attach to the terminal, or send standard input
//! end of all three, or the event that was waited for -> exit
//! ```

pub(crate) mod debugger;
mod input;
mod output;
mod shell;
mod signals;
mod status;
pub(crate) mod terminal;

use std::time::{Duration, Instant};

use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::proctable::Row;
use flux_protocol::rpc::job_info;
use serde::Deserialize;
use tokio::sync::mpsc;

use self::input::Input;
use self::status::StatusLine;
use self::terminal::Terminal;
use crate::failure::{Failure, Outcome};
use crate::job_output::Entry;
use crate::mpir;
use crate::signal::{Ended, describe};
use crate::when;

/// How long a job whose input is refused may take to turn out to be over.
const GRACE: Duration = Duration::from_secs(3);
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
    pub verbose: u8,
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
    /// When this began, and whether the job had ended by then.
    since: f64,
    was_over: bool,
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
            since: when::now(),
            was_over: false,
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
            if self.verbose > 1 {
                crate::errln!("flux-job: totalview_jobid={}", id.0);
            }
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
                crate::errln!("flux-job: No job output found");
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
                self.was_over = event.timestamp < self.since;
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
        crate::errln!("{since:.3}s: job.exception {id} type={kind} severity={severity} {note}");
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
                crate::errln!("flux-job: job shell {}", describe(signal));
            }
            Ended::Exited(code @ 129..) => {
                let signal = i32::from(code) - 128;
                crate::errln!("flux-job: task(s) {}", describe(signal));
            }
            Ended::Exited(code) => {
                crate::errln!("flux-job: task(s) exited with exit code {code}");
            }
        }
        if let Some(terminal) = self.terminal.take_if(|terminal| terminal.is_attached()) {
            // The shell has ended without closing it.
            terminal.disappeared();
        }
        self.leave_terminal();
    }

    /// A terminal that has not been reached by now won't be.
    fn leave_terminal(&mut self) {
        self.terminal.take_if(|terminal| !terminal.is_attached());
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
}
