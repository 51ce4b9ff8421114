//! What the transport has to tell an administrator.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use flux_cert::PublicKey;
use flux_protocol::errno::Errno;

use super::monitor::protocol_error_text;
use crate::log::Severity;

/// A change of a link, or an attempt at one. Displays as a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A child has shown a key that is allowed; `name` was given with the key.
    ChildAuthenticated { address: String, name: String },
    /// Somebody has shown a key that is not allowed, or none.
    ChildRefused { address: String, key: Option<PublicKey> },
    /// Somebody failed the handshake before showing a key.
    ChildHandshakeFailed { remote: String, cause: HandshakeError },
    /// A connection could not be taken, for want of descriptors as a rule.
    AcceptFailed { errno: Errno },
    /// A child sent what is no message: too many parts, or under an unusable name.
    ChildMalformed,
    /// The link to the parent is up.
    ParentConnected { endpoint: String },
    /// The parent does not accept this broker's key. The transport tries again later; messages
    /// that were sent until then are lost.
    ParentRefused { endpoint: String },
    /// The handshake failed. The transport tries again.
    ParentHandshakeFailed { endpoint: String, cause: HandshakeError },
    /// There is no answer. The transport tries again.
    ParentUnreachable { endpoint: String },
    /// The link was up and broke. The transport tries to bring it up again.
    ParentDisconnected { endpoint: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeError {
    /// A ZMTP protocol error, `ZMQ_PROTOCOL_ERROR_*`.
    Protocol(u32),
    /// The other side closed the connection or stopped answering.
    Cut(Errno),
}

// === impl Notice ===

impl Notice {
    pub fn severity(&self) -> Severity {
        match self {
            Self::ChildAuthenticated { .. } | Self::ParentConnected { .. } => Severity::Debug,
            Self::ParentUnreachable { .. } => Severity::Warning,
            Self::ChildRefused { .. }
            | Self::ChildHandshakeFailed { .. }
            | Self::AcceptFailed { .. }
            | Self::ChildMalformed
            | Self::ParentRefused { .. }
            | Self::ParentHandshakeFailed { .. }
            | Self::ParentDisconnected { .. } => Severity::Err,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChildAuthenticated { address, name } => {
                write!(f, "authenticated {name} at {}", or_local(address))
            }
            Self::ChildRefused { address, key: Some(key) } => {
                write!(
                    f,
                    "authentication of {} refused: unknown public key {key}",
                    or_local(address)
                )
            }
            Self::ChildRefused { address, key: None } => {
                write!(f, "authentication of {} refused: no CURVE public key", or_local(address))
            }
            Self::ChildHandshakeFailed { remote, cause } => {
                write!(f, "authentication of {} failed: {cause}", or_local(remote))
            }
            Self::AcceptFailed { errno } => {
                write!(f, "cannot accept a connection: {}", errno.text().unwrap_or("unknown error"))
            }
            Self::ChildMalformed => write!(f, "dropped a malformed message of a child"),
            Self::ParentConnected { endpoint } => write!(f, "connected to parent {endpoint}"),
            Self::ParentRefused { endpoint } => write!(
                f,
                "authentication refused by parent {endpoint}: it does not know this broker's \
                 public key"
            ),
            Self::ParentHandshakeFailed { endpoint, cause } => {
                write!(f, "authentication with parent {endpoint} failed: {cause}")
            }
            Self::ParentUnreachable { endpoint } => {
                write!(f, "parent {endpoint} is not reachable, trying again")
            }
            Self::ParentDisconnected { endpoint } => {
                write!(f, "connection to parent {endpoint} was lost")
            }
        }
    }
}

/// Peers on local sockets have no address.
fn or_local(address: &str) -> &str {
    if address.is_empty() { "a local peer" } else { address }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(zmq_sys::ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC) => {
                write!(f, "message not encrypted for this key, is the certificate the same?")
            }
            Self::Protocol(code) => f.write_str(protocol_error_text(*code)),
            Self::Cut(Errno::ETIMEDOUT | Errno::EAGAIN) => write!(f, "handshake timed out"),
            Self::Cut(_) => write!(f, "handshake was cut off, is the certificate the same?"),
        }
    }
}

// === Repetitions ===

