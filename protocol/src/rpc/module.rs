//! Broker modules: what is loaded, and what passes in and out of it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::payload::Empty;
use crate::{json_payload, methods};

/// Values of `status`.
pub mod status {
    pub const INIT: u32 = 0;
    pub const RUNNING: u32 = 1;
    pub const FINALIZING: u32 = 2;
    pub const EXITED: u32 = 3;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadRequest {
    /// Name to look for in the search path, or path of a file.
    pub path: String,
    pub args: Vec<String>,
    /// Run the module as a process of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<bool>,
    /// Other name than the module's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveRequest {
    pub name: String,
    /// End it without giving it the chance to finish.
    #[serde(default)]
    pub cancel: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListResponse {
    pub mods: Vec<Module>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Module {
    pub name: String,
    pub path: String,
    /// Seconds since the last message.
    pub idle: u64,
    pub status: u32,
    pub services: Vec<String>,
    pub sendqueue: u64,
    pub recvqueue: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusRequest {
    pub status: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errnum: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DebugRequest {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defer: Option<bool>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceRequest {
    /// Bits of [`crate::message::typemask`].
    pub typemask: u32,
    pub topic_glob: String,
    pub names: Vec<String>,
    /// With payloads.
    #[serde(default)]
    pub full: bool,
}

/// One message that was sent or received; also what `overlay.trace` streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceResponse {
    pub timestamp: f64,
    /// `rx` or `tx`.
    pub prefix: String,
    /// Peer of an overlay message, else -1.
    pub rank: i64,
    /// The module; null in overlay traces.
    pub name: Option<String>,
    #[serde(rename = "type")]
    pub kind: u32,
    pub topic: String,
    pub payload_size: u64,
    /// JSON, when it was asked for and the message has some.
    #[serde(default)]
    pub payload: Option<Box<RawValue>>,
    pub errnum: u32,
    pub errstr: String,
}

json_payload!(
    LoadRequest,
    RemoveRequest,
    ListResponse,
    StatusRequest,
    DebugRequest,
    TraceRequest,
    TraceResponse,
);

methods! {
    /// ENOENT "module not found in search path"; EEXIST: the name is in use; else what its start
    /// failed with.
    Load: "module.load", Owner, One, LoadRequest => Empty;
    /// ENOENT: not loaded.
    Remove: "module.remove", Owner, One, RemoveRequest => Empty;
    List: "module.list", User, One, Empty => ListResponse;
    /// From modules about themselves.
    Status: "module.status", Owner, One, StatusRequest => Empty;
    /// ENOENT: not loaded.
    Debug: "module.debug", Owner, One, DebugRequest => Empty;
    /// Runs until the client leaves.
    Trace: "module.trace", Owner, Stream, TraceRequest => TraceResponse;
    Disconnect: "module.disconnect", Owner, Never, Empty => Empty;
}
