//! The end of the IMP, with a reason.

use std::io::Write;

/// What is said before the process ends, and the code that it ends with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fatal {
    pub(crate) code: i32,
    text: Option<String>,
}

impl Fatal {
    pub(crate) fn new(text: impl Into<String>) -> Fatal {
        Fatal { code: 1, text: Some(text.into()) }
    }

    /// The other half has said what there is to say.
    pub(crate) fn silent() -> Fatal {
        Fatal { code: 1, text: None }
    }

    pub(crate) fn with_code(self, code: i32) -> Fatal {
        Fatal { code, ..self }
    }

    /// Say it; the exit code.
    pub(crate) fn report(&self) -> i32 {
        if let Some(text) = &self.text {
            say("Fatal", text);
        }
        self.code
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

pub(crate) fn warn(text: impl AsRef<str>) {
    say("Warning", text.as_ref());
}

/// On one line, and without what a terminal would take for a command.
fn say(level: &str, text: &str) {
    let text: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2000).collect();
    // There is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "flux-imp: {level}: {text}");
}
