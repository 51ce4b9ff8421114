//! Command lines, and those that wait for a state.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use nix::unistd::AccessFlags;

/// A command line with the way in which it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// A program with its arguments.
    Program(Vec<String>),
    /// A line for the user's shell.
    Line(String),
    /// A line for the shell of the system: what an administrator has written does not depend on the
    /// shell of whom the broker runs as, which may be one that lets nobody in.
    SystemLine(String),
    /// The user's shell by itself.
    Shell,
}

impl Script {
    /// As the arguments of `flux start` and `flux broker` mean it: a single one is a line for the
    /// shell, none is the shell. One that names a program is started without a shell, which would
    /// stay and get the signals that are meant for the program.
    pub fn from_args(args: &[String]) -> Script {
        match args {
            [] => Script::Shell,
            [path] if is_program(path) => Script::Program(args.to_vec()),
            [line] => Script::Line(line.clone()),
            _ => Script::Program(args.to_vec()),
        }
    }

    /// For log lines, and as it was given.
    pub fn command_line(&self) -> String {
        match self {
            Script::Program(args) => args.join(" "),
            Script::Line(line) | Script::SystemLine(line) => line.clone(),
            Script::Shell => user_shell(),
        }
    }
}

fn is_program(path: &str) -> bool {
    let may = AccessFlags::R_OK | AccessFlags::X_OK;
    !path.contains(char::is_whitespace)
        && Path::new(path).is_file()
        && nix::unistd::access(path, may).is_ok()
}

/// Command lines that are to run at a state, by its name; the last that was pushed runs first.
#[derive(Debug, Default)]
pub struct Pushed {
    by_state: RefCell<BTreeMap<String, Vec<String>>>,
}

impl Pushed {
    pub fn push(&self, state: &str, line: String) {
        self.by_state.borrow_mut().entry(state.to_owned()).or_default().push(line);
    }

    /// The next command line of a state; it is forgotten here.
    pub fn pop(&self, state: &str) -> Option<String> {
        self.by_state.borrow_mut().get_mut(state)?.pop()
    }
}

/// The user's shell, by `SHELL`.
pub(super) fn user_shell() -> String {
    std::env::var("SHELL").ok().filter(|s| !s.is_empty()).unwrap_or("/bin/bash".to_owned())
}
