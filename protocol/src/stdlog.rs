//! Lines of the log (RFC 5424).
//!
//! ```text
//! <PRI>1 TIMESTAMP HOSTNAME APPNAME PROCID MSGID STRUCTURED-DATA TEXT
//! ```
//!
//! The hostname field holds the rank of the broker that logged. Flux writes `severity * 8 +
//! facility` for PRI, where RFC 5424 has `facility * 8 + severity`, and its facility is 0; so a
//! PRI with low bits is taken for one of another program, in the order of the RFC.

use std::fmt;

/// Severity of a line, as syslog has it; lower is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// A line, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub severity: Severity,
    /// ISO 8601 in UTC, with microseconds.
    pub timestamp: &'a str,
    pub hostname: &'a str,
    pub appname: &'a str,
    pub procid: &'a str,
    pub text: &'a str,
}

// === impl Severity ===

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

    pub fn number(self) -> u8 {
        self as u8
    }

    pub fn from_number(number: u8) -> Option<Severity> {
        Severity::ALL.get(usize::from(number)).copied()
    }

    pub fn from_name(name: &str) -> Option<Severity> {
        Severity::ALL.into_iter().find(|severity| severity.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Line ===

impl<'a> Line<'a> {
    /// Nothing when it is no line of the log.
    pub fn parse(line: &'a str) -> Option<Line<'a>> {
        let (pri, rest) = line.strip_prefix('<')?.split_once('>')?;
        let severity = severity_of(pri.parse().ok()?);
        let mut fields = rest.splitn(7, ' ');
        let _version: u32 = fields.next()?.parse().ok()?;
        let (timestamp, hostname, appname) = (fields.next()?, fields.next()?, fields.next()?);
        let (procid, _msgid) = (fields.next()?, fields.next()?);
        let text = behind_structured_data(fields.next()?)?;
        Some(Line { severity, timestamp, hostname, appname, procid, text })
    }

    /// The rank of the broker that logged it, where it was one.
    pub fn rank(&self) -> Option<u32> {
        self.hostname.parse().ok()
    }
}

/// The line in RFC 5424 form, without newline or NUL.
impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { severity, timestamp, hostname, appname, procid, text } = self;
        let pri = u32::from(severity.number()) << 3;
        write!(f, "<{pri}>1 {timestamp} {hostname} {appname} {procid} - - {text}")
    }
}

fn severity_of(pri: u32) -> Severity {
    let number = if pri & 7 == 0 { pri >> 3 } else { pri & 7 };
    u8::try_from(number).ok().and_then(Severity::from_number).unwrap_or(Severity::Debug)
}

/// Structured data is `-`, or elements in brackets, up to the blank behind it.
fn behind_structured_data(text: &str) -> Option<&str> {
    let mut depth = 0;
    let end = text.find(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ' ' && depth == 0
    })?;
    text.get(end + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPTURED: &str = "<24>1 2026-11-22T15:18:49.760199Z 0 tap 2863 - - hello world";

    #[test]
    fn captured_lines_are_taken_apart_and_written_again() {
        let line = Line::parse(CAPTURED).unwrap();
        assert_eq!(line.severity, Severity::Err);
        assert_eq!((line.rank(), line.appname, line.procid), (Some(0), "tap", "2863"));
        assert_eq!((line.timestamp, line.text), ("2026-11-22T15:18:49.760199Z", "hello world"));
        assert_eq!(line.to_string(), CAPTURED);
    }

    #[test]
    fn structured_data_is_skipped() {
        let line = "<56>1 - 3 app - - [a b=\"c d\"][e] text of it";
        assert_eq!(Line::parse(line).unwrap().text, "text of it");
    }

    #[test]
    fn priorities_of_other_programs_are_read_as_the_rfc_has_them() {
        let severity = |line| Line::parse(line).unwrap().severity;
        assert_eq!(severity("<14>1 - host app - - - user.info"), Severity::Info);
        assert_eq!(severity("<40>1 - 0 app - - - flux notice"), Severity::Notice);
        assert_eq!(severity("<4000000000>1 - 0 app - - - x"), Severity::Debug);
    }

    #[test]
    fn other_text_is_no_line() {
        for text in ["", "hello", "<24", "<24>1", "<x>1 a b c d e - t", "<24>1 a b c d e", "<>"] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }
}
