//! What a scheduler was told and asked, and what it decided: a line of JSON for each call. A
//! recording can be replayed without a broker, and the same module decides the same again.

use super::v1::types::{Change, Decision};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A call of a scheduler, in the order of calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// It was started, with this configuration of its own, and knows nothing yet.
    Start(Map<String, Value>),
    /// It was told of changes.
    Update(Vec<Change>),
    /// It was asked how many requests it takes.
    Ready,
    /// It was to schedule for so many seconds.
    Schedule(f64),
}

/// A line of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedStep {
    /// The plugin's clock during the call.
    pub now: f64,
    /// The call.
    pub step: Step,
    /// What it decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// Why it has not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A file that a recording is added to.
#[derive(Debug)]
pub(super) struct Recorder(BufWriter<File>);

impl Recorder {
    /// Opens a file. Jobspecs are nobody else's business.
    ///
    /// # Errors
    ///
    /// Of the file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Recorder(BufWriter::new(file)))
    }

    /// Whether there is a folder for it, and nothing else in its place; leaves no file behind.
    pub(super) fn could_open(path: &Path) -> io::Result<()> {
        match path.metadata() {
            Ok(meta) if meta.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => Ok(()),
            Err(_) => path.parent().unwrap_or(path).metadata().map(drop),
        }
    }

    /// Adds a line.
    ///
    /// # Errors
    ///
    /// Of the file.
    pub(super) fn add(&mut self, line: &RecordedStep) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, line)?;
        self.0.write_all(b"\n")?;
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls");
        let lines = [
            RecordedStep {
                now: 1.5,
                step: Step::Start(Map::new()),
                decisions: Vec::new(),
                fault: None,
            },
            RecordedStep {
                now: 0.1 + 0.2,
                step: Step::Update(vec![
                    Change::Alloc(vec![crate::plugin::testing::job(7)]),
                    Change::Prioritize(vec![(7, 3)]),
                ]),
                decisions: vec![Decision::Canceled(9)],
                fault: Some("plugin x trapped".to_owned()),
            },
        ];
        for line in &lines {
            Recorder::open(&path).unwrap().add(line).unwrap();
        }
        let text = std::fs::read_to_string(path).unwrap();
        let read: Vec<RecordedStep> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, lines);
    }
}
