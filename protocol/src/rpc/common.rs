//! Methods that every service has, under its own name: `SERVICE.ping` and so on.
//!
//! The topic of these rows is the part behind the service name.

use serde::{Deserialize, Serialize};

use crate::json_payload;

/// Appended to the keys of a ping request in its response.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PingResponse {
    /// First eight characters of each hop, joined by `!`.
    pub route: String,
    pub userid: u32,
    pub rolemask: u32,
    pub rank: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RusageRequest {
    /// `self`, `children` or `thread`.
    #[serde(default)]
    pub who: Option<String>,
}

/// getrusage(2); times in seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RusageResponse {
    pub utime: f64,
    pub stime: f64,
    pub maxrss: i64,
    pub ixrss: i64,
    pub idrss: i64,
    pub isrss: i64,
    pub minflt: i64,
    pub majflt: i64,
    pub nswap: i64,
    pub inblock: i64,
    pub oublock: i64,
    pub msgsnd: i64,
    pub msgrcv: i64,
    pub nsignals: i64,
    pub nvcsw: i64,
    pub nivcsw: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DebugRequest {
    /// `setbit`, `clrbit`, `set` or `clr`.
    pub op: String,
    pub flags: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DebugResponse {
    pub flags: i64,
}

json_payload!(PingResponse, RusageRequest, RusageResponse, DebugRequest, DebugResponse);
