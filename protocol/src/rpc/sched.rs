//! The scheduler (RFC 27).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use serde_repr::{Deserialize_repr, Serialize_repr};

use crate::fluid::JobId;
use crate::payload::Empty;
use crate::{json_payload, methods};

/// Sent without matchtag and streaming flag; responses are told apart by topic and id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AllocRequest {
    pub id: JobId,
    pub priority: i64,
    pub userid: u32,
    pub t_submit: f64,
    /// Without the environment.
    pub jobspec: Box<RawValue>,
}

/// What a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum AllocType {
    Success = 0,
    Annotate = 1,
    Deny = 2,
    Cancel = 3,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AllocResponse {
    pub id: JobId,
    #[serde(rename = "type")]
    pub kind: AllocType,
    #[serde(default, rename = "R", skip_serializing_if = "Option::is_none")]
    pub r: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelRequest {
    pub id: JobId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FreeRequest {
    pub id: JobId,
    #[serde(rename = "R")]
    pub r: Box<RawValue>,
    /// The job has nothing left after this.
    #[serde(default, rename = "final")]
    pub is_final: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrioritizeRequest {
    pub jobs: Vec<(JobId, i64)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpirationRequest {
    pub id: JobId,
    /// Seconds since 1970; 0 is never.
    pub expiration: f64,
}

/// R objects; null where there are no resources.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourceStatusResponse {
    pub all: Value,
    pub allocated: Value,
    pub down: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FeasibilityRequest {
    pub jobspec: Box<RawValue>,
}

json_payload!(
    AllocRequest,
    AllocResponse,
    CancelRequest,
    FreeRequest,
    PrioritizeRequest,
    ExpirationRequest,
    ResourceStatusResponse,
    FeasibilityRequest,
);

methods! {
    /// An errnum response ends the interface.
    Alloc: "sched.alloc", Owner, One, AllocRequest => AllocResponse;
    /// Answered by a response to the alloc request.
    Cancel: "sched.cancel", Owner, Never, CancelRequest => Empty;
    Free: "sched.free", Owner, Never, FreeRequest => Empty;
    Prioritize: "sched.prioritize", Owner, Never, PrioritizeRequest => Empty;
    /// An error refuses the change.
    Expiration: "sched.expiration", Owner, One, ExpirationRequest => Empty;
    ResourceStatus: "sched.resource-status", Owner, One, Empty => ResourceStatusResponse;
    /// EINVAL malformed; EOVERFLOW, EINVAL "unsatisfiable request".
    Feasibility: "feasibility.check", User, One, FeasibilityRequest => Empty;
}
