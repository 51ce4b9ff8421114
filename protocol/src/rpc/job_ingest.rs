//! Where jobs come in: signature, validation, job id, storage.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fluid::JobId;
use crate::payload::Empty;
use crate::{json_payload, methods};

/// Bits of the flags of a submit request, and of a job. (Bit 0 is the client library's own, "was
/// signed before": it is never sent.)
pub mod flags {
    /// Keep debugging events in the eventlog.
    pub const DEBUG: u32 = 2;
    /// The owner may wait for the job with `job-manager.wait`.
    pub const WAITABLE: u32 = 4;
    /// The owner's job is not validated.
    pub const NOVALIDATE: u32 = 8;
    pub const ALL: u32 = DEBUG | WAITABLE | NOVALIDATE;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubmitRequest {
    /// Signed jobspec (RFC 15).
    #[serde(rename = "J")]
    pub j: String,
    /// 0 (hold) to 31 (expedite).
    pub urgency: i64,
    /// Bits of [`flags`].
    pub flags: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubmitResponse {
    pub id: JobId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetinfoResponse {
    /// Milliseconds of the FLUID clock at rank 0.
    pub timestamp: u64,
}

json_payload!(SubmitRequest, SubmitResponse, GetinfoResponse);

methods! {
    /// EINVAL, with the verdict, when the job is refused; EPERM signer or flags that guests may
    /// not use; EPROTO bad flags.
    Submit: "job-ingest.submit", User, One, SubmitRequest => SubmitResponse;
    Getinfo: "job-ingest.getinfo", Owner, One, Empty => GetinfoResponse;
    Shutdown: "job-ingest.shutdown", Owner, Never, Empty => Empty;
    Stats: "job-ingest.stats-get", User, One, Empty => Value;
}
