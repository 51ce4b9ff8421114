//! The broker's life from join to exit.

use serde::{Deserialize, Serialize};

use bytes::Bytes;

use crate::payload::{self, Empty, Payload, PayloadError};
use crate::{json_payload, methods};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetResponse {
    pub state: String,
    /// Seconds in this state.
    pub duration: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MonitorRequest {
    /// The stream ends after this state.
    #[serde(rename = "final", default = "exit")]
    pub last: u32,
}

/// The number of the state in which a broker ends.
const EXIT: u32 = 11;

fn exit() -> u32 {
    EXIT
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MonitorResponse {
    pub state: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PostRequest {
    pub event: String,
    #[serde(default)]
    pub error: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SdNotifyRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

json_payload!(GetResponse, MonitorResponse, PostRequest, SdNotifyRequest);

impl Payload for MonitorRequest {
    /// Who says nothing of a last state wants them all.
    fn decode(payload: Option<&Bytes>) -> Result<MonitorRequest, PayloadError> {
        match payload {
            Some(_) => payload::decode_json(payload),
            None => Ok(MonitorRequest { last: EXIT }),
        }
    }
    fn encode(&self) -> Result<Option<Bytes>, PayloadError> {
        payload::encode_json(self)
    }
}

methods! {
    Get: "state-machine.get", User, One, Empty => GetResponse;
    /// Answers when the broker enters run. ENOENT "broker has surpassed RUN state".
    Wait: "state-machine.wait", User, One, Empty => Empty;
    /// With the streaming flag one response per change of state, ENODATA after the last.
    Monitor: "state-machine.monitor", Owner, OneOrStream, MonitorRequest => MonitorResponse;
    Post: "state-machine.post", Owner, Never, PostRequest => Empty;
    SdNotify: "state-machine.sd-notify", Owner, Never, SdNotifyRequest => Empty;
    Disconnect: "state-machine.disconnect", Owner, Never, Empty => Empty;
}
