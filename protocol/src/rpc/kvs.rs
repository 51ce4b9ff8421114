//! The key value store (RFC 11).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::payload::{Empty, Object};
use crate::treeobj::Treeobj;
use crate::{json_payload, methods};

/// The namespace that always is there.
pub const PRIMARY: &str = "primary";

/// Bits of `flags` in lookups; those from [`lookup::WATCH`] on are for `kvs-watch.lookup`.
pub mod lookup {
    pub const READDIR: u32 = 1;
    pub const READLINK: u32 = 2;
    pub const WATCH: u32 = 4;
    pub const WAITCREATE: u32 = 8;
    pub const TREEOBJ: u32 = 16;
    /// Look beyond changes of the root reference alone.
    pub const FULL: u32 = 64;
    /// Leave out responses that are equal to the one before.
    pub const UNIQ: u32 = 128;
    /// Respond with what was appended.
    pub const WATCH_APPEND: u32 = 256;
    /// Respond with the pieces of a value one by one.
    pub const STREAM: u32 = 512;
    /// Respond with an empty value after the initial ones.
    pub const SENTINEL: u32 = 1024;
}

/// Bits of `flags` in commits.
pub mod commit {
    /// Do not merge with other transactions.
    pub const NO_MERGE: u32 = 1;
    /// Combine appends to one key within the transaction; clients do that.
    pub const TXN_COMPACT: u32 = 2;
    /// The response says that content and root are on disk. In the primary namespace only.
    pub const SYNC: u32 = 4;
    /// Nobody waits for it: apply it with the next transaction of the namespace that somebody
    /// waits for, or a moment later. Not of flux-core.
    pub const LAZY: u32 = 1 << 16;
}

/// Bit of [`Op::flags`]: append to the value rather than replace it.
pub const OP_APPEND: u32 = 32;

/// The root to look below: a namespace's current one, or a fixed one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LookupRequest {
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Bits of [`lookup`].
    pub flags: u32,
    /// Tree object of a directory, instead of `namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootdir: Option<Treeobj>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootseq: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LookupResponse {
    pub val: Treeobj,
}

/// With a root as the lookup saw it, also where the key is missing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LookupPlusResponse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<Treeobj>,
    /// Why there is no `val`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<u32>,
    pub rootseq: i64,
    pub rootref: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitRequest {
    pub namespace: String,
    /// Bits of [`commit`].
    pub flags: u32,
    pub ops: Vec<Op>,
}

/// One change of a transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Op {
    pub key: String,
    /// 0 or [`OP_APPEND`].
    pub flags: u32,
    /// What to put there; nothing unlinks. The key must be there all the same.
    #[serde(deserialize_with = "Option::deserialize")]
    pub dirent: Option<Treeobj>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rootref {
    pub rootref: String,
    pub rootseq: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RelaycommitRequest {
    pub ops: Vec<Op>,
    /// Of the transaction; the setroot event tells it.
    pub name: String,
    pub namespace: String,
    pub flags: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetrootRequest {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetrootResponse {
    pub owner: u32,
    pub rootseq: i64,
    pub rootref: String,
    pub flags: u32,
    pub namespace: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitVersionRequest {
    pub rootseq: i64,
    pub namespace: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamespaceRequest {
    pub namespace: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamespaceCreateRequest {
    pub namespace: String,
    /// Blobref of the root directory to start with.
    pub rootref: String,
    /// User id; -1 (or 2^32-1) stands for the sender's.
    pub owner: i64,
    pub flags: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamespaceListResponse {
    pub namespaces: Vec<Namespace>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Namespace {
    pub namespace: String,
    pub owner: u32,
    pub flags: u32,
}

/// Event `kvs.namespace-NS-setroot`, private: a namespace has a new root. With the sequence number
/// of the root before, it only tells that transactions have been checkpointed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setroot {
    pub namespace: String,
    pub rootseq: i64,
    pub rootref: String,
    /// Transactions that are in it.
    pub names: Vec<String>,
    /// Keys that they changed, normalized.
    pub keys: BTreeMap<String, ()>,
    pub owner: u32,
}

/// Event `kvs.namespace-NS-error`, private: transactions that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitError {
    pub namespace: String,
    pub names: Vec<String>,
    pub errnum: u32,
}

/// Event `kvs.namespace-NS-created`, private.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamespaceCreated {
    pub namespace: String,
    pub rootseq: i64,
    pub rootref: String,
    pub owner: u32,
}

/// What the topics of a namespace's events begin with: `-setroot` and the like follow. Other
/// namespaces' topics may begin so, too.
pub fn event_prefix(namespace: &str) -> String {
    format!("kvs.namespace-{namespace}")
}

json_payload!(
    Setroot,
    CommitError,
    NamespaceCreated,
    LookupRequest,
    LookupResponse,
    LookupPlusResponse,
    CommitRequest,
    Rootref,
    RelaycommitRequest,
    GetrootRequest,
    GetrootResponse,
    WaitVersionRequest,
    NamespaceRequest,
    NamespaceCreateRequest,
    NamespaceListResponse,
);

methods! {
    /// ENOENT, EISDIR, ENOTDIR; EINVAL: an empty key, or readlink on something else;
    /// EPERM: another owner's namespace; ENOTSUP: no such namespace.
    Lookup: "kvs.lookup", User, One, LookupRequest => LookupResponse;
    LookupPlus: "kvs.lookup-plus", User, One, LookupRequest => LookupPlusResponse;
    /// EPERM: another owner's namespace; ENOTSUP: no such namespace; EINVAL; EPROTO.
    Commit: "kvs.commit", User, One, CommitRequest => Rootref;
    /// From other ranks to rank 0; answered through the setroot event.
    Relaycommit: "kvs.relaycommit", Owner, Never, RelaycommitRequest => Empty;
    Getroot: "kvs.getroot", User, One, GetrootRequest => GetrootResponse;
    /// Answers once the root has that version. ENOTSUP: the namespace has gone.
    WaitVersion: "kvs.wait-version", User, One, WaitVersionRequest => Rootref;
    /// Sent to rank 0. EEXIST.
    NamespaceCreate: "kvs.namespace-create", Owner, One, NamespaceCreateRequest => Empty;
    /// Sent to rank 0; also succeeds where there is none. ENOTSUP: the primary one.
    NamespaceRemove: "kvs.namespace-remove", Owner, One, NamespaceRequest => Empty;
    NamespaceList: "kvs.namespace-list", Owner, One, Empty => NamespaceListResponse;
    /// Hold back setroot events; for tests.
    SetrootPause: "kvs.setroot-pause", User, One, NamespaceRequest => Empty;
    SetrootUnpause: "kvs.setroot-unpause", User, One, NamespaceRequest => Empty;
    /// Keys `cache`, `namespace`, `transaction-opcount`, `pending_requests`.
    Stats: "kvs.stats-get", User, One, Empty => Object;
    Disconnect: "kvs.disconnect", Owner, Never, Empty => Empty;
}
