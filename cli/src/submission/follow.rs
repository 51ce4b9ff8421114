//! Following jobs to their end, or to the event that is waited for: `--wait`, `--watch`,
//! `--progress`, `-v`.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flux_client::{Client, RpcError, Stream};
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_info::{
    EventlogWatch, EventlogWatchCancel, EventlogWatchRequest, EventlogWatchResponse,
};
use serde::Deserialize;

use super::progress::{Counts, Progress};
use crate::job_output::Entry;
use crate::jobid;
use crate::signal::Ended;

/// How often the progress bar is drawn anew while much happens.
const REDRAW: Duration = Duration::from_millis(100);

/// Where messages go.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    Stdout,
    Stderr,
    File(Arc<Mutex<std::fs::File>>),
}

/// What to show of the jobs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show {
    pub output: bool,
    pub label: bool,
    /// How a job has ended.
    pub status: bool,
    pub events: bool,
}

/// All jobs that are followed.
#[derive(Debug)]
pub(crate) struct Followed {
    flux: Client,
    show: Show,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of the first event.
    zero: Option<f64>,
    code: u8,
    counts: Counts,
    progress: Option<Progress>,
    drawn: Instant,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Job {
    pub id: JobId,
    pub out: Sink,
    pub err: Sink,
    pub wait: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pending,
    Running,
    Ended,
}

/// The logs of a job that are being read.
struct Logs {
    events: Option<Stream<EventlogWatchResponse>>,
    exec: Option<Stream<EventlogWatchResponse>>,
    output: Option<Stream<EventlogWatchResponse>>,
}

/// What a log says next; nothing at its end.
enum Said {
    Event(Option<Event>),
    Exec(Option<Event>),
    Output(Option<Event>),
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

// === impl Sink ===

impl Sink {
    pub(crate) fn print(&self, text: &[u8]) {
        // Who does not read does not need it.
        let _ = match self {
            Sink::Stdout => {
                crate::output::emit_bytes(text);
                crate::output::flush();
                Ok(())
            }
            Sink::Stderr => std::io::stderr().lock().write_all(text),
            Sink::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write_all(text),
        };
    }

    pub(crate) fn line(&self, text: &str) {
        self.print(format!("{text}\n").as_bytes());
    }
}

// === impl Followed ===

impl Followed {
    pub(crate) fn new(flux: Client, show: Show, progress: Option<Progress>) -> Followed {
        let state = State {
            zero: None,
            code: 0,
            counts: Counts::default(),
            progress,
            drawn: Instant::now(),
        };
        Followed { flux, show, state: Mutex::new(state) }
    }

    /// A job that is going to be followed.
    pub(crate) fn expect(&self) {
        self.update(|counts| {
            counts.total += 1;
            counts.pending += 1;
        });
        // There is a bar as soon as there is a job.
        let mut state = self.lock();
        if state.counts.total == 1 {
            state.draw();
        }
    }

    /// The exit code for all of them; the progress bar is left as it is.
    pub(crate) fn finish(&self) -> u8 {
        let mut state = self.lock();
        let counts = state.counts;
        if let Some(progress) = state.progress.take() {
            progress.finish(&counts);
        }
        state.code
    }

    /// Follow a job until there is nothing more to say.
    pub(crate) async fn follow(self: Arc<Self>, job: Job) {
        let mut logs = Logs { events: self.watch(job.id, "eventlog"), exec: None, output: None };
        let mut phase = Phase::Pending;
        let mut started = false;
        while let Some(said) = logs.next().await {
            match said {
                Said::Event(None) => {
                    if logs.events.take().is_some() {
                        self.update(|counts| counts.done += 1);
                    }
                }
                Said::Event(Some(event)) => {
                    self.event(&job, &event, &mut phase, started);
                    let wants_exec = job.wait.as_deref().is_some_and(|w| w.starts_with("exec."));
                    if event.name == "start" {
                        started = true;
                        if self.show.output || wants_exec {
                            logs.exec = self.watch(job.id, "guest.exec.eventlog");
                        }
                    }
                    if job.wait.as_deref() == Some(event.name.as_str()) {
                        stop(logs.events.take());
                        self.update(|counts| counts.done += 1);
                    }
                }
                Said::Exec(None) => logs.exec = None,
                Said::Exec(Some(event)) => self.exec_event(&job, &event, &mut logs),
                Said::Output(None) => logs.output = None,
                Said::Output(Some(event)) => self.output_event(&job, &event),
            }
        }
    }

    fn watch(&self, id: JobId, path: &str) -> Option<Stream<EventlogWatchResponse>> {
        let request = EventlogWatchRequest { id, path: path.to_owned(), flags: 0 };
        self.flux.stream::<EventlogWatch>(Nodeid::ANY, &request).ok()
    }

