//! Profiles of the broker's heap.

use serde::{Deserialize, Serialize};

use crate::payload::Empty;
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRequest {
    pub filename: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DumpRequest {
    pub reason: String,
}

json_payload!(StartRequest, DumpRequest);

methods! {
    /// ENOSYS: the broker was built without a profiler.
    Start: "heaptrace.start", Owner, One, StartRequest => Empty;
    Dump: "heaptrace.dump", Owner, One, DumpRequest => Empty;
    Stop: "heaptrace.stop", Owner, One, Empty => Empty;
}
