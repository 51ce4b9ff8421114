//! What libzmq reports about the connections of a socket.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use flux_protocol::errno::Errno;

use super::socket::{AsyncSocket, Received, register};
use super::{TransportError, sys};

/// The receiving end of a socket's monitor.
#[derive(Debug)]
pub(super) struct Monitor(AsyncSocket);

/// One report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) kind: ReportKind,
    /// Endpoint of the other side, such as `tcp://10.0.0.3:41230`; empty where unknown.
    pub(super) remote: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportKind {
    /// The transport below is up; the handshake follows.
    Connected,
    /// Connecting failed or took too long; libzmq tries again.
    Retried,
    HandshakeSucceeded,
    /// The ZAP handler of the other side (DEALER) or of this one (ROUTER) said no.
    NotAuthorized,
    /// The other side said something that it should not have.
    ProtocolError(u32),
    /// The other side closed the connection during the handshake, or let it time out.
    HandshakeCut(Errno),
    AcceptFailed(Errno),
    Disconnected,
    Other,
}

// === impl Monitor ===

impl Monitor {
    /// Starts to monitor `socket`, which must be done before it binds or connects.
    pub(super) fn start(
        context: &zmq::Context,
        socket: &mut zmq::Socket,
    ) -> Result<Self, TransportError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let endpoint = format!("inproc://flux.monitor.{number}");

        sys::start_monitor(socket, &endpoint)?;
        let receiver = context.socket(zmq::PAIR)?;
        // A full queue would stop the I/O thread, and all links with it.
        receiver.set_rcvhwm(0)?;
        receiver.set_linger(0)?;
        receiver.connect(&endpoint)?;
        Ok(Self(register(receiver)?))
    }

    pub(super) async fn readable(&self) {
        self.0.readable().await;
    }

    pub(super) fn next(&self) -> Option<Report> {
        loop {
            match self.0.recv() {
                Received::Parts(parts) => {
                    if let Some(report) = Report::decode(&parts) {
                        return Some(report);
                    }
                }
                Received::Oversized => {}
                Received::Nothing => return None,
            }
        }
    }
}

// === impl Report ===

impl Report {
    /// Parts of a version 2 event: event, number of values, values, local and remote endpoint.
    fn decode(parts: &[Bytes]) -> Option<Self> {
        let (event, rest) = parts.split_first()?;
        let (_count, rest) = rest.split_first()?;
        let (remote, rest) = rest.split_last()?;
        let value = if rest.len() > 1 { number(rest.first()?)? } else { 0 };
        let kind = ReportKind::of(number(event)? as u32, value as u32);
        Some(Self { kind, remote: String::from_utf8_lossy(remote).into_owned() })
    }
}

/// libzmq writes these in the byte order of the machine.
fn number(part: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(part.try_into().ok()?))
}

// === impl ReportKind ===

impl ReportKind {
    fn of(event: u32, value: u32) -> Self {
        match event {
            zmq_sys::ZMQ_EVENT_CONNECTED => Self::Connected,
            zmq_sys::ZMQ_EVENT_CONNECT_RETRIED => Self::Retried,
            zmq_sys::ZMQ_EVENT_HANDSHAKE_SUCCEEDED => Self::HandshakeSucceeded,
            zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_AUTH => Self::NotAuthorized,
            zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL => Self::ProtocolError(value),
            zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL => Self::HandshakeCut(Errno(value)),
            zmq_sys::ZMQ_EVENT_ACCEPT_FAILED => Self::AcceptFailed(Errno(value)),
            zmq_sys::ZMQ_EVENT_DISCONNECTED => Self::Disconnected,
            _ => Self::Other,
        }
    }
}

/// A ZMTP error in words.
pub(super) fn protocol_error_text(code: u32) -> &'static str {
    match code {
        zmq_sys::ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC => "message not encrypted for this key",
        zmq_sys::ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH => "peer does not use CURVE",
        zmq_sys::ZMQ_PROTOCOL_ERROR_ZMTP_UNEXPECTED_COMMAND => "unexpected command",
        zmq_sys::ZMQ_PROTOCOL_ERROR_ZMTP_INVALID_SEQUENCE => "wrong sequence number",
        zmq_sys::ZMQ_PROTOCOL_ERROR_ZMTP_KEY_EXCHANGE => "key exchange failed",
        zmq_sys::ZMQ_PROTOCOL_ERROR_ZMTP_INVALID_METADATA => "invalid metadata",
        0x1000_0011..=0x1000_0017 => "malformed command",
        0x2000_0000..=0x2000_0005 => "authenticator failed",
        _ => "peer does not speak ZMTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(number: u64) -> Bytes {
        Bytes::copy_from_slice(&number.to_ne_bytes())
    }

    #[test]
    fn report_with_a_value_is_decoded() {
        let parts = [
            word(u64::from(zmq_sys::ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)),
            word(1),
            word(u64::from(zmq_sys::ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)),
            Bytes::from_static(b"tcp://127.0.0.1:1"),
            Bytes::from_static(b"tcp://127.0.0.1:2"),
        ];
        let report = Report::decode(&parts).unwrap();
        assert_eq!(report.kind, ReportKind::ProtocolError(0x1100_0001));
        assert_eq!(report.remote, "tcp://127.0.0.1:2");
    }

    #[test]
    fn report_of_other_parts_is_ignored() {
        assert_eq!(Report::decode(&[]), None);
        assert_eq!(Report::decode(&[word(1), word(0)]), None);
        assert_eq!(Report::decode(&[Bytes::from_static(b"x"), word(0), word(0)]), None);
    }
}
