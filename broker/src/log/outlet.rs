//! Where lines are written to: standard error, a file, syslog.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use flux_protocol::stdlog::{Line, Severity};

/// How lines look on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// For the journal, which has its own time: `broker.info[0]: TEXT`.
    Plain,
    /// The same with the severity in front, which the journal takes off the line.
    Journal,
    /// With the time in front.
    Timed,
}

/// `broker.info[0]: TEXT`
pub(super) fn plain(line: &Line<'_>) -> String {
    format!("{}.{}[{}]: {}", line.appname, line.severity, line.hostname, line.text)
}

fn styled(line: &Line<'_>, style: Style) -> String {
    match style {
        Style::Plain => plain(line),
        Style::Journal => format!("<{}>{}", line.severity.number(), plain(line)),
        Style::Timed => format!("{} {}", line.timestamp, plain(line)),
    }
}

pub(super) fn write_stderr(line: &Line<'_>, style: Style) {
    // There is nobody to tell when stderr itself is gone.
    let _ = writeln!(io::stderr().lock(), "{}", styled(line, style));
}

/// The file that `log-filename` names.
#[derive(Debug)]
pub(super) struct LogFile(File);

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(LogFile)
    }

    pub(super) fn write(&mut self, line: &Line<'_>) {
        // A full disk must not end the broker, and can't be logged either.
        let _ = writeln!(self.0, "{}", styled(line, Style::Timed));
    }
}

/// The system's logger at `/dev/log`.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: UnixDatagram,
    /// `USER@JOBID-PATH`, which tells instances apart.
    prefix: String,
}

const SYSLOG_SOCKET: &str = "/dev/log";
/// Facility "user-level messages".
const LOG_USER: u8 = 1;
const PREFIX_MAX: usize = 31;

impl Syslog {
    pub(super) fn new(jobid_path: Option<&str>) -> io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
        let user = user.ok().flatten().map_or("unknown".to_owned(), |user| user.name);
        let mut prefix = format!("{user}@{}", jobid_path.unwrap_or("unknown"));
        if prefix.len() > PREFIX_MAX {
            prefix = prefix.chars().take(PREFIX_MAX - 3).collect::<String>() + "...";
        }
        Ok(Syslog { socket, prefix })
    }

    pub(super) fn write(&self, line: &Line<'_>) {
        let pri = LOG_USER * 8 + line.severity.number();
        let pid = std::process::id();
        let text = format!("<{pri}>flux[{pid}]: {} {}", self.prefix, plain(line));
        // What the logger does not take in time, or while it is away, is lost, as with syslog(3).
        let _ = self.socket.send_to(text.as_bytes(), SYSLOG_SOCKET);
    }
}

/// What an unreadable line is taken for.
pub(super) fn unreadable(text: &str) -> Line<'_> {
    Line {
        severity: Severity::Info,
        timestamp: "-",
        hostname: "-",
        appname: "unknown",
        procid: "-",
        text,
    }
}
