//! The pulse that rank 0 publishes as `heartbeat.pulse`.

use serde::{Deserialize, Serialize};

use crate::payload::Empty;
use crate::{json_payload, methods};

/// Times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatsResponse {
    pub period: f64,
    /// After so long without a pulse a broker leaves its parent; -1 is never.
    pub timeout: f64,
    /// Pulses sent, or received.
    pub count: u64,
    /// Periods after which a late pulse is logged.
    pub warn_thresh: i64,
}

json_payload!(StatsResponse);

methods! {
    Stats: "heartbeat.stats-get", Owner, One, Empty => StatsResponse;
}
