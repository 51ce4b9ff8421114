//! Services that clients register.

use serde::{Deserialize, Serialize};

use crate::payload::Empty;
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddRequest {
    pub service: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveRequest {
    pub service: String,
}

json_payload!(AddRequest, RemoveRequest);

methods! {
    /// EEXIST: the name is taken. EPERM: a guest's must begin with its user id and `-`.
    Add: "service.add", User, One, AddRequest => Empty;
    /// ENOENT: not registered, or by somebody else.
    Remove: "service.remove", User, One, RemoveRequest => Empty;
}
