//! What is kept about a job in the KVS.

use serde::{Deserialize, Serialize};

use crate::fluid::JobId;
use crate::payload::{Empty, Object};
use crate::{json_payload, methods};

/// Bits of the flags of a lookup.
pub mod lookup {
    /// Values are JSON rather than text.
    pub const JSON_DECODE: u32 = 1;
    /// Updates are applied to jobspec and R.
    pub const CURRENT: u32 = 2;
}

/// Bits of the flags of an eventlog watch.
pub mod watch {
    /// Wait until the eventlog exists.
    pub const WAITCREATE: u32 = 1;
    /// Mark the end of what is there by an empty event.
    pub const SENTINEL: u32 = 2;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LookupRequest {
    pub id: JobId,
    /// Below the job's directory, such as `jobspec` or `guest.output`.
    pub keys: Vec<String>,
    /// Bits of [`lookup`].
    pub flags: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventlogWatchRequest {
    pub id: JobId,
    /// `eventlog`, `guest.exec.eventlog`, `guest.output` ...
    pub path: String,
    /// Bits of [`watch`].
    pub flags: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventlogWatchResponse {
    /// One line with its newline.
    pub event: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelRequest {
    pub matchtag: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateRequest {
    pub id: JobId,
    /// `R` or `jobspec`.
    pub key: String,
    pub flags: i64,
}

json_payload!(
    LookupRequest,
    EventlogWatchRequest,
    EventlogWatchResponse,
    CancelRequest,
    UpdateRequest,
);

methods! {
    /// The id, and a member for each key. ENOENT "K: key not found", "invalid job id"; EPERM not
    /// the job's owner; EPROTO bad flags.
    Lookup: "job-info.lookup", User, One, LookupRequest => Object;
    /// ENODATA when the log is complete or the watch is cancelled.
    EventlogWatch: "job-info.eventlog-watch", User, Stream,
        EventlogWatchRequest => EventlogWatchResponse;
    EventlogWatchCancel: "job-info.eventlog-watch-cancel", User, Never, CancelRequest => Empty;
    /// EINVAL "unsupported key".
    UpdateLookup: "job-info.update-lookup", User, One, UpdateRequest => Object;
    /// The value now and after each update; ENODATA when the job ends.
    UpdateWatch: "job-info.update-watch", User, Stream, UpdateRequest => Object;
    UpdateWatchCancel: "job-info.update-watch-cancel", User, Never, CancelRequest => Empty;
}
