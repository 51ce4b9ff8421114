//! What the shell itself has to say: log events of the job's output (RFC 24), or lines on stderr
//! as long as there is no job to write to.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Write;
use std::rc::Rc;

use crate::clock;

/// Severities of RFC 5424, as the shell uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Fatal = 0,
    Error = 3,
    Warn = 4,
    Notice = 5,
    Debug = 6,
    Trace = 7,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) timestamp: f64,
    /// The shell's rank; -1 as long as it does not know.
    pub(crate) rank: i64,
    pub(crate) level: Level,
    pub(crate) component: Option<&'static str>,
    pub(crate) message: String,
}

/// Collects entries; who owns the output takes them from here. Clones share one queue.
#[derive(Clone)]
pub(crate) struct Log {
    inner: Rc<Inner>,
}

struct Inner {
    verbose: Cell<i32>,
    rank: Cell<i64>,
    queue: RefCell<Vec<Entry>>,
}

// === impl Level ===

impl Level {
    pub(crate) fn from_number(level: i64) -> Level {
        match level {
            ..=2 => Level::Fatal,
            3 => Level::Error,
            4 => Level::Warn,
            5 => Level::Notice,
            6 => Level::Debug,
            _ => Level::Trace,
        }
    }

    /// As it stands in files and on stderr.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Fatal => "FATAL",
            Level::Error => "ERROR",
            Level::Warn => " WARN",
            Level::Notice => " INFO",
            Level::Debug => "DEBUG",
            Level::Trace => "TRACE",
        }
    }
}

// === impl Entry ===

impl Entry {
    /// The line that a reader on a terminal or in a file gets.
    pub(crate) fn line(&self) -> String {
        let mut line = String::from("flux-shell");
        if self.rank >= 0 {
            line.push_str(&format!("[{}]", self.rank));
        }
        line.push_str(": ");
        line.push_str(self.level.name());
        line.push_str(": ");
        if let Some(component) = self.component {
            line.push_str(component);
            line.push_str(": ");
        }
        line.push_str(&self.message);
        line.push('\n');
        line
    }
}

// === impl Log ===

impl Log {
    pub(crate) fn new() -> Log {
        let inner =
            Inner { verbose: Cell::new(0), rank: Cell::new(-1), queue: RefCell::new(Vec::new()) };
        Log { inner: Rc::new(inner) }
    }

    pub(crate) fn set_rank(&self, rank: usize) {
        self.inner.rank.set(i64::try_from(rank).unwrap_or(-1));
    }

    /// 1 adds debug messages, 2 traces.
    pub(crate) fn set_verbose(&self, verbose: i32) {
        self.inner.verbose.set(verbose);
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.inner.verbose.get() > 0
    }

    pub(crate) fn enabled(&self, level: Level) -> bool {
        level as i32 <= Level::Notice as i32 + self.inner.verbose.get()
    }

    pub(crate) fn fatal(
        &self,
        component: impl Into<Option<&'static str>>,
        text: impl fmt::Display,
    ) {
        self.push(Level::Fatal, component.into(), text);
    }

    pub(crate) fn error(
        &self,
        component: impl Into<Option<&'static str>>,
        text: impl fmt::Display,
    ) {
        self.push(Level::Error, component.into(), text);
    }

    pub(crate) fn warn(&self, component: impl Into<Option<&'static str>>, text: impl fmt::Display) {
        self.push(Level::Warn, component.into(), text);
    }

    pub(crate) fn notice(
        &self,
        component: impl Into<Option<&'static str>>,
        text: impl fmt::Display,
    ) {
        self.push(Level::Notice, component.into(), text);
    }

    pub(crate) fn debug(
        &self,
        component: impl Into<Option<&'static str>>,
        text: impl fmt::Display,
    ) {
        self.push(Level::Debug, component.into(), text);
    }

    pub(crate) fn trace(
        &self,
        component: impl Into<Option<&'static str>>,
        text: impl fmt::Display,
    ) {
        self.push(Level::Trace, component.into(), text);
    }

    /// All entries since the last call.
    pub(crate) fn take(&self) -> Vec<Entry> {
        self.inner.queue.take()
    }

    fn push(&self, level: Level, component: Option<&'static str>, text: impl fmt::Display) {
        if !self.enabled(level) {
            return;
        }
        let entry = Entry {
            timestamp: clock::now(),
            rank: self.inner.rank.get(),
            level,
            component,
            message: text.to_string(),
        };
        self.inner.queue.borrow_mut().push(entry);
    }
}

/// A line for the broker, which has the other end of standard error. It may be gone, and that must
/// not keep the shell from what it does next, such as ending the tasks.
pub(crate) fn say(text: impl fmt::Display) {
    say_raw(&format!("flux-shell: {text}\n"));
}

pub(crate) fn say_raw(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_messages_are_kept_only_when_verbose() {
        let log = Log::new();
        log.debug("a", "hidden");
        log.warn(None, "shown");
        log.set_verbose(1);
        log.debug("a", "shown");
        log.trace("a", "hidden");
        let texts: Vec<_> =
            log.take().into_iter().map(|entry| (entry.level, entry.message)).collect();
        assert_eq!(texts, [(Level::Warn, "shown".to_owned()), (Level::Debug, "shown".to_owned())]);
    }

    #[test]
    fn a_line_names_rank_level_and_component() {
        let log = Log::new();
        log.set_rank(3);
        log.error("input", "no such file");
        let lines: Vec<_> = log.take().iter().map(Entry::line).collect();
        assert_eq!(lines, ["flux-shell[3]: ERROR: input: no such file\n"]);
    }
}
