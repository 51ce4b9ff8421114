//! The broker's log (RFC 5424 lines in a ring buffer).

use serde::{Deserialize, Serialize};

use crate::payload::{Empty, Raw, Text};
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DmesgRequest {
    /// Go on with new lines after those in the buffer.
    pub follow: bool,
    /// Leave out the lines that are in the buffer.
    #[serde(default)]
    pub nobacklog: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Of the dmesg request to end.
    pub matchtag: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatsResponse {
    #[serde(rename = "ring-used")]
    pub ring_used: u64,
    pub count: u64,
    pub local: u64,
    pub remote: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetattrRequest {
    pub name: String,
    pub value: String,
}

json_payload!(DmesgRequest, CancelRequest, StatsResponse, SetattrRequest);

methods! {
    /// One RFC 5424 line without NUL; usually sent with the no-response flag.
    Append: "log.append", Owner, One, Raw => Empty;
    Clear: "log.clear", Owner, One, Empty => Empty;
    /// One RFC 5424 line per response. Without `follow` it ends after the buffer.
    Dmesg: "log.dmesg", Owner, Stream, DmesgRequest => Text;
    Cancel: "log.cancel", Owner, Never, CancelRequest => Empty;
    Disconnect: "log.disconnect", Owner, Never, Empty => Empty;
    Stats: "log.stats-get", Owner, One, Empty => StatsResponse;
    /// EINVAL: no such attribute, or a bad value.
    Setattr: "log.setattr", Owner, One, SetattrRequest => Empty;
}
