//! The connector that serves the broker's local socket.

use serde::{Deserialize, Serialize};

use crate::payload::{Empty, Object};
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatsResponse {
    pub server: Server,
    pub allow_guest_user: bool,
    pub allow_root_owner: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    /// Uuids of the clients that are connected now.
    pub clients: Vec<String>,
    /// Connections so far.
    pub connects: u64,
}

json_payload!(StatsResponse);

methods! {
    Stats: "connector-local.stats-get", Owner, One, Empty => StatsResponse;
    /// EINVAL: the `[access]` table is wrong.
    ConfigReload: "connector-local.config-reload", Owner, One, Object => Empty;
}