/// Lets a notice through that was not told for a while, so that a peer that keeps on trying
/// (ten times a second, as libzmq does) cannot fill the log.
#[derive(Debug, Default)]
pub(super) struct Repetitions {
    told: HashMap<String, Instant>,
}

const PERIOD: Duration = Duration::from_secs(60);
/// More different troublemakers than this are not told apart.
const MAX_TOLD: usize = 256;

impl Repetitions {
    pub(super) fn is_news(&mut self, notice: &Notice, now: Instant) -> bool {
        let Some(key) = subject(notice) else { return true };
        if self.told.get(&key).is_some_and(|told| now.duration_since(*told) < PERIOD) {
            return false;
        }
        if self.told.len() >= MAX_TOLD {
            self.told.retain(|_, told| now.duration_since(*told) < PERIOD);
        }
        if self.told.len() >= MAX_TOLD {
            return false;
        }
        self.told.insert(key, now);
        true
    }
}

/// The text without the port, which differs with each attempt. None for what is always told:
/// there is one parent, and its link tells only changes.
fn subject(notice: &Notice) -> Option<String> {
    match notice {
        Notice::ChildHandshakeFailed { remote, cause } => {
            let host = remote.rsplit_once(':').map_or(remote.as_str(), |(host, _port)| host);
            Some(format!("{host} {cause:?}"))
        }
        Notice::ChildAuthenticated { .. }
        | Notice::ChildRefused { .. }
        | Notice::AcceptFailed { .. }
        | Notice::ChildMalformed => Some(notice.to_string()),
        Notice::ParentConnected { .. }
        | Notice::ParentRefused { .. }
        | Notice::ParentHandshakeFailed { .. }
        | Notice::ParentUnreachable { .. }
        | Notice::ParentDisconnected { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str) -> Notice {
        Notice::ChildRefused { address: address.to_owned(), key: None }
    }

    fn failed(remote: &str) -> Notice {
        let cause = HandshakeError::Cut(Errno::EPIPE);
        Notice::ChildHandshakeFailed { remote: remote.to_owned(), cause }
    }

    #[test]
    fn peer_that_keeps_trying_is_told_once_a_minute() {
        let mut repetitions = Repetitions::default();
        let start = Instant::now();
        assert!(repetitions.is_news(&failed("tcp://10.0.0.1:4001"), start));
        assert!(!repetitions.is_news(&failed("tcp://10.0.0.1:4002"), start + PERIOD / 2));
        assert!(repetitions.is_news(&failed("tcp://10.0.0.2:4001"), start + PERIOD / 2));
        assert!(repetitions.is_news(&refused("10.0.0.1"), start + PERIOD / 2));
        assert!(repetitions.is_news(&failed("tcp://10.0.0.1:4003"), start + PERIOD));
    }

    #[test]
    fn crowd_of_troublemakers_costs_bounded_memory_and_log() {
        let mut repetitions = Repetitions::default();
        let start = Instant::now();
        let told = (0..10_000)
            .filter(|n| repetitions.is_news(&refused(&format!("10.{n}")), start))
            .count();
        assert_eq!(told, MAX_TOLD);
        assert!(repetitions.told.len() <= MAX_TOLD);
        assert!(repetitions.is_news(&refused("10.x"), start + PERIOD));
    }

    #[test]
    fn every_change_of_the_link_to_the_parent_is_told() {
        let mut repetitions = Repetitions::default();
        let up = Notice::ParentConnected { endpoint: "ipc:///x".into() };
        let now = Instant::now();
        assert!(repetitions.is_news(&up, now) && repetitions.is_news(&up, now));
    }

    #[test]
    fn notices_say_who_and_why() {
        let key = PublicKey::from_bytes([0; 32]);
        let notice = Notice::ChildRefused { address: "10.0.0.3".into(), key: Some(key) };
        assert_eq!(
            notice.to_string(),
            format!("authentication of 10.0.0.3 refused: unknown public key {}", "0".repeat(40))
        );
        assert_eq!(
            failed("").to_string(),
            "authentication of a local peer failed: handshake was cut off, is the certificate \
             the same?"
        );
        assert_eq!(notice.severity(), Severity::Err);
    }
}
