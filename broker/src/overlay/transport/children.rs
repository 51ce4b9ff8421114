//! The side of the children: one ROUTER, bound to one or more endpoints.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use super::monitor::{Monitor, ReportKind};
use super::notice::{HandshakeError, Notice};
use super::socket::{AsyncSocket, Received, register};
use super::{BATCH, Event, Options, SendError, TransportError, set_common, sys};

#[derive(Debug)]
pub(super) struct Children {
    router: AsyncSocket,
    monitor: Monitor,
    /// Who has sent something since it connected. libzmq forgets a peer some time after it says
    /// that the peer is gone; what was sent in between would be lost without a word.
    peers: RefCell<HashSet<Bytes>>,
}

// === impl Children ===

impl Children {
    /// Binds to all endpoints or to none. Returns them with wildcards resolved.
    pub(super) fn bind(
        context: &zmq::Context,
        options: &Options,
        endpoints: &[&str],
    ) -> Result<(Self, Vec<String>), TransportError> {
        let mut socket = context.socket(zmq::ROUTER)?;
        set_common(&mut socket, options)?;
        socket.set_sndhwm(options.child_send_queue)?;
        socket.set_rcvhwm(options.child_receive_queue)?;
        socket.set_router_mandatory(true)?;
        socket.set_curve_server(true)?;
        sys::set_int(
            &mut socket,
            zmq_sys::ZMQ_ROUTER_NOTIFY,
            zmq_sys::ZMQ_NOTIFY_DISCONNECT.cast_signed(),
        )?;
        let monitor = Monitor::start(context, &mut socket)?;
        let children = Self { router: register(socket)?, monitor, peers: RefCell::default() };
        let resolved = endpoints.iter().map(|e| children.bind_one(e)).collect::<Result<_, _>>()?;
        Ok((children, resolved))
    }

    fn bind_one(&self, endpoint: &str) -> Result<String, TransportError> {
        let error = |source| TransportError::Bind { endpoint: endpoint.to_owned(), source };
        let socket = self.router.socket();
        socket.bind(endpoint).map_err(error)?;
        let resolved = socket.get_last_endpoint().map_err(error)?;
        resolved.map_err(|_| error(zmq::Error::EINVAL))
    }

    pub(super) async fn readable(&self) {
        tokio::select! {
            () = self.router.readable() => {}
            () = self.monitor.readable() => {}
        }
    }

    /// Takes what has come, up to one batch.
    pub(super) fn drain(&self, events: &mut VecDeque<Event>) {
        while let Some(report) = self.monitor.next() {
            events.extend(notice_of(report.kind, &report.remote).map(Event::Notice));
        }
        for _ in 0..BATCH {
            match self.router.recv() {
                Received::Parts(parts) => events.push_back(self.follow(event_of(parts))),
                Received::Oversized => events.push_back(Event::Notice(Notice::ChildMalformed)),
                Received::Nothing => break,
            }
        }
    }

    pub(super) fn send(&self, peer: &[u8], parts: &[Bytes]) -> Result<(), SendError> {
        if !self.peers.borrow().contains(peer) {
            return Err(SendError::Unreachable);
        }
        let sent = self.router.send(Some(peer), parts);
        if sent == Err(SendError::Unreachable) {
            self.peers.borrow_mut().remove(peer);
        }
        sent
    }

    fn follow(&self, event: Event) -> Event {
        let mut peers = self.peers.borrow_mut();
        match &event {
            Event::FromChild { peer, .. } if !peers.contains(peer) => {
                peers.insert(peer.clone());
            }
            Event::ChildGone { peer } => {
                peers.remove(peer);
            }
            _ => {}
        }
        event
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        // Else the I/O thread may be telling the monitor while its receiver is closed.
        sys::stop_monitor(self.router.socket_mut());
    }
}

/// The ROUTER puts the peer's name in front. Behind it, a single empty part is its own word that
/// the peer is gone; a Flux message has 20 bytes at least.
fn event_of(mut parts: Vec<Bytes>) -> Event {
    // ROUTER makes up names for peers without one; those begin with a zero byte.
    let named = parts.first().is_some_and(|peer| {
        std::str::from_utf8(peer).is_ok_and(|name| !name.contains(char::is_control))
    });
    if !named {
        return Event::Notice(Notice::ChildMalformed);
    }
    let peer = parts.remove(0);
    match parts.as_slice() {
        [only] if only.is_empty() => Event::ChildGone { peer },
        _ => Event::FromChild { peer, parts },
    }
}

fn notice_of(kind: ReportKind, remote: &str) -> Option<Notice> {
    let failed = |cause| Some(Notice::ChildHandshakeFailed { remote: remote.to_owned(), cause });
    match kind {
        ReportKind::ProtocolError(code) => failed(HandshakeError::Protocol(code)),
        ReportKind::HandshakeCut(errno) => failed(HandshakeError::Cut(errno)),
        ReportKind::AcceptFailed(errno) => Some(Notice::AcceptFailed { errno }),
        // The authenticator tells more about those that it refused.
        ReportKind::NotAuthorized
        | ReportKind::Connected
        | ReportKind::Retried
        | ReportKind::HandshakeSucceeded
        | ReportKind::Disconnected
        | ReportKind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[&'static [u8]]) -> Vec<Bytes> {
        parts.iter().map(|part| Bytes::from_static(part)).collect()
    }

    #[test]
    fn lone_empty_part_means_that_the_child_is_gone() {
        assert_eq!(
            event_of(parts(&[b"uuid", b""])),
            Event::ChildGone { peer: Bytes::from("uuid") }
        );
        assert_eq!(
            event_of(parts(&[b"uuid", b"", b"header"])),
            Event::FromChild { peer: Bytes::from("uuid"), parts: parts(&[b"", b"header"]) }
        );
    }

    #[test]
    fn peer_without_a_printable_name_is_not_heard() {
        for name in [&b"\0\x01\x02\x03\x04"[..], b"\xff\xfe", b"a\nb"] {
            assert_eq!(
                event_of(parts(&[name, b"", b"header"])),
                Event::Notice(Notice::ChildMalformed)
            );
        }
    }
}
