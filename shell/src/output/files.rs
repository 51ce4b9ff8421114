//! Output files: each is opened once, whoever writes to it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use crate::fatal::reason;
use crate::log::Log;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(usize);

#[derive(Debug)]
pub(super) struct Files {
    append: bool,
    open: Vec<OutputFile>,
}

#[derive(Debug)]
struct OutputFile {
    path: String,
    file: File,
    label: bool,
    /// An error to write has been reported.
    failed: bool,
}

// === impl Files ===

impl Files {
    pub(super) fn new(append: bool) -> Files {
        Files { append, open: Vec::new() }
    }

    pub(super) fn open(&mut self, path: &str, label: bool) -> Result<FileId, String> {
        if let Some(at) = self.open.iter().position(|file| file.path == path) {
            return Ok(FileId(at));
        }
        let mut options = OpenOptions::new();
        options.create(true).mode(0o644);
        if self.append {
            options.append(true);
        } else {
            options.write(true).truncate(true);
        }
        let file = options
            .open(path)
            .map_err(|e| format!("error opening output file '{path}': {}", reason(&e)))?;
        self.open.push(OutputFile { path: path.to_owned(), file, label, failed: false });
        Ok(FileId(self.open.len() - 1))
    }

    /// Write output of the tasks of `rank`.
    pub(super) fn write(&mut self, id: FileId, rank: &str, data: &[u8], log: &Log) {
        let Some(file) = self.open.get_mut(id.0) else { return };
        if data.is_empty() {
            return;
        }
        if file.label {
            let mut labeled = Vec::with_capacity(rank.len() + 2 + data.len());
            labeled.extend_from_slice(rank.as_bytes());
            labeled.extend_from_slice(b": ");
            labeled.extend_from_slice(data);
            file.write(&labeled, log);
        } else {
            file.write(data, log);
        }
    }

    /// Write a line that is no task's.
    pub(super) fn write_line(&mut self, id: FileId, line: &str, log: &Log) {
        if let Some(file) = self.open.get_mut(id.0) {
            file.write(line.as_bytes(), log);
        }
    }
}

impl OutputFile {
    fn write(&mut self, data: &[u8], log: &Log) {
        if let Err(e) = self.file.write_all(data)
            && !self.failed
        {
            self.failed = true;
            log.error("output", format_args!("write {}: {}", self.path, reason(&e)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writers_of_one_path_share_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let path = path.to_str().unwrap();
        let log = Log::new();
        let mut files = Files::new(false);
        let a = files.open(path, true).unwrap();
        let b = files.open(path, true).unwrap();
        assert_eq!(a, b);
        files.write(a, "0", b"x\n", &log);
        files.write(b, "1", b"y\n", &log);
        files.write(b, "1", b"", &log);
        files.write_line(a, "flux-shell: hello\n", &log);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "0: x\n1: y\nflux-shell: hello\n");
    }

    #[test]
    fn append_mode_keeps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "old\n").unwrap();
        let path = path.to_str().unwrap();
        for (append, expected) in [(true, "old\nnew\n"), (false, "new\n")] {
            let mut files = Files::new(append);
            let id = files.open(path, false).unwrap();
            files.write(id, "0", b"new\n", &Log::new());
            assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = Files::new(false).open("/nonexistent/x", false).unwrap_err();
        assert_eq!(error, "error opening output file '/nonexistent/x': No such file or directory");
    }
}
