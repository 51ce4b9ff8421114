//! Remote execution (RFC 42): processes on a broker's host, as children of the broker.
//!
//! `sdexec` has the same methods with the same payloads under its own name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::payload::Empty;
use crate::{json_payload, methods};

/// Bits of `flags` in [`ExecRequest`] and [`AttachRequest`].
pub mod flags {
    /// Send what the process writes.
    pub const STDOUT: u32 = 1;
    pub const STDERR: u32 = 2;
    pub const CHANNEL: u32 = 4;
    /// Announce how much may be written to stdin.
    pub const WRITE_CREDIT: u32 = 8;
    /// Keep a background process until somebody has waited for it.
    pub const WAITABLE: u32 = 16;
}

/// Bits of `local_flags` in [`ExecRequest`].
pub mod local_flags {
    /// Standard streams are the broker's own.
    pub const STDIO_FALLTHROUGH: u32 = 1;
    /// No process group of its own.
    pub const NO_SETPGRP: u32 = 2;
    /// Start it by fork and exec, which lets it be sent SIGTERM when the broker dies.
    pub const FORK_EXEC: u32 = 4;
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Command {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub cmdline: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub opts: BTreeMap<String, String>,
    pub channels: Vec<String>,
    #[serde(default)]
    pub msgchan: Vec<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecRequest {
    pub cmd: Command,
    /// Bits of [`flags`].
    pub flags: u32,
    #[serde(default)]
    pub local_flags: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ExecResponse {
    Started {
        pid: i64,
    },
    /// So many more bytes may be written to these streams.
    AddCredit {
        channels: BTreeMap<String, u64>,
    },
    Output {
        pid: i64,
        io: Io,
    },
    Stopped,
    /// wait(2) status.
    Finished {
        status: i32,
    },
    /// First response to an attach request.
    Attached {
        pid: i64,
        cmd: Command,
    },
}

/// A piece of a stream (RFC 24 data event).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    pub stream: String,
    /// Rank as text.
    pub rank: String,
    /// `base64` where `data` is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eof: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Of the exec request.
    pub matchtag: u32,
    pub io: Io,
}

/// A process by its id, or by its label with `pid` -1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KillRequest {
    pub pid: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub signum: i32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitRequest {
    pub pid: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitResponse {
    /// wait(2) status.
    pub status: i32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<Io>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachRequest {
    pub pid: i64,
    pub flags: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListResponse {
    pub rank: u32,
    pub procs: Vec<Process>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    pub pid: i64,
    /// First word of the command line.
    pub cmd: String,
    /// Empty where there is none.
    pub label: String,
    /// `R` running, `Z` ended but not waited for.
    pub state: String,
}

json_payload!(
    ExecRequest,
    ExecResponse,
    WriteRequest,
    KillRequest,
    WaitRequest,
    WaitResponse,
    AttachRequest,
    ListResponse,
);

methods! {
    /// Streams until the process has ended and its output is complete. Without the streaming
    /// flag the process runs in the background, and the response tells its pid.
    /// ENOENT, EACCES "error launching process: .."; EINVAL; EEXIST: the label is in use.
    Exec: "rexec.exec", Owner, OneOrStream, ExecRequest => ExecResponse;
    Write: "rexec.write", Owner, Never, WriteRequest => Empty;
    /// ESRCH: no such process of this service.
    Kill: "rexec.kill", Owner, One, KillRequest => Empty;
    /// ESRCH; EINVAL: not waitable.
    Wait: "rexec.wait", Owner, One, WaitRequest => WaitResponse;
    /// ENOENT; EBUSY: somebody else is attached.
    Attach: "rexec.attach", Owner, Stream, AttachRequest => ExecResponse;
    List: "rexec.list", Owner, One, Empty => ListResponse;
    /// Ends the foreground processes of the client that has gone.
    Disconnect: "rexec.disconnect", Owner, Never, Empty => Empty;
}
