//! The backing store of content, on rank 0.

use serde::{Deserialize, Serialize};

use super::content::{CheckpointGetResponse, CheckpointPutRequest};
use crate::payload::{Empty, Raw, Raws};
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GcInfoRequest {
    pub epoch: i64,
    #[serde(default)]
    pub get_count: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GcInfoResponse {
    pub current_epoch: i64,
    pub high_water: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MarkRequest {
    pub epoch: i64,
    /// Blobrefs.
    pub hashes: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MarkResponse {
    pub marked: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SweepRequest {
    pub epoch: i64,
    pub cursor: i64,
    pub high_water: i64,
    pub delete_cap: i64,
    pub window: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SweepResponse {
    pub deleted: i64,
    pub cursor: i64,
}

json_payload!(
    GcInfoRequest,
    GcInfoResponse,
    MarkRequest,
    MarkResponse,
    SweepRequest,
    SweepResponse,
);

methods! {
    /// Raw digest to blob. ENOENT: unknown. EPROTO: not the size of a digest.
    Load: "content-backing.load", Owner, One, Raw => Raw;
    /// Blob to raw digest.
    Store: "content-backing.store", Owner, One, Raw => Raw;
    /// Blobs to their raw digests; of flux-wasm alone. After an error some may be stored.
    StoreMany: "content-backing.store-many", Owner, One, Raws => Raws;
    /// Raw digest. ENOENT: unknown.
    Validate: "content-backing.validate", Owner, One, Raw => Empty;
    /// ENOENT: no checkpoint yet.
    CheckpointGet: "content-backing.checkpoint-get", Owner, One, Empty => CheckpointGetResponse;
    CheckpointPut: "content-backing.checkpoint-put", Owner, One, CheckpointPutRequest => Empty;
    GcInfo: "content-backing.gc-info", Owner, One, GcInfoRequest => GcInfoResponse;
    Mark: "content-backing.mark", Owner, One, MarkRequest => MarkResponse;
    Sweep: "content-backing.sweep", Owner, One, SweepRequest => SweepResponse;
}
