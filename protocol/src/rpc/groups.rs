//! Groups of brokers, such as `broker.online`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::payload::Empty;
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NameRequest {
    pub name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetResponse {
    /// Idset of ranks; empty for an unknown group.
    pub members: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateRequest {
    /// By group, in order.
    pub update: BTreeMap<String, Vec<Change>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Idset.
    pub ranks: String,
    /// Join rather than leave.
    pub set: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatsResponse {
    pub subtree: Value,
}

json_payload!(NameRequest, GetResponse, UpdateRequest, StatsResponse);

methods! {
    /// EEXIST "rank N is already a member of G"; EPROTO: not from this broker.
    Join: "groups.join", Owner, One, NameRequest => Empty;
    /// ENOENT "rank N is not a member of G"; EPROTO: not from this broker.
    Leave: "groups.leave", Owner, One, NameRequest => Empty;
    /// Rank 0 only; with the streaming flag again on every change.
    Get: "groups.get", User, OneOrStream, NameRequest => GetResponse;
    /// From child brokers.
    Update: "groups.update", Owner, Never, UpdateRequest => Empty;
    Stats: "groups.stats-get", User, One, Empty => StatsResponse;
    Disconnect: "groups.disconnect", User, Never, Empty => Empty;
}
