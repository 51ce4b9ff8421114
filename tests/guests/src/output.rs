//! What became of a command.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

#[derive(Debug, Clone)]
pub struct Outcome {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub(crate) fn of(output: Output) -> Outcome {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// The value in a line `KEY=VALUE` of standard output.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.stdout.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    /// It was refused, for this reason, and nothing was run.
    #[track_caller]
    pub fn assert_refused(&self, reason: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.stderr.contains(reason), "expected {reason:?}: {self:?}");
        assert!(!self.stdout.contains("ran"), "{self:?}");
    }

    #[track_caller]
    pub fn assert_failure(&self) {
        assert_ne!(self.code, Some(0), "{self:?}");
    }

    #[track_caller]
    pub fn assert_success(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
    }
}
