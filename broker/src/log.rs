//! The broker's log: levels, the circular buffer, and where lines go.
//!
//! Lines are kept and sent in the form of [`flux_protocol::stdlog`]. Every broker keeps its own;
//! those up to `log-forward-level` go on to rank 0, which keeps, shows and files the whole
//! instance's.

mod outlet;
mod ring;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::text_payload;
use flux_protocol::stdlog::Line;
pub use flux_protocol::stdlog::Severity;
use outlet::{LogFile, Style, Syslog};
use ring::Ring;
use tokio::sync::{Notify, mpsc};

use crate::attrs::{Access, Attrs};

/// A longer text is cut: a single line must not push all others out of memory.
const TEXT_MAX: usize = 64 << 10;
/// Lines that wait for the way to rank 0; beyond that the oldest are lost.
const UNSENT_MAX: usize = 1024;

/// One line, for those who follow the log in this process.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub severity: Severity,
    /// `broker.info[0]: TEXT` with a newline, as commands show it.
    line: String,
}

/// Shared by all services of a broker.
pub struct Logger {
    rank: u32,
    settings: Cell<Settings>,
    ring: RefCell<Ring>,
    outlets: RefCell<Outlets>,
    /// What could not be opened at the start, and why.
    unopened: RefCell<Option<(String, std::io::Error)>>,
    counts: Cell<Counts>,
    subscribers: RefCell<Vec<mpsc::UnboundedSender<Record>>>,
    /// Told of every line.
    appended: Notify,
    forward: RefCell<Option<Forward>>,
    unsent: RefCell<VecDeque<Bytes>>,
}

/// Sends a line upstream; false when there is no way now.
type Forward = Box<dyn Fn(Bytes) -> bool>;

/// What the `log-*` attributes say; a level below 0 matches nothing.
#[derive(Debug, Clone, Copy)]
struct Settings {
    ring_size: usize,
    level: i32,
    forward_level: i32,
    stderr_level: i32,
    critical_level: i32,
    syslog_level: i32,
    /// Each broker writes its own lines to its standard error, not rank 0 those of all.
    local_stderr: bool,
    journal: bool,
}

/// `log.stats-get`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Lines that came into the buffer.
    pub kept: u64,
    pub local: u64,
    pub remote: u64,
}

#[derive(Debug, Default)]
struct Outlets {
    file: Option<(String, LogFile)>,
    syslog: Option<Syslog>,
}

// === impl Record ===

impl Record {
    fn of(line: &Line<'_>) -> Record {
        Record { severity: line.severity, line: outlet::plain(line) + "\n" }
    }

    pub fn line(&self) -> String {
        self.line.clone()
    }
}

// === impl Settings ===

const DEFAULTS: [(&str, &str); 8] = [
    ("log-ring-size", "1024"),
    ("log-level", "7"),
    ("log-forward-level", "7"),
    ("log-stderr-level", "3"),
    ("log-critical-level", "2"),
    ("log-stderr-mode", "leader"),
    ("log-syslog-enable", "0"),
    ("log-syslog-level", "3"),
];

impl Settings {
    /// What is not a number counts as 0, as everywhere in Flux where such an attribute is set at
    /// run time.
    fn from_attrs(attrs: &Attrs) -> Settings {
        let level = |name: &str| attrs.parse(name).unwrap_or(0);
        Settings {
            ring_size: attrs.parse("log-ring-size").unwrap_or(0),
            level: level("log-level"),
            forward_level: level("log-forward-level"),
            stderr_level: level("log-stderr-level"),
            critical_level: level("log-critical-level"),
            syslog_level: level("log-syslog-level"),
            local_stderr: attrs.get("log-stderr-mode").as_deref() == Some("local"),
            journal: std::env::var_os("JOURNAL_STREAM").is_some(),
        }
    }

    fn stderr_style(self) -> Style {
        match (self.local_stderr, self.journal) {
            (true, true) => Style::Journal,
            (true, false) => Style::Plain,
            (false, _) => Style::Timed,
        }
    }
}

fn is_level(value: &str) -> bool {
    value.parse::<i32>().is_ok_and(|level| level <= 7)
}

