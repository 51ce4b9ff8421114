//! The broker process itself, and the commands that it runs at its end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::payload::Empty;
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetenvRequest {
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetenvResponse {
    /// Variables that are not set are absent.
    pub env: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetenvRequest {
    /// Null unsets a variable.
    pub env: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfBuiltinRequest {
    pub keys: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfBuiltinResponse {
    pub values: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunatPushRequest {
    pub name: String,
    /// Lines for the shell; the last that is pushed runs first.
    pub commands: Vec<String>,
}

json_payload!(
    GetenvRequest,
    GetenvResponse,
    SetenvRequest,
    ConfBuiltinRequest,
    ConfBuiltinResponse,
    RunatPushRequest,
);

methods! {
    Getenv: "broker.getenv", Owner, One, GetenvRequest => GetenvResponse;
    Setenv: "broker.setenv", Owner, One, SetenvRequest => Empty;
    /// EINVAL "KEY: invalid key".
    ConfBuiltin: "broker.conf-builtin", Anyone, One, ConfBuiltinRequest => ConfBuiltinResponse;
    Disconnect: "broker.disconnect", Owner, Never, Empty => Empty;
    /// EPROTO: an empty list, or an empty command in it.
    RunatPush: "runat.push", Owner, One, RunatPushRequest => Empty;
}
