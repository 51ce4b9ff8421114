//! What can go wrong after a connection has been made.

use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::message::DecodeError;
use flux_protocol::payload::PayloadError;

/// Why a connection has ended. Every open request, stream and subscription sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disconnect {
    #[error("the Flux broker closed the connection")]
    Closed,
    #[error("lost connection to the Flux broker: {0}")]
    Io(Errno),
    #[error("the Flux broker sent a malformed message: {0}")]
    Malformed(#[from] DecodeError),
}

impl Disconnect {
    pub fn errno(&self) -> Errno {
        match self {
            Disconnect::Closed => Errno::ECONNRESET,
            Disconnect::Io(errno) => *errno,
            Disconnect::Malformed(error) => error.errno(),
        }
    }
}

/// Why a request has no usable response.
///
/// Displays as the service's own words where it sent some, else as strerror(3) has it.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The service, or a broker on the way to it, answered with an error.
    #[error("{}", text.clone().unwrap_or_else(|| errno.to_string()))]
    Refused { errno: Errno, text: Option<String> },
    #[error(transparent)]
    Disconnected(#[from] Disconnect),
    /// The request can't be encoded, or the response isn't what the table of topics says.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("no response within {0:?}")]
    TimedOut(Duration),
}

impl RpcError {
    pub fn errno(&self) -> Errno {
        match self {
            RpcError::Refused { errno, .. } => *errno,
            RpcError::Disconnected(reason) => reason.errno(),
            RpcError::Payload(error) => error.errno(),
            RpcError::TimedOut(_) => Errno::ETIMEDOUT,
        }
    }
}
