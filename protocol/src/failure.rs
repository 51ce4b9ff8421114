//! The error of a response: an errno, and often a text (RFC 6).

use std::fmt;

use crate::errno::Errno;
use crate::payload::PayloadError;

/// An error response as it is sent and received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub errno: Errno,
    /// What went wrong, for the user to read; the errno's own text when there is none.
    pub text: Option<String>,
}

impl Failure {
    pub fn new(errno: Errno, text: impl Into<String>) -> Failure {
        Failure { errno, text: Some(text.into()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => self.errno.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure { errno, text: None }
    }
}

impl From<PayloadError> for Failure {
    /// Without a text, as the real services answer.
    fn from(error: PayloadError) -> Failure {
        error.errno().into()
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(Errno::from(&error), error.to_string())
    }
}
