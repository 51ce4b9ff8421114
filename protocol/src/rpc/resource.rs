//! Resources of the instance: inventory, drain state, and who may use them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::eventlog::Event;
use crate::payload::{Empty, Payload, PayloadError, Text, decode_json, encode_json};
use crate::{json_payload, methods};

/// What a scheduler can do beyond RFC 28; a request without payload can do nothing more.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct AcquireRequest {
    /// It may be told of more resources later: a response with all `resources` and what of the
    /// new ones is `up`.
    #[serde(default)]
    pub grow: bool,
}

impl Payload for AcquireRequest {
    fn decode(payload: Option<&Bytes>) -> Result<AcquireRequest, PayloadError> {
        match payload {
            None => Ok(AcquireRequest::default()),
            Some(_) => decode_json(payload),
        }
    }
    fn encode(&self) -> Result<Option<Bytes>, PayloadError> {
        encode_json(self)
    }
}

/// In the first response `resources` and `up`, then whatever has changed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AcquireResponse {
    /// R (RFC 20).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Value>,
    /// Idset of execution targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
    /// Execution targets that are gone for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrink: Option<String>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusResponse {
    #[serde(rename = "R")]
    pub r: Value,
    /// By idset of ranks.
    pub drain: BTreeMap<String, DrainInfo>,
    /// Idsets of ranks.
    pub online: String,
    pub offline: String,
    pub exclude: String,
    #[serde(default)]
    pub torpid: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainInfo {
    pub timestamp: f64,
    pub reason: String,
}

/// R objects; null where there are no resources.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SchedStatusResponse {
    pub all: Value,
    pub down: Value,
    pub allocated: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetResponse {
    #[serde(rename = "R")]
    pub r: Value,
    /// Where R is from, such as `configuration` or `dynamic-discovery`.
    pub method: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopoReduceRequest {
    pub count: u32,
    pub resource: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainRequest {
    /// Idset or hostlist.
    pub targets: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `update`: only where there is no reason yet; `overwrite`: new reason; `force-overwrite`: new
    /// reason and time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UndrainRequest {
    /// Idset or hostlist.
    pub targets: String,
    /// `update`, `overwrite` or `force-overwrite`: also those that are not drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadRequest {
    pub path: String,
    /// `path` is a folder of hwloc XML files rather than R.
    pub xml: bool,
    /// Also when ranks exceed the instance's size.
    pub force: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpirationRequest {
    pub expiration: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitupRequest {
    /// Number of brokers.
    pub up: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForceDownRequest {
    /// Idset.
    pub ranks: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JournalResponse {
    /// In the order of their happening; empty at the end of what happened before the request.
    pub events: Vec<Event>,
    /// With the event `resource-define`.
    #[serde(rename = "R", default, skip_serializing_if = "Option::is_none")]
    pub r: Option<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Of the request to end.
    pub matchtag: u32,
}

json_payload!(
    AcquireResponse,
    StatusResponse,
    SchedStatusResponse,
    GetResponse,
    TopoReduceRequest,
    DrainRequest,
    UndrainRequest,
    ReloadRequest,
    ExpirationRequest,
    WaitupRequest,
    ForceDownRequest,
    JournalResponse,
    CancelRequest,
);

methods! {
    /// For the scheduler (RFC 27 and 28); several responses even without the streaming flag.
    /// EBUSY: there is another scheduler.
    Acquire: "resource.acquire", Owner, OneOrStream, AcquireRequest => AcquireResponse;
    /// The acquire request ends with ENODATA.
    AcquireCancel: "resource.acquire-cancel", Owner, Never, CancelRequest => Empty;
    /// No more responses to the acquire request until the next one.
    AcquireMute: "resource.acquire-mute", Owner, One, Empty => Empty;
    /// Rank 0 only, else EPROTO.
    Status: "resource.status", User, One, Empty => StatusResponse;
    /// Rank 0 only, else EPROTO.
    SchedStatus: "resource.sched-status", User, One, Empty => SchedStatusResponse;
    /// ENOENT: not known yet.
    Get: "resource.get", Owner, One, Empty => GetResponse;
    /// hwloc XML of this broker's host.
    TopoGet: "resource.topo-get", User, One, Empty => Text;
    /// From a broker to its parent.
    TopoReduce: "resource.topo-reduce", Owner, Never, TopoReduceRequest => Empty;
    /// EEXIST "rank N already drained"; EINVAL: bad targets or mode.
    Drain: "resource.drain", Owner, One, DrainRequest => Empty;
    /// EEXIST "rank N not drained"; EINVAL: bad targets or mode.
    Undrain: "resource.undrain", Owner, One, UndrainRequest => Empty;
    /// ENOENT; EBUSY: a scheduler is loaded; EINVAL: ranks exceed the size.
    Reload: "resource.reload", Owner, One, ReloadRequest => Empty;
    ExpirationUpdate: "resource.expiration-update", Owner, One, ExpirationRequest => Empty;
    /// Answers once so many brokers are up.
    MonitorWaitup: "resource.monitor-waitup", Owner, One, WaitupRequest => Empty;
    MonitorForceDown: "resource.monitor-force-down", Owner, One, ForceDownRequest => Empty;
    /// The resource eventlog, from its begin and as it grows. EPROTO without the streaming flag.
    Journal: "resource.journal", Owner, OneOrStream, Empty => JournalResponse;
    JournalCancel: "resource.journal-cancel", Owner, Never, CancelRequest => Empty;
    Disconnect: "resource.disconnect", User, Never, Empty => Empty;
}
