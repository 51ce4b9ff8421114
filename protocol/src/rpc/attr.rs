//! Broker attributes.

use serde::{Deserialize, Serialize};

use crate::payload::Empty;
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetRequest {
    pub name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetResponse {
    pub value: String,
    /// 1: the value never changes, and a client may cache it.
    pub flags: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListResponse {
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetRequest {
    pub name: String,
    pub value: String,
    /// Also set what is otherwise read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveRequest {
    pub name: String,
}

json_payload!(GetRequest, GetResponse, ListResponse, SetRequest, RemoveRequest);

methods! {
    /// ENOENT: no such attribute.
    Get: "attr.get", Anyone, One, GetRequest => GetResponse;
    List: "attr.list", Anyone, One, Empty => ListResponse;
    /// ENOENT "unknown attribute"; EINVAL "attribute may not be updated", or a bad value.
    Set: "attr.set", Owner, One, SetRequest => Empty;
    /// ENOENT: no such attribute. EPERM: it may not be removed.
    Remove: "attr.rm", Owner, One, RemoveRequest => Empty;
}
