//! The one error that ends a shell: it is logged, raised as a job exception, and becomes the exit
//! code.

use std::fmt;

/// Why the job can't go on here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fatal {
    pub(crate) component: Option<&'static str>,
    pub(crate) text: String,
    pub(crate) exit_code: i32,
    /// wait(2) status of the task that is to blame; the exception then carries it.
    pub(crate) wait_status: Option<i32>,
    /// The execution system knows already: neither log nor raise.
    pub(crate) silent: bool,
}

impl Fatal {
    pub(crate) fn new(
        component: impl Into<Option<&'static str>>,
        text: impl fmt::Display,
    ) -> Fatal {
        Fatal {
            component: component.into(),
            text: text.to_string(),
            exit_code: 1,
            wait_status: None,
            silent: false,
        }
    }

    pub(crate) fn exit_code(self, exit_code: i32) -> Fatal {
        Fatal { exit_code, ..self }
    }

    pub(crate) fn silent() -> Fatal {
        Fatal { silent: true, ..Fatal::new(None, "") }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.component {
            Some(component) => write!(f, "{component}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// The system's words for an I/O error, without Rust's "(os error N)".
pub(crate) fn reason(error: &std::io::Error) -> String {
    flux_protocol::errno::Errno::from(error).to_string()
}
