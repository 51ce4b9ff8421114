//! Lookups in the key value store that go on as the value changes.

use serde::{Deserialize, Serialize};

use super::kvs::LookupResponse;
use crate::payload::{Empty, Object};
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LookupRequest {
    pub key: String,
    pub namespace: String,
    /// Bits of [`super::kvs::lookup`].
    pub flags: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Of the lookup to end.
    pub matchtag: u32,
}

json_payload!(LookupRequest, CancelRequest);

methods! {
    /// Streams; with WAITCREATE alone one response and no streaming flag. EPROTO: the streaming
    /// flag does not fit. ENOENT, EPERM, EINVAL as in `kvs.lookup`.
    Lookup: "kvs-watch.lookup", User, OneOrStream, LookupRequest => LookupResponse;
    Cancel: "kvs-watch.cancel", User, Never, CancelRequest => Empty;
    Disconnect: "kvs-watch.disconnect", User, Never, Empty => Empty;
    /// Keys `watchers`, `namespace-count`, `namespaces`.
    Stats: "kvs-watch.stats-get", User, One, Empty => Object;
}
