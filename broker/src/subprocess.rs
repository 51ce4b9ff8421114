//! Child processes of the broker: started, fed, read, signalled and waited for without blocking.
//!
//! A [`Process`] is the way in: input, signals. [`Events`] is the way out: output by line or in
//! pieces, credit for more input, the exit. It ends when the process has exited and all its
//! output has been read. The queue of events is short, so a process whose output is not taken
//! blocks in the end, as it would at any pipe.
//!
//! A child leads a process group of its own and is sent SIGTERM when the broker dies; both can be
//! turned off. Descriptors of the broker are closed on exec, all of them. A [`Process`] that is
//! dropped while it runs is killed with its group.

mod input;
mod output;
mod spawn;
mod sys;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use input::Input;
pub use spawn::{SpawnError, spawn};
pub use sys::keep_descriptors_private;

/// Bytes of input that may be on the way to a process; what an option `NAME_BUFSIZE` changes.
pub const DEFAULT_BUFSIZE: usize = 4 << 20;
/// Events that wait to be taken.
const EVENTS_MAX: usize = 256;

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Program and arguments; a program without a slash is looked for in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Where it does not exist, `/tmp` is taken.
    pub cwd: Option<PathBuf>,
    pub stdin: bool,
    pub stdout: Stdio,
    pub stderr: Stdio,
    /// Socket pairs, whose number the child finds in the environment variable of that name.
    pub channels: Vec<(String, Stream)>,
    /// Bytes of input that may be on the way, where not [`DEFAULT_BUFSIZE`].
    pub bufsize: BTreeMap<String, usize>,
    /// Lead a process group, which signals go to.
    pub group: bool,
    /// Be sent SIGTERM when the broker dies. That takes a fork, which copies the page tables of
    /// the broker: some milliseconds where the library's spawn takes a tenth of one.
    pub dies_with_broker: bool,
    /// The signal that kills it: SIGKILL, but for a program that has to take others along which
    /// the broker may not signal.
    pub kill_signal: Signal,
}

/// What becomes of standard output or error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// The broker's own.
    Inherit,
    /// Thrown away.
    Null,
    /// Read.
    Piped(Stream),
}

/// How a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// An event for each line; a line longer than the buffer comes in pieces.
    Lines,
    /// An event for whatever there is.
    Pieces,
}

/// What a process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// So many more bytes may be written to a stream.
    Credit { stream: Rc<str>, bytes: usize },
    /// A line with its newline, or a piece.
    Output { stream: Rc<str>, data: Bytes },
    /// Nothing more comes from this stream.
    Eof { stream: Rc<str> },
    /// It has exited with this status of wait(2). More output may come.
    Exited { status: i32 },
}

/// The events of one process, up to its completion.
pub type Events = mpsc::Receiver<Event>;

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    group: bool,
    kill_signal: Signal,
    inputs: RefCell<BTreeMap<String, Input>>,
    exited: Rc<Cell<bool>>,
}

/// Input can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("there is no such stream, or it is closed")]
    NoStream,
    #[error("more was written than there was credit for")]
    NoCredit,
}

// === impl Spec ===

impl Spec {
    /// A command whose output is read by lines, and that has no input.
    pub fn new(argv: Vec<String>, env: BTreeMap<String, String>) -> Spec {
        Spec {
            argv,
            env,
            cwd: None,
            stdin: false,
            stdout: Stdio::Piped(Stream::Lines),
            stderr: Stdio::Piped(Stream::Lines),
            channels: Vec::new(),
            bufsize: BTreeMap::new(),
            group: true,
            dies_with_broker: true,
            kill_signal: Signal::SIGKILL,
        }
    }
}

// === impl Process ===

impl Process {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn has_exited(&self) -> bool {
        self.exited.get()
    }

    /// Write to standard input or to a channel.
    pub fn write(&self, stream: &str, data: Bytes) -> Result<(), WriteError> {
        let inputs = self.inputs.borrow();
        inputs.get(stream).ok_or(WriteError::NoStream)?.write(data)
    }

    /// End a stream, after what was written; one that is closed stays closed.
    pub fn close(&self, stream: &str) {
        if let Some(input) = self.inputs.borrow().get(stream) {
            input.close();
        }
    }

    /// End all input.
    pub fn close_all(&self) {
        for input in self.inputs.borrow().values() {
            input.close();
        }
    }

    /// Send a signal to the process group, or to the process when it has none of its own.
    /// ESRCH: it has exited. EINVAL: no such signal.
    pub fn kill(&self, signum: i32) -> Result<(), Errno> {
        if self.exited.get() {
            return Err(Errno::ESRCH);
        }
        let signal = match signum {
            0 => None,
            _ => Some(Signal::try_from(signum)?),
        };
        let pid = Pid::from_raw(self.pid);
        match self.group {
            true => killpg(pid, signal),
            false => kill(pid, signal),
        }
    }

    /// Kill it. That it is gone already is what is wanted.
    pub fn put_an_end(&self) {
        let _ = self.kill(self.kill_signal as i32);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.put_an_end();
    }
}
