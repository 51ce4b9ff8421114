//! Events: subscriptions and acknowledged publication.

use serde::{Deserialize, Serialize};

use crate::payload::Empty;
use crate::{json_payload, methods};

/// `flags` of [`PublishRequest`]: only the publisher and the instance owner receive it.
pub const PRIVATE: u32 = 32;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublishRequest {
    pub topic: String,
    /// 0 or [`PRIVATE`].
    pub flags: u32,
    /// Base64 of the payload, with the NUL that JSON payloads end with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublishResponse {
    pub seq: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscribeRequest {
    /// What topics must begin with; everything begins with the empty string.
    pub topic: String,
}

json_payload!(PublishRequest, PublishResponse, SubscribeRequest);

methods! {
    /// Sent to rank 0. EPROTO: other flags, or a payload that is not base64.
    Publish: "event.publish", User, One, PublishRequest => PublishResponse;
    /// Subscriptions count: as many unsubscribe requests undo them.
    Subscribe: "event.subscribe", User, One, SubscribeRequest => Empty;
    /// ENOENT: not subscribed.
    Unsubscribe: "event.unsubscribe", User, One, SubscribeRequest => Empty;
}
