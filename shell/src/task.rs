//! A task: one process of the job, with pipes for its standard streams.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;

use crate::job::TaskId;

pub(crate) mod lines;
pub(crate) mod spawn;

const READ_CHUNK: usize = 64 << 10;
/// What is kept of stdin for a task that does not read it.
const STDIN_BUFFER: usize = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What a task's process does, in the order of its happening.
#[derive(Debug)]
pub(crate) enum Event {
    Output {
        index: usize,
        stream: Stream,
        data: Bytes,
    },
    Eof {
        index: usize,
        stream: Stream,
    },
    /// It has ended and its streams are closed. wait(2) status.
    Exited {
        index: usize,
        status: i32,
    },
}

/// A process to start.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) id: TaskId,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    /// First word of its command.
    pub(crate) program: String,
    pub(crate) pid: i32,
    /// Leads a process group of its own.
    group: bool,
    /// wait(2) status, once it has ended and its streams are closed.
    pub(crate) status: Option<i32>,
    /// wait(2) status of one whose terminal is still open.
    pub(crate) waiting: Option<i32>,
    stdin: Option<Stdin>,
}

/// `shell.task-exit`, and what the leader is told about it.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub(crate) struct Info {
    pub(crate) localid: usize,
    pub(crate) rank: u32,
    pub(crate) state: String,
    pub(crate) pid: i32,
    pub(crate) wait_status: i32,
    pub(crate) signaled: i32,
    pub(crate) exitcode: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StdinFull {
    /// The task does not read: its stdin is closed.
    Overflow,
    /// Its stdin was closed before.
    Closed,
}

#[derive(Debug)]
struct Stdin {
    data: mpsc::UnboundedSender<Bytes>,
    queued: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

// === impl Stream ===

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

// === impl Task ===

impl Task {
    /// Follow a process that has been started; `events` hears of it.
    pub(crate) fn follow(
        plan: &Plan,
        mut child: Child,
        group: bool,
        events: mpsc::Sender<Event>,
    ) -> Task {
        let index = plan.id.index;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let program = plan.argv.first().cloned().unwrap_or_default();
        let stdin = child.stdin.take().map(Stdin::new);
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        tokio::spawn(async move {
            let read_stdout = async {
                if let Some(stdout) = stdout {
                    pump(stdout, index, Stream::Stdout, &events).await;
                }
            };
            let read_stderr = async {
                if let Some(stderr) = stderr {
                    pump(stderr, index, Stream::Stderr, &events).await;
                }
            };
            let ((), (), status) = tokio::join!(read_stderr, read_stdout, child.wait());
            // Only a child that somebody else has waited for has no status.
            let status = status.map_or(1 << 8, ExitStatusExt::into_raw);
            let _ = events.send(Event::Exited { index, status }).await;
        });
        Task { id: plan.id, program, pid, group, status: None, waiting: None, stdin }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.status.is_some()
    }

    /// Send a signal to the task and the processes that it has started.
    pub(crate) fn kill(&self, signum: i32) -> Result<(), nix::errno::Errno> {
        use nix::sys::signal::{Signal, kill, killpg};
        use nix::unistd::Pid;
        if self.is_complete() || self.pid <= 0 {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid);
        let result = match (Signal::try_from(signum), self.group) {
            (Ok(signal), true) => killpg(pid, signal),
            (Ok(signal), false) => kill(pid, signal),
            (Err(_), group) => {
                crate::sys::kill_realtime(if group { -self.pid } else { self.pid }, signum)
            }
        };
        match result {
            // It has just ended.
            Err(nix::errno::Errno::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Write to the task's stdin, without waiting for it to read.
    pub(crate) fn write_stdin(&mut self, data: Bytes) -> Result<(), StdinFull> {
        let stdin = self.stdin.as_ref().ok_or(StdinFull::Closed)?;
        let result = stdin.write(data);
        if result.is_err() {
            self.stdin = None;
        }
        result
    }

    /// Close the task's stdin when all that was written has gone there.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Exit code as shells have it: 128 and the signal's number where one ended the task.
    pub(crate) fn exit_code(&self) -> i32 {
        self.status.map_or(0, exit_code)
    }

    pub(crate) fn info(&self) -> Info {
        let status = self.status.unwrap_or(0);
        Info {
            localid: self.id.index,
            rank: self.id.rank,
            state: "Exited".to_owned(),
            pid: self.pid,
            wait_status: status,
            signaled: signal_of(status).unwrap_or(0),
            exitcode: exit_code(status),
        }
    }
}

/// The exit code that stands for a wait(2) status.
pub(crate) fn exit_code(status: i32) -> i32 {
    match signal_of(status) {
        Some(signal) => 128 + signal,
        None => (status >> 8) & 0xff,
    }
}

/// The signal that ended a process with that wait(2) status.
pub(crate) fn signal_of(status: i32) -> Option<i32> {
    match status & 0x7f {
        0 | 0x7f => None,
        signal => Some(signal),
    }
}

// === impl Stdin ===

impl Stdin {
    fn new(pipe: ChildStdin) -> Stdin {
        use std::sync::Arc;
        use std::sync::atomic::AtomicUsize;
        let (data, queue) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        tokio::spawn(feed(pipe, queue, queued.clone()));
        Stdin { data, queued }
    }

    fn write(&self, data: Bytes) -> Result<(), StdinFull> {
        use std::sync::atomic::Ordering;
        let len = data.len();
        if self.queued.fetch_add(len, Ordering::Relaxed) + len > STDIN_BUFFER {
            return Err(StdinFull::Overflow);
        }
        self.data.send(data).map_err(|_| StdinFull::Closed)
    }
}

/// Write what comes from the queue, until it has ended or nobody reads.
async fn feed(
    mut pipe: ChildStdin,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    queued: std::sync::Arc<std::sync::atomic::AtomicUsize>,
) {
    while let Some(data) = queue.recv().await {
        if pipe.write_all(&data).await.is_err() {
            return;
        }
        queued.fetch_sub(data.len(), std::sync::atomic::Ordering::Relaxed);
    }
}

/// Send on what a stream says, until its end.
async fn pump(
    mut pipe: impl tokio::io::AsyncRead + Unpin,
    index: usize,
    stream: Stream,
    events: &mpsc::Sender<Event>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_CHUNK);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let data = buffer.split().freeze();
                if events.send(Event::Output { index, stream, data }).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = events.send(Event::Eof { index, stream }).await;
}

/// Standard streams of a task: pipes, or whatever else has been prepared.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams { stdin: Stdio::piped(), stdout: Stdio::piped(), stderr: Stdio::piped() }
    }
}

/// Descriptors that are to be open in the task under the same numbers; closed here when dropped.
pub(crate) type Inherited = Vec<OwnedFd>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_become_exit_codes_as_shells_have_them() {
        for (status, code, signal) in
            [(0, 0, None), (3 << 8, 3, None), (9, 137, Some(9)), (11 | 0x80, 139, Some(11))]
        {
            assert_eq!((exit_code(status), signal_of(status)), (code, signal), "{status}");
        }
    }
}
