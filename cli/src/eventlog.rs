//! Events (RFC 18) as text for people.

use std::fmt::Write as _;

use flux_protocol::eventlog::Event;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use crate::json_text::{self, Node};
use crate::term::{paint, sgr};

/// How times are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum TimeFormat {
    /// Seconds since 1970.
    #[default]
    Raw,
    /// Date at each new minute, else seconds since then.
    #[value(alias = "reltime")]
    Human,
    Iso,
    /// Seconds since the first event.
    Offset,
}

/// Shows the events of one log, one after another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Formatter {
    pub time: TimeFormat,
    pub color: bool,
    /// RFC 18 JSON rather than text.
    pub json: bool,
    first: Option<f64>,
    minute: Minute,
}

/// For times that are shown relative to the last new minute.
#[derive(Debug, Clone, Default)]
pub(crate) struct Minute {
    current: Option<String>,
    since: f64,
}

impl Formatter {
    pub(crate) fn new(time: TimeFormat, color: bool, json: bool) -> Formatter {
        Formatter { time, color, json, ..Formatter::default() }
    }

    /// `first` may be an event that is not shown.
    pub(crate) fn see(&mut self, timestamp: f64) {
        self.first.get_or_insert(timestamp);
    }

    /// One line, without newline.
    pub(crate) fn format(&mut self, event: &Event) -> String {
        if self.json {
            return event.encode().map(|line| line.trim_end().to_owned()).unwrap_or_default();
        }
        self.see(event.timestamp);
        let name = if event.name == "exception" { sgr::BOLD_RED } else { sgr::YELLOW };
        let mut line = self.timestamp(event.timestamp);
        let _ = write!(line, " {}", paint(self.color, name, &event.name));
        let context = event.context.as_ref().map(|context| context.get().to_owned());
        let context = context.and_then(|text| RawValue::from_string(text).ok());
        if let Some(Node::Object(members)) = context.as_deref().map(json_text::node) {
            for (key, value) in members {
                let number = value.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
                let color = if number { sgr::GRAY } else { sgr::MAGENTA };
                let key = paint(self.color, sgr::BLUE, &key);
                let value = paint(self.color, color, &json_text::compact(value));
                let _ = write!(line, " {key}={value}");
            }
        }
        line
    }

    fn timestamp(&mut self, timestamp: f64) -> String {
        let text = match self.time {
            TimeFormat::Raw => format!("{timestamp:.6}"),
            TimeFormat::Offset => {
                format!("{:.6}", timestamp - self.first.unwrap_or(timestamp))
            }
            TimeFormat::Iso => iso_local(timestamp),
            TimeFormat::Human => return self.minute.format(timestamp, self.color, false),
        };
        paint(self.color, sgr::GREEN, &text)
    }
}

impl Minute {
    /// `[Nov22 15:06]` at a new minute, else `[  +0.850953]` since it began, or with `delta`
    /// since the last time.
    pub(crate) fn format(&mut self, timestamp: f64, color: bool, delta: bool) -> String {
        let minute = local(timestamp, "%b%d %H:%M");
        if self.current.as_ref() == Some(&minute) {
            let text = format!("[{:+11.6}]", timestamp - self.since);
            if delta {
                self.since = timestamp;
            }
            return paint(color, sgr::GREEN, &text);
        }
        self.since = timestamp;
        let text = format!("[{minute}]");
        self.current = Some(minute);
        paint(color, sgr::BOLD_GREEN, &text)
    }
}

/// Local time with microseconds and offset, `Z` where that is none.
pub(crate) fn iso_local(timestamp: f64) -> String {
    let text = local(timestamp, "%Y-%m-%dT%H:%M:%S%.6f%:z");
    match text.strip_suffix("+00:00") {
        Some(utc) => format!("{utc}Z"),
        None => text,
    }
}

/// Local time by a strftime(3) format.
pub(crate) fn local(timestamp: f64, format: &str) -> String {
    // Microseconds are what a double since 1970 is good for.
    let micros = (timestamp * 1e6).round();
    match Timestamp::from_microsecond(micros as i64) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime(format).to_string(),
        Err(_) => format!("{timestamp:.6}"),
    }
}