    fn event(&self, job: &Job, event: &Event, phase: &mut Phase, started: bool) {
        self.note_time(event.timestamp);
        self.show_event(job, event, "");
        match event.name.as_str() {
            "alloc" if *phase == Phase::Pending => {
                *phase = Phase::Running;
                self.update(|counts| {
                    counts.pending -= 1;
                    counts.running += 1;
                });
            }
            "exception" => {
                let Ok(exception) = event.context_as::<Exception>() else { return };
                let Exception { kind, severity, note } = exception;
                if severity != 0 {
                    return;
                }
                if !started {
                    self.raise_code(1);
                }
                let note = if note.is_empty() { String::new() } else { format!(" {note}") };
                job.err.line(&format!("job.exception: type={kind} severity={severity}{note}"));
                if *phase == Phase::Pending {
                    *phase = Phase::Ended;
                    self.update(|counts| {
                        counts.pending -= 1;
                        counts.failed += 1;
                    });
                }
            }
            "finish" => {
                let Ok(Finish { status }) = event.context_as() else { return };
                self.raise_code(Ended::from_status(status).code());
                let good = status == 0;
                if *phase == Phase::Running {
                    *phase = Phase::Ended;
                    self.update(|counts| {
                        counts.running -= 1;
                        *(if good { &mut counts.complete } else { &mut counts.failed }) += 1;
                    });
                }
                if self.show.status {
                    let word = if good { "complete" } else { "failed" };
                    self.stamped(job, event.timestamp, &format!("{word}: status={status}"));
                }
            }
            _ => {}
        }
    }

    fn exec_event(&self, job: &Job, event: &Event, logs: &mut Logs) {
        self.show_event(job, event, "exec.");
        let awaited = job.wait.as_deref().and_then(|wait| wait.strip_prefix("exec."));
        if self.show.output && event.name == "shell.init" {
            // From here on it is sure to exist.
            logs.output = self.watch(job.id, "guest.output");
            if awaited.is_none() {
                stop(logs.exec.take());
            }
        }
        if awaited == Some(event.name.as_str()) {
            stop(logs.exec.take());
            if let Some(events) = logs.events.take() {
                stop(Some(events));
                self.update(|counts| counts.done += 1);
            }
        }
    }

    fn output_event(&self, job: &Job, event: &Event) {
        let (sink, text) = match Entry::decode(event) {
            None => return,
            Some(Entry::Data(data)) => {
                let sink = if data.stderr { &job.err } else { &job.out };
                (sink, data.text(self.show.label))
            }
            Some(Entry::Redirect(redirect)) => (&job.err, format!("{redirect}\n").into_bytes()),
            Some(Entry::Log(log)) => (&job.err, format!("{}\n", log.text(false)).into_bytes()),
        };
        if !self.show.label {
            sink.print(&text);
            return;
        }
        let mut labelled = Vec::with_capacity(text.len() + 32);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            labelled.extend_from_slice(format!("{}: ", jobid::f58(job.id)).as_bytes());
            labelled.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                labelled.push(b'\n');
            }
        }
        sink.print(&labelled);
    }

    fn show_event(&self, job: &Job, event: &Event, prefix: &str) {
        if self.show.events {
            let context = event.context.as_ref().map_or("", |context| context.get());
            self.stamped(job, event.timestamp, &format!("{prefix}{} {context}", event.name));
        }
    }

    fn stamped(&self, job: &Job, timestamp: f64, text: &str) {
        let since = timestamp - self.lock().zero.unwrap_or(timestamp);
        job.err.line(&format!("{}: {since:.3}s: {text}", jobid::f58(job.id)));
    }

    fn note_time(&self, timestamp: f64) {
        let mut state = self.lock();
        state.zero = Some(state.zero.map_or(timestamp, |zero| zero.min(timestamp)));
    }

    fn raise_code(&self, code: u8) {
        let mut state = self.lock();
        state.code = state.code.max(code);
    }

    fn update(&self, change: impl FnOnce(&mut Counts)) {
        let mut state = self.lock();
        change(&mut state.counts);
        if state.drawn.elapsed() >= REDRAW {
            state.draw();
        }
    }

    pub(crate) fn draw(&self) {
        self.lock().draw();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn draw(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.draw(&self.counts);
            self.drawn = Instant::now();
        }
    }
}

// === impl Logs ===

impl Logs {
    /// Nothing when no log is left.
    async fn next(&mut self) -> Option<Said> {
        if self.events.is_none() && self.exec.is_none() && self.output.is_none() {
            return None;
        }
        tokio::select! {
            biased;
            event = next(&mut self.events) => Some(Said::Event(event)),
            event = next(&mut self.exec) => Some(Said::Exec(event)),
            event = next(&mut self.output) => Some(Said::Output(event)),
        }
    }
}

/// The next event of a log that is read; its end is also the end of what can be read of it.
async fn next(stream: &mut Option<Stream<EventlogWatchResponse>>) -> Option<Event> {
    let Some(stream) = stream else { return std::future::pending().await };
    loop {
        let response: Result<Option<EventlogWatchResponse>, RpcError> = stream.next().await;
        let Ok(Some(response)) = response else { return None };
        if let Ok(event) = Event::decode(response.event.trim_end()) {
            return Some(event);
        }
    }
}

fn stop(stream: Option<Stream<EventlogWatchResponse>>) {
    if let Some(stream) = stream {
        // The service ends it anyway when the job or this process does.
        let _ = stream.cancel::<EventlogWatchCancel>();
    }
}
