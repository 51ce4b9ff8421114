//! The broker's log: levels, the circular buffer, and where lines go.
//!
//! Lines are kept and sent as RFC 5424 records: `<PRI>1 TIMESTAMP RANK APP - - - TEXT`, in which
//! the hostname field holds the broker rank.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Write;
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::attrs::{Access, Attrs};

/// Severity of a line, as syslog has it; lower is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    Emerg = 0,
    Alert = 1,
    Crit = 2,
    Err = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// RFC 5424 facility "user-level messages", which all Flux lines have.
const FACILITY_USER: u8 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub severity: Severity,
    pub time: SystemTime,
    pub rank: u32,
    /// Who logs: a service, `broker`, `rc1.0`.
    pub app: String,
    pub text: String,
}

/// Shared by all services of a broker.
pub struct Logger {
    rank: u32,
    journal: bool,
    stderr_level: Cell<u8>,
    ring_size: Cell<usize>,
    ring: RefCell<VecDeque<Record>>,
    count: Cell<u64>,
    subscribers: RefCell<Vec<mpsc::UnboundedSender<Record>>>,
}

impl std::fmt::Debug for Logger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logger").field("rank", &self.rank).finish_non_exhaustive()
    }
}

impl Severity {
    pub const ALL: [Severity; 8] = [
        Severity::Emerg,
        Severity::Alert,
        Severity::Crit,
        Severity::Err,
        Severity::Warning,
        Severity::Notice,
        Severity::Info,
        Severity::Debug,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Severity::Emerg => "emerg",
            Severity::Alert => "alert",
            Severity::Crit => "crit",
            Severity::Err => "err",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
            Severity::Info => "info",
            Severity::Debug => "debug",
        }
    }

    pub fn from_number(number: u8) -> Option<Severity> {
        Severity::ALL.get(usize::from(number)).copied()
    }
}

impl Record {
    /// The RFC 5424 line.
    pub fn encode(&self) -> String {
        let pri = FACILITY_USER * 8 + self.severity as u8;
        let time = crate::time::utc_micros(self.time);
        format!("<{pri}>1 {time} {} {} - - - {}", self.rank, self.app, self.text)
    }

    /// `broker.info[0]: TEXT` with a newline, as commands show it.
    pub fn line(&self) -> String {
        format!("{}.{}[{}]: {}\n", self.app, self.severity.name(), self.rank, self.text)
    }
}

impl Logger {
    pub fn new(rank: u32, attrs: &Attrs) -> Logger {
        for (name, value) in [
            ("log-ring-size", "1024"),
            ("log-level", "7"),
            ("log-forward-level", "7"),
            ("log-stderr-level", "3"),
            ("log-critical-level", "2"),
            ("log-stderr-mode", "leader"),
        ] {
            attrs.put_default(name, value, Access::Runtime);
        }
        Logger {
            rank,
            journal: std::env::var_os("JOURNAL_STREAM").is_some(),
            stderr_level: Cell::new(attrs.parse("log-stderr-level").unwrap_or(3)),
            ring_size: Cell::new(attrs.parse("log-ring-size").unwrap_or(1024)),
            ring: RefCell::default(),
            count: Cell::new(0),
            subscribers: RefCell::default(),
        }
    }

    /// Take over levels that may have been set.
    pub fn attrs_changed(&self, attrs: &Attrs) {
        if let Some(level) = attrs.parse("log-stderr-level") {
            self.stderr_level.set(level);
        }
        if let Some(size) = attrs.parse("log-ring-size") {
            self.ring_size.set(size);
        }
    }

    /// Log a line of this broker.
    pub fn append(&self, severity: Severity, app: &str, text: &str) {
        self.append_record(Record {
            severity,
            time: SystemTime::now(),
            rank: self.rank,
            app: app.to_owned(),
            text: text.trim_end().to_owned(),
        });
    }

    /// Log a line, of this broker or of another.
    pub fn append_record(&self, record: Record) {
        if record.severity as u8 <= self.stderr_level.get() {
            self.write_stderr(&record);
        }
        self.subscribers.borrow_mut().retain(|queue| queue.send(record.clone()).is_ok());
        self.count.set(self.count.get() + 1);
        let mut ring = self.ring.borrow_mut();
        ring.push_back(record);
        while ring.len() > self.ring_size.get() {
            ring.pop_front();
        }
    }

    /// Lines of the ring, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.ring.borrow().iter().cloned().collect()
    }

    /// Every line from now on, until the receiver is dropped.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Record> {
        let (queue, lines) = mpsc::unbounded_channel();
        self.subscribers.borrow_mut().push(queue);
        lines
    }

    fn write_stderr(&self, record: &Record) {
        let Record { severity, rank, app, text, .. } = record;
        // The journal takes the severity off the line.
        let prefix = if self.journal { format!("<{}>", *severity as u8) } else { String::new() };
        let mut stderr = std::io::stderr().lock();
        for line in text.lines() {
            // There is nobody to tell when stderr itself is gone.
            let _ = writeln!(stderr, "{prefix}{app}.{}[{rank}]: {line}", severity.name());
        }
    }
}
