//! One line that tells what a job waits for, and for how long.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use flux_client::{Client, RpcError};
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::{job_list, job_manager};
use serde_json::Value;

/// A job that starts soon needs no such line.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the queue is asked for.
const QUEUE_PACE: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
/// Of what is not the text: names, and the time.
const AROUND: usize = 20;

/// The queue that a job is in, when it is stopped; the one without a name is the default queue.
pub(super) async fn stopped_queue(flux: &Client, id: JobId) -> Result<Option<String>, RpcError> {
    let request = job_list::ListIdRequest { id, attrs: vec!["queue".to_owned()], state: None };
    let job = flux.rpc::<job_list::ListId>(Nodeid::ANY, &request).await?.job;
    let name = job.get("queue").and_then(Value::as_str).map(str::to_owned);
    let request = job_manager::QueueStatusRequest { name: name.clone() };
    let queue = flux.rpc::<job_manager::QueueStatus>(Nodeid::ANY, &request).await?;
    Ok((!queue.start).then(|| name.unwrap_or_else(|| "default".to_owned())))
}

#[derive(Debug)]
pub(super) struct StatusLine {
    start: Instant,
    /// Whether one is wanted at all.
    active: bool,
    /// Drawn at once.
    eager: bool,
    drawn: bool,
    text: &'static str,
    prologs: u32,
    /// The queue that the job waits in, when it is stopped.
    stopped_queue: Option<String>,
    /// When the broker was asked for that.
    asked: Option<Instant>,
}

const WAITING: &str = "waiting for resources";

impl StatusLine {
    /// Wanted explicitly, or where people look on.
    pub(super) fn new(wanted: bool, shows_events: bool) -> StatusLine {
        let tty = std::io::stdin().is_terminal()
            && std::io::stdout().is_terminal()
            && std::io::stderr().is_terminal();
        let allowed = std::env::var_os("FLUX_ATTACH_NONINTERACTIVE").is_none();
        StatusLine {
            start: Instant::now(),
            active: allowed && (wanted || (tty && !shows_events)),
            eager: wanted,
            drawn: false,
            text: "",
            prologs: 0,
            stopped_queue: None,
            asked: None,
        }
    }

    /// How long until it may be drawn again.
    pub(super) fn interval(&self) -> Duration {
        match self.active && !self.drawn && !self.eager {
            true => PATIENCE.saturating_sub(self.start.elapsed()).max(Duration::from_millis(10)),
            false => SECOND,
        }
    }

    pub(super) fn event(&mut self, name: &str, fatal: bool) {
        if name == "jobspec-update" {
            // It may be in another queue now.
            (self.asked, self.stopped_queue) = (None, None);
        }
        self.text = match name {
            _ if fatal => "canceling due to exception",
            "submit" => "submitted",
            "validate" => "resolving dependencies",
            "depend" => "waiting for priority assignment",
            "priority" => WAITING,
            "alloc" => "starting",
            "prolog-start" => {
                self.prologs += 1;
                "waiting for prolog"
            }
            "prolog-finish" => {
                self.prologs = self.prologs.saturating_sub(1);
                if self.prologs > 0 { "waiting for prolog" } else { "starting" }
            }
            "start" => "started",
            _ => self.text,
        };
    }

    /// Whether it is time to ask how the job's queue does: many may wait like this one, and all
    /// of them ask the same broker.
    pub(super) fn asks_for_queue(&mut self) -> bool {
        let is_due = self.asked.is_none_or(|asked| asked.elapsed() >= QUEUE_PACE);
        let asks = self.active && self.text == WAITING && is_due;
        if asks {
            self.asked = Some(Instant::now());
        }
        asks
    }

    pub(super) fn queue(&mut self, stopped: Option<String>) {
        self.stopped_queue = stopped;
    }

    /// Draw what an event has changed, where each change is wanted.
    pub(super) fn draw_event(&mut self, name: &str, id: &str) {
        if self.eager {
            self.draw(id);
        }
        if matches!(name, "start" | "clean") {
            self.end();
        }
    }

    pub(super) fn draw(&mut self, id: &str) {
        if !self.active || (!self.eager && self.start.elapsed() < PATIENCE) {
            return;
        }
        let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
        let width = width.saturating_sub(AROUND + id.len());
        let seconds = self.start.elapsed().as_secs();
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let text = match (&self.stopped_queue, self.text) {
            (Some(queue), WAITING) => format!("{WAITING} ({queue} queue stopped)"),
            (_, text) => text.to_owned(),
        };
        crate::err!("\rflux-job: {id} {text:<width$} {hours:02}:{minutes:02}:{seconds:02}\r");
        self.drawn = true;
    }

    /// Make room for something else.
    pub(super) fn clear(&self) {
        if self.drawn && self.active {
            crate::err!("\r\x1b[K");
        }
    }

    pub(super) fn end(&mut self) {
        if self.drawn && self.active {
            crate::errln!();
        }
        self.active = false;
    }
}
