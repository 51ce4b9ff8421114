//! Execution of jobs (RFC 32).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fluid::JobId;
use crate::payload::Empty;
use crate::{json_payload, methods};

/// Sent without matchtag and streaming flag; responses are told apart by topic and id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRequest {
    pub id: JobId,
    pub userid: u32,
    /// Without the environment.
    pub jobspec: Box<RawValue>,
    /// The job ran before a restart.
    #[serde(default)]
    pub reattach: bool,
    #[serde(rename = "R")]
    pub r: Box<RawValue>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartResponse {
    pub id: JobId,
    #[serde(flatten)]
    pub event: StartEvent,
}

/// What happens to the job; `release` with `final` is the last.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
pub enum StartEvent {
    Start {},
    /// A job that ran before a restart goes on.
    Reattached {},
    Release {
        /// Idset, or `all`.
        ranks: String,
        #[serde(rename = "final")]
        is_final: bool,
    },
    Exception {
        severity: u32,
        #[serde(rename = "type")]
        kind: String,
        note: String,
    },
    Finish {
        /// wait(2) status.
        status: i32,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpirationRequest {
    pub id: JobId,
    /// Seconds since 1970; 0 is never.
    pub expiration: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CriticalRanksRequest {
    pub id: JobId,
    /// Idset.
    pub ranks: String,
}

/// Start or finish a simulated job by hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OverrideRequest {
    /// `start` or `finish`.
    pub event: String,
    pub jobid: JobId,
    /// wait(2) status, for `finish`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
}

/// Sent with the no-response flag and matchtag 0, and answered all the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BarrierRequest {
    pub id: JobId,
    /// Shell rank.
    pub rank: i64,
}

json_payload!(
    StartRequest,
    StartResponse,
    ExpirationRequest,
    CriticalRanksRequest,
    OverrideRequest,
    BarrierRequest,
);

methods! {
    /// An errnum response ends the interface.
    Start: "job-exec.start", Owner, One, StartRequest => StartResponse;
    Expiration: "job-exec.expiration", Owner, One, ExpirationRequest => Empty;
    /// ENOENT: no such job; EPERM: another's job.
    CriticalRanks: "job-exec.critical-ranks", User, One, CriticalRanksRequest => Empty;
    /// ENOENT "Job not found"; EPERM: another's job; EINVAL: not to be started by hand, or not now.
    Override: "job-exec.override", User, One, OverrideRequest => Empty;
    /// ENOENT "job not found"; EPERM: another's job; EIO: the job has an exception.
    ShellBarrier: "job-exec.shell-barrier", User, One, BarrierRequest => Empty;
}