/// A level that is set at run time: beyond 7 there is none. EINVAL says so.
pub fn check_level(name: &str, value: &str) -> Result<(), Failure> {
    let level = name.starts_with("log-") && name.ends_with("-level");
    match value.parse::<i64>() {
        Ok(number) if level && number > 7 => Err(Failure::new(Errno::EINVAL, "invalid level")),
        _ => Ok(()),
    }
}

/// Check the `log-*` attributes of the command line. EINVAL names the attribute.
pub fn check_attrs(attrs: &Attrs) -> Result<(), Failure> {
    let bad = |name: &str, why: &str| Failure::new(Errno::EINVAL, format!("{name}: {why}"));
    for (name, _) in DEFAULTS {
        let Some(value) = attrs.get(name) else { continue };
        match name {
            "log-stderr-mode" if value == "leader" || value == "local" => {}
            "log-stderr-mode" => return Err(bad(name, "value must be leader or local")),
            "log-syslog-enable" if value == "0" || value == "1" => {}
            "log-syslog-enable" => return Err(bad(name, "value must be 0 or 1")),
            "log-ring-size" if value.parse::<usize>().is_ok() => {}
            "log-ring-size" => return Err(bad(name, "value must be a number")),
            _ if is_level(&value) => {}
            _ => return Err(bad(name, "value must be a level, at most 7")),
        }
    }
    Ok(())
}

// === impl Logger ===

impl std::fmt::Debug for Logger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logger").field("rank", &self.rank).finish_non_exhaustive()
    }
}

impl Logger {
    pub fn new(rank: u32, attrs: &Attrs) -> Logger {
        for (name, value) in DEFAULTS {
            attrs.put_default(name, value, Access::Runtime);
        }
        let logger = Logger {
            rank,
            settings: Cell::new(Settings::from_attrs(attrs)),
            ring: RefCell::default(),
            outlets: RefCell::default(),
            unopened: RefCell::default(),
            counts: Cell::default(),
            subscribers: RefCell::default(),
            appended: Notify::new(),
            forward: RefCell::default(),
            unsent: RefCell::default(),
        };
        logger.take_over(attrs);
        *logger.unopened.borrow_mut() = logger.open_outlets(attrs).err();
        logger
    }

    /// Whether the log goes where the attributes of the start said; to be asked once.
    pub fn check_opened(&self) -> Result<(), Failure> {
        let Some((what, error)) = self.unopened.take() else { return Ok(()) };
        let errno = error.raw_os_error().map_or(Errno::EIO, |errno| Errno(errno.unsigned_abs()));
        Err(Failure::new(errno, format!("{what}: {errno}")))
    }

    /// Take over what the `log-*` attributes say now.
    pub fn attrs_changed(&self, attrs: &Attrs) {
        self.take_over(attrs);
        if let Err((what, error)) = self.open_outlets(attrs) {
            self.append(Severity::Err, "log", &format!("{what}: {error}"));
        }
    }

    fn take_over(&self, attrs: &Attrs) {
        let settings = Settings::from_attrs(attrs);
        self.settings.set(settings);
        self.ring.borrow_mut().trim(settings.ring_size);
    }

    fn open_outlets(&self, attrs: &Attrs) -> Result<(), (String, std::io::Error)> {
        let mut outlets = self.outlets.borrow_mut();
        let wanted = attrs.get("log-filename").filter(|_| self.rank == 0);
        if outlets.file.as_ref().map(|(name, _)| name) != wanted.as_ref() {
            outlets.file = None;
            if let Some(name) = wanted {
                let file = LogFile::open(Path::new(&name));
                let file = file.map_err(|e| (format!("log-filename: '{name}'"), e))?;
                outlets.file = Some((name, file));
            }
        }
        if attrs.get("log-syslog-enable").as_deref() != Some("1") {
            outlets.syslog = None;
        } else if outlets.syslog.is_none() {
            let syslog = Syslog::new(attrs.get("jobid-path").as_deref());
            outlets.syslog = Some(syslog.map_err(|e| ("log-syslog-enable".to_owned(), e))?);
        }
        Ok(())
    }

    /// Log text of this broker, a line of the log for each of its lines.
    pub fn append(&self, severity: Severity, app: &str, text: &str) {
        let timestamp = crate::time::utc_micros(SystemTime::now());
        let hostname = self.rank.to_string();
        let procid = std::process::id().to_string();
        for text in text.lines().filter(|text| !text.is_empty()) {
            let line = Line {
                severity,
                timestamp: &timestamp,
                hostname: &hostname,
                appname: app,
                procid: &procid,
                text: cut(text),
            };
            self.add(&line, true, text_payload(&line.to_string()));
        }
    }

