//! Commands that run at times and on events.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::payload::{Object, Payload, PayloadError};
use crate::{json_payload, methods};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CreateRequest {
    /// `interval`, `event` or `datetime`.
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub command: String,
    /// `interval` and `after`; `topic`, `nth`, `after` and `min_interval`; or `second`, `minute`,
    /// `hour`, `mday`, `month`, `year` and `weekday`.
    pub args: Object,
    /// How often at most; 0 is without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environ: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    #[serde(rename = "task-history-count", default, skip_serializing_if = "Option::is_none")]
    pub task_history_count: Option<u64>,
    /// Stop after so many failures.
    #[serde(rename = "stop-on-failure", default, skip_serializing_if = "Option::is_none")]
    pub stop_on_failure: Option<u64>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub id: u64,
    pub rank: u32,
    pub name: String,
    pub command: String,
    pub repeat: u64,
    pub stopped: bool,
    #[serde(rename = "type")]
    pub kind: String,
    pub stats: Stats,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    #[serde(rename = "stop-on-failure", default, skip_serializing_if = "Option::is_none")]
    pub stop_on_failure: Option<u64>,
    /// By kind: when it runs next, or what it waits for.
    pub typedata: Object,
    /// The latest runs.
    pub tasks: Vec<Object>,
}

/// Times in seconds since 1970, 0 for never.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stats {
    pub ctime: f64,
    pub starttime: f64,
    pub lastrun: f64,
    pub count: u64,
    pub failcount: u64,
    pub total: u64,
    pub success: u64,
    pub failure: u64,
    pub deferred: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteRequest {
    pub id: u64,
    /// Also end a run that is under way.
    #[serde(default)]
    pub kill: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdRequest {
    pub id: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListResponse {
    pub entries: Vec<Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Event to align runs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable: Option<bool>,
    /// Seconds around the event in which runs start at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_epsilon: Option<f64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SyncResponse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_event: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_epsilon: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_disabled: Option<bool>,
}

/// An empty object; a message without payload is as good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListRequest;

impl Payload for ListRequest {
    fn decode(_: Option<&Bytes>) -> Result<ListRequest, PayloadError> {
        Ok(ListRequest)
    }
    fn encode(&self) -> Result<Option<Bytes>, PayloadError> {
        Object::new().encode()
    }
}

json_payload!(
    CreateRequest,
    Entry,
    DeleteRequest,
    IdRequest,
    ListResponse,
    SyncRequest,
    SyncResponse,
);

methods! {
    /// EPROTO, EINVAL: what the request says is no schedule.
    Create: "cron.create", Owner, One, CreateRequest => Entry;
    /// ENOENT.
    Delete: "cron.delete", Owner, One, DeleteRequest => Entry;
    List: "cron.list", Owner, One, ListRequest => ListResponse;
    /// ENOENT.
    Start: "cron.start", Owner, One, IdRequest => Entry;
    /// ENOENT.
    Stop: "cron.stop", Owner, One, IdRequest => Entry;
    Sync: "cron.sync", Owner, One, SyncRequest => SyncResponse;
}
