//! A job's output (RFC 24) as it is in the job's `guest.output`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flux_protocol::eventlog::Event;
use serde::Deserialize;

/// An entry that there is something to say about.
#[derive(Debug)]
pub(crate) enum Entry {
    Data(Data),
    Redirect(Redirect),
    Log(LogLine),
}

#[derive(Debug, Deserialize)]
#[serde(from = "Wire")]
pub(crate) struct Data {
    pub stderr: bool,
    /// Tasks, as an idset.
    pub rank: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Redirect {
    pub stream: String,
    pub rank: String,
    pub path: Option<String>,
}

/// What a shell has to say.
#[derive(Debug, Deserialize)]
pub(crate) struct LogLine {
    pub rank: Option<i64>,
    pub level: usize,
    pub message: String,
    pub component: Option<String>,
    pub file: Option<String>,
    pub line: Option<i64>,
}

#[derive(Deserialize)]
struct Wire {
    stream: String,
    rank: String,
    data: Option<String>,
    encoding: Option<String>,
    repeat: Option<usize>,
}

/// Severities of RFC 5424, of which the worst all end the job; notices have no name.
const LEVELS: [&str; 8] = ["FATAL", "FATAL", "FATAL", "ERROR", " WARN", "", "DEBUG", "TRACE"];

impl From<Wire> for Data {
    fn from(wire: Wire) -> Data {
        let text = wire.data.unwrap_or_default();
        let bytes = match wire.encoding.as_deref() {
            Some("base64") => STANDARD.decode(text).unwrap_or_default(),
            _ => text.into_bytes(),
        };
        let bytes = match wire.repeat {
            Some(times) => bytes.repeat(times),
            None => bytes,
        };
        Data { stderr: wire.stream == "stderr", rank: wire.rank, bytes }
    }
}

// === impl Entry ===

impl Entry {
    /// Nothing for headers, ends of streams, and what is not understood.
    pub(crate) fn decode(event: &Event) -> Option<Entry> {
        match event.name.as_str() {
            "data" => event.context_as().ok().map(Entry::Data),
            "redirect" => event.context_as().ok().map(Entry::Redirect),
            "log" => event.context_as().ok().map(Entry::Log),
            _ => None,
        }
    }
}

// === impl Data ===

impl Data {
    /// With the task in front of each line, where that is wanted.
    pub(crate) fn text(self, label: bool) -> Vec<u8> {
        if !label {
            return self.bytes;
        }
        let mut text = Vec::with_capacity(self.bytes.len() + 16);
        for line in self.bytes.split_inclusive(|byte| *byte == b'\n') {
            text.extend_from_slice(format!("{}: ", self.rank).as_bytes());
            text.extend_from_slice(line);
        }
        text
    }
}

impl std::fmt::Display for Redirect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} redirected", self.rank, self.stream)?;
        match &self.path {
            Some(path) => write!(f, " to {path}"),
            None => Ok(()),
        }
    }
}

// === impl LogLine ===

impl LogLine {
    /// `flux-shell[0]: FATAL: ...`, with the place in the source where that is wanted.
    pub(crate) fn text(&self, with_source: bool) -> String {
        let mut text = String::from("flux-shell");
        if let Some(rank) = self.rank.filter(|rank| *rank >= 0) {
            text.push_str(&format!("[{rank}]"));
        }
        let level = LEVELS.get(self.level).copied().filter(|level| !level.is_empty());
        for part in level.into_iter().chain(self.component.as_deref()) {
            text.push_str(": ");
            text.push_str(part);
        }
        if with_source && let Some(file) = &self.file {
            text.push_str(&format!(": {file}"));
            if let Some(line) = self.line.filter(|line| *line > 0) {
                text.push_str(&format!(":{line}"));
            }
        }
        format!("{text}: {}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &str) -> Option<Entry> {
        Entry::decode(&Event::decode(line).unwrap())
    }

    #[test]
    fn data_is_text_or_base64_and_may_be_repeated() {
        let line = r#"{"timestamp":1,"name":"data","context":{"stream":"stderr","rank":"[0-1]","data":"a\nb","repeat":2}}"#;
        let Some(Entry::Data(data)) = entry(line) else { panic!("{line}") };
        assert!(data.stderr);
        assert_eq!(data.text(true), b"[0-1]: a\n[0-1]: ba\n[0-1]: b");
        let line = r#"{"timestamp":1,"name":"data","context":{"stream":"stdout","rank":"0","data":"/wA=","encoding":"base64"}}"#;
        let Some(Entry::Data(data)) = entry(line) else { panic!("{line}") };
        assert_eq!(data.text(false), [0xff, 0]);
    }

    #[test]
    fn log_lines_name_shell_level_and_component() {
        let line = r#"{"timestamp":1,"name":"log","context":{"rank":1,"level":3,"component":"mpi","message":"no","file":"x.c","line":7}}"#;
        let Some(Entry::Log(log)) = entry(line) else { panic!("{line}") };
        assert_eq!(log.text(false), "flux-shell[1]: ERROR: mpi: no");
        assert_eq!(log.text(true), "flux-shell[1]: ERROR: mpi: x.c:7: no");
    }
}