    /// Log a line in RFC 5424 form, of this broker or of one below.
    pub fn append_line(&self, text: &str) {
        let text = cut(text.trim_end_matches(['\0', '\n', '\r']));
        let line = Line::parse(text).unwrap_or_else(|| outlet::unreadable(text));
        self.add(&line, line.rank() == Some(self.rank), text_payload(text));
    }

    fn add(&self, line: &Line<'_>, local: bool, payload: Bytes) {
        let settings = self.settings.get();
        let severity = i32::from(line.severity.number());
        let mut counts = self.counts.get();
        if local {
            counts.local += 1;
        } else {
            counts.remote += 1;
        }
        if severity <= settings.level {
            counts.kept += 1;
            self.ring.borrow_mut().push(payload.clone(), settings.ring_size);
            self.appended.notify_waiters();
        }
        self.counts.set(counts);
        let own_stderr = settings.local_stderr && severity <= settings.stderr_level;
        let leader_stderr =
            !settings.local_stderr && self.rank == 0 && severity <= settings.stderr_level;
        if (local && (own_stderr || severity <= settings.critical_level)) || leader_stderr {
            outlet::write_stderr(line, settings.stderr_style());
        }
        let mut outlets = self.outlets.borrow_mut();
        if let Some((_, file)) = &mut outlets.file {
            file.write(line);
        }
        if let Some(syslog) = outlets.syslog.as_ref().filter(|_| severity <= settings.syslog_level)
        {
            syslog.write(line);
        }
        drop(outlets);
        if self.rank > 0 && severity <= settings.forward_level {
            self.forward(payload);
        }
        let mut subscribers = self.subscribers.borrow_mut();
        if !subscribers.is_empty() {
            let record = Record::of(line);
            subscribers.retain(|queue| queue.send(record.clone()).is_ok());
        }
    }

    // --- rank 0 has all lines ---

    /// How lines go to rank 0. What was logged before is sent at once.
    pub fn set_forward(&self, forward: impl Fn(Bytes) -> bool + 'static) {
        *self.forward.borrow_mut() = Some(Box::new(forward));
        self.send_unsent();
    }

    fn forward(&self, payload: Bytes) {
        // Without the NUL: what is forwarded is a raw line.
        let line = payload.slice(..payload.len().saturating_sub(1));
        self.unsent.borrow_mut().push_back(line);
        self.send_unsent();
        let mut unsent = self.unsent.borrow_mut();
        if unsent.len() > UNSENT_MAX {
            unsent.pop_front();
        }
    }

    /// Lines from before the connection to the parent, or while it is lost, are sent later.
    pub fn send_unsent(&self) {
        // Something that is logged while a line is sent finds this in use, and waits its turn.
        let Ok(forward) = self.forward.try_borrow() else { return };
        let Some(forward) = forward.as_ref() else { return };
        loop {
            let Some(line) = self.unsent.borrow_mut().pop_front() else { return };
            if !forward(line.clone()) {
                self.unsent.borrow_mut().push_front(line);
                return;
            }
        }
    }

    // --- readers ---

    /// Every line from now on, until the receiver is dropped.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Record> {
        let (queue, lines) = mpsc::unbounded_channel();
        self.subscribers.borrow_mut().push(queue);
        lines
    }

    /// Number that the next line of the buffer will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.ring.borrow().next()
    }

    /// The line of the buffer with this number, or the first after it; with its number and a NUL.
    pub(crate) fn line_at(&self, number: u64) -> Option<(u64, Bytes)> {
        self.ring.borrow().at(number)
    }

    /// Resolves when the next line's number is `number` or above.
    pub(crate) async fn reaches(&self, number: u64) {
        while self.next_number() < number {
            self.appended.notified().await;
        }
    }

    pub fn clear(&self) {
        self.ring.borrow_mut().trim(0);
    }

    pub fn ring_len(&self) -> usize {
        self.ring.borrow().len()
    }

    pub fn counts(&self) -> Counts {
        self.counts.get()
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or(text)
}
