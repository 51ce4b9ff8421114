//! Listings of jobs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fluid::JobId;
use crate::payload::{Empty, Object};
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListRequest {
    /// 0 is no limit.
    pub max_entries: i64,
    /// Names of attributes; `all` is all.
    pub attrs: Vec<String>,
    /// Only jobs that became inactive after this time.
    #[serde(default)]
    pub since: f64,
    /// RFC 43.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Value>,
    /// In place of a constraint.
    #[serde(flatten)]
    pub legacy: Option<LegacyConstraint>,
}

/// What a listing could ask for before there were constraints; clients of those days still do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LegacyConstraint {
    /// Of nobody in particular: `FLUX_USERID_UNKNOWN`.
    pub userid: i64,
    /// Bits; 0 is all.
    pub states: u64,
    pub results: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
}

/// A streamed response has one job; the first has the version, too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListResponse {
    pub jobs: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListIdRequest {
    pub id: JobId,
    pub attrs: Vec<String>,
    /// Bit of a state that the job is to reach first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListIdResponse {
    pub job: Object,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttrsResponse {
    pub attrs: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stats {
    pub job_states: StateCounts,
    pub successful: u64,
    pub failed: u64,
    pub canceled: u64,
    pub timeout: u64,
    pub inactive_purged: u64,
    /// The same again for each queue that is configured or has had a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<QueueStats>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QueueStats {
    #[serde(flatten)]
    pub stats: Stats,
    pub name: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StateCounts {
    pub depend: u64,
    pub priority: u64,
    pub sched: u64,
    pub run: u64,
    pub cleanup: u64,
    pub inactive: u64,
    pub total: u64,
}

json_payload!(ListRequest, ListResponse, ListIdRequest, ListIdResponse, AttrsResponse, Stats);

methods! {
    /// EPROTO: bad payload or constraint; EINVAL "X is not a valid attribute".
    List: "job-list.list", User, OneOrStream, ListRequest => ListResponse;
    /// ENOENT: no such job.
    ListId: "job-list.list-id", User, One, ListIdRequest => ListIdResponse;
    ListAttrs: "job-list.list-attrs", User, One, Empty => AttrsResponse;
    /// As a stream again on every change.
    JobStats: "job-list.job-stats", User, OneOrStream, Empty => Stats;
    /// For tests: hold back what the journal says.
    StatePause: "job-list.job-state-pause", User, One, Empty => Empty;
    StateUnpause: "job-list.job-state-unpause", User, One, Empty => Empty;
}
