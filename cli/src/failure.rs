//! How a command ends: an exit code, or what to tell the user on standard error.

use std::fmt::Display;

use flux_protocol::errno::Errno;

/// Exit code of a command that did what it could, or why it could not.
pub(crate) type Outcome = Result<u8, Failure>;

/// Ends the command: text for standard error, behind the name of the command, and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Lines; each gets the prefix. Empty where everything has been said already.
    text: String,
    code: u8,
    /// Instead of the command's own name.
    prefix: Option<String>,
}

impl Failure {
    /// Exit code 1.
    pub(crate) fn new(text: impl Display) -> Failure {
        Failure { text: text.to_string(), code: 1, prefix: None }
    }

    /// `SUBJECT: REASON`, as most commands report errors.
    pub(crate) fn of(subject: impl Display, reason: impl Display) -> Failure {
        Failure::new(format_args!("{subject}: {reason}"))
    }

    /// What was to be said is said; only the exit code is left.
    pub(crate) fn silent(code: u8) -> Failure {
        Failure { text: String::new(), code, prefix: None }
    }

    /// The failure of something that was done on the way.
    pub(crate) fn within(self, subject: impl Display) -> Failure {
        let text = format!("{subject}: {}", self.text);
        Failure { text, ..self }
    }

    /// In one line, for those who go on.
    pub(crate) fn line(&self) -> String {
        self.text.lines().collect::<Vec<_>>().join(": ")
    }

    /// Put another name than the command's own in front.
    pub(crate) fn prefix(mut self, prefix: impl Into<String>) -> Failure {
        self.prefix = Some(prefix.into());
        self
    }

    /// Print, and return the exit code.
    pub(crate) fn report(&self, command: &str) -> u8 {
        let prefix = self.prefix.as_deref().unwrap_or(command);
        for line in self.text.lines() {
            eprintln!("{prefix}: {line}");
        }
        self.code
    }
}

impl From<flux_client::RpcError> for Failure {
    fn from(error: flux_client::RpcError) -> Failure {
        Failure::new(error)
    }
}

impl From<flux_client::Disconnect> for Failure {
    fn from(error: flux_client::Disconnect) -> Failure {
        Failure::new(error)
    }
}

/// The text of strerror(3) for an I/O error, without Rust's `(os error N)`.
pub(crate) fn strerror(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => Errno::from(error).to_string(),
        None => error.to_string(),
    }
}
