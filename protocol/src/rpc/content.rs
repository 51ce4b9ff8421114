//! The store of blobs that are addressed by their digest (RFC 10), and its backing store.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::payload::{Empty, Raw, Raws};
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackingRequest {
    pub name: String,
}

/// The root of a key value store at some time (RFC 34).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub version: u32,
    /// Blobref of the root directory.
    pub rootref: String,
    #[serde(default)]
    pub sequence: i64,
    /// Seconds since 1970; 0 where an old store does not tell.
    #[serde(default)]
    pub timestamp: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckpointGetResponse {
    /// Newest first.
    pub value: Vec<Checkpoint>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckpointPutRequest {
    pub value: Checkpoint,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MmapAddRequest {
    pub path: String,
    pub chunksize: u64,
    pub tag: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MmapRemoveRequest {
    pub tag: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatsResponse {
    pub count: u64,
    pub valid: u64,
    pub dirty: u64,
    /// Bytes.
    pub size: u64,
    #[serde(rename = "flush-batch-count")]
    pub flush_batch_count: u64,
    pub mmap: Value,
}

json_payload!(
    BackingRequest,
    CheckpointGetResponse,
    CheckpointPutRequest,
    MmapAddRequest,
    MmapRemoveRequest,
    StatsResponse,
);

methods! {
    /// Raw digest to blob. ENOENT: unknown. EPROTO: not the size of a digest.
    Load: "content.load", Owner, One, Raw => Raw;
    /// Blob to raw digest. EFBIG: larger than the limit.
    Store: "content.store", Owner, One, Raw => Raw;
    /// Blobs to their raw digests, at once; of flux-wasm alone. EFBIG: one is larger than the limit,
    /// and none is stored. EINVAL: not rank 0.
    StoreMany: "content.store-many", Owner, One, Raws => Raws;
    /// ENOSYS: no backing store.
    Flush: "content.flush", Owner, One, Empty => Empty;
    Dropcache: "content.dropcache", Owner, One, Empty => Empty;
    Stats: "content.stats-get", Owner, One, Empty => StatsResponse;
    /// EBUSY "already active". EINVAL: not rank 0, or another store than before.
    RegisterBacking: "content.register-backing", Owner, One, BackingRequest => Empty;
    /// The payload is not looked at. EINVAL "not active".
    UnregisterBacking: "content.unregister-backing", Owner, One, Empty => Empty;
    /// ENOSYS: no backing store. ENOENT: no checkpoint yet.
    CheckpointGet: "content.checkpoint-get", Owner, One, Empty => CheckpointGetResponse;
    CheckpointPut: "content.checkpoint-put", Owner, One, CheckpointPutRequest => Empty;
    /// The payload is not looked at. EINVAL: not rank 0, or no regular file.
    MmapAdd: "content.mmap-add", Owner, One, MmapAddRequest => Value;
    MmapRemove: "content.mmap-remove", Owner, One, MmapRemoveRequest => Empty;
}
