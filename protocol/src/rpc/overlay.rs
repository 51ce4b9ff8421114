//! The tree of brokers.

use serde::{Deserialize, Serialize};

use super::module::TraceResponse;
use crate::payload::Empty;
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HealthResponse {
    pub rank: u32,
    /// `full`, `partial`, `degraded`, `lost` or `offline`, of the whole subtree.
    pub status: String,
    /// Seconds in this status.
    pub duration: f64,
    pub children: Vec<ChildHealth>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChildHealth {
    pub rank: u32,
    pub status: String,
    pub duration: f64,
    /// Why it is lost or offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RankRequest {
    pub rank: u32,
}

/// A broker and what is below it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopologyResponse {
    pub rank: u32,
    /// Number of brokers in this subtree.
    pub size: u32,
    pub children: Vec<TopologyResponse>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MonitorResponse {
    pub rank: u32,
    pub status: String,
    pub torpid: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceRequest {
    /// Bits of [`crate::message::typemask`].
    pub typemask: u32,
    pub topic_glob: String,
    /// Rank of a peer, or -1 for all.
    pub nodeid: i64,
    /// With payloads.
    #[serde(default)]
    pub full: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatsResponse {
    #[serde(rename = "child-count")]
    pub child_count: u64,
    #[serde(rename = "child-connected")]
    pub child_connected: u64,
    #[serde(rename = "parent-count")]
    pub parent_count: u64,
    #[serde(rename = "parent-rpc")]
    pub parent_rpc: u64,
    #[serde(rename = "child-rpc")]
    pub child_rpc: u64,
    pub interthread: QueueStats,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueStats {
    pub sendq: u64,
    pub recvq: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DisconnectParentRequest {
    pub reason: String,
}

/// Sent up to the parent as the first message, never routed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HelloRequest {
    pub rank: i64,
    /// `major << 16 | minor << 8 | patch`.
    pub version: u32,
    pub uuid: String,
    pub status: u32,
    #[serde(default)]
    pub hostname: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HelloResponse {
    pub uuid: String,
}

json_payload!(
    HealthResponse,
    RankRequest,
    TopologyResponse,
    MonitorResponse,
    TraceRequest,
    StatsResponse,
    DisconnectParentRequest,
    HelloRequest,
    HelloResponse,
);

methods! {
    /// Of the broker that it is addressed to; with the streaming flag again on every change.
    Health: "overlay.health", User, OneOrStream, Empty => HealthResponse;
    /// ENOENT "requested rank is not this broker or its direct child".
    Topology: "overlay.topology", User, One, RankRequest => TopologyResponse;
    /// Every child now, then every change.
    Monitor: "overlay.monitor", Owner, Stream, Empty => MonitorResponse;
    /// Runs until the client leaves.
    Trace: "overlay.trace", Owner, Stream, TraceRequest => TraceResponse;
    Stats: "overlay.stats-get", User, One, Empty => StatsResponse;
    /// Sent to the parent of that rank. ENOENT: not its child. EINVAL: already lost or offline.
    DisconnectSubtree: "overlay.disconnect-subtree", Owner, One, RankRequest => Empty;
    DisconnectParent: "overlay.disconnect-parent", Owner, Never, DisconnectParentRequest => Empty;
    /// EPERM, EINVAL: the parent refuses this child, and says why.
    Hello: "overlay.hello", Owner, One, HelloRequest => HelloResponse;
    Goodbye: "overlay.goodbye", Owner, One, Empty => Empty;
}
