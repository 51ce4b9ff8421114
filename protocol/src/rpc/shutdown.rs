//! Orderly end of the instance.

use serde::{Deserialize, Serialize};

use crate::payload::Empty;
use crate::{json_payload, methods};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StartRequest {
    /// Highest severity number of log lines to stream; needed with the streaming flag only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loglevel: Option<u32>,
}

/// One or more lines of the log, each with its newline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartResponse {
    pub log: String,
}

json_payload!(StartRequest, StartResponse);

methods! {
    /// With the streaming flag the log until shutdown is complete, else one answer at once.
    /// EINVAL: not rank 0, or not running.
    Start: "shutdown.start", Owner, OneOrStream, StartRequest => StartResponse;
    /// Same topic without the streaming flag: answers at once.
    StartOnly: "shutdown.start", Owner, One, StartRequest => Empty;
    Disconnect: "shutdown.disconnect", Owner, Never, Empty => Empty;
}
