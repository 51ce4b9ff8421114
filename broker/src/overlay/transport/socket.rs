//! A ZeroMQ socket that a task can wait for.
//!
//! libzmq has one descriptor per socket, which becomes readable when *something* happened; that
//! it did is told once. Whoever was told must read until nothing is left, and every other call on
//! the socket may take the news away. So each socket remembers here whether it may hold messages:
//! set by the descriptor or by a send that saw some, cleared by a read that found none.

use std::cell::Cell;
use std::io;

use bytes::Bytes;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::{SendError, TransportError, sys};

/// No Flux message has more: routes as deep as the tree, delimiter, topic, payload, header.
const MAX_PARTS: usize = 256;

/// Parts from this length on stay where libzmq put them instead of being copied.
const SHARE_FROM: usize = 1024;

pub(super) struct AsyncSocket {
    fd: AsyncFd<zmq::Socket>,
    may_have: Cell<bool>,
    poked: Notify,
}

/// What a read found.
pub(super) enum Received {
    Parts(Vec<Bytes>),
    /// A message of too many parts, thrown away.
    Oversized,
    Nothing,
}

struct SharedPart(zmq::Message);

impl AsRef<[u8]> for SharedPart {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

// === impl AsyncSocket ===

impl std::fmt::Debug for AsyncSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncSocket").field("may_have", &self.may_have).finish_non_exhaustive()
    }
}

impl AsyncSocket {
    /// Must be called within a tokio runtime.
    pub(super) fn new(socket: zmq::Socket) -> io::Result<Self> {
        Ok(Self { fd: sys::watch(socket)?, may_have: Cell::new(true), poked: Notify::new() })
    }

    pub(super) fn socket(&self) -> &zmq::Socket {
        self.fd.get_ref()
    }

    pub(super) fn socket_mut(&mut self) -> &mut zmq::Socket {
        self.fd.get_mut()
    }

    /// Waits until a read may find something. A read that finds nothing makes it wait again.
    pub(super) async fn readable(&self) {
        while !self.may_have.get() {
            tokio::select! {
                guard = self.fd.readable() => match guard {
                    Ok(mut guard) => {
                        guard.clear_ready();
                        self.may_have.set(true);
                    }
                    // The runtime is shutting down: nothing comes any more.
                    Err(_) => std::future::pending().await,
                },
                () = self.poked.notified() => {}
            }
        }
    }

    /// Reads one whole message, never waiting.
    pub(super) fn recv(&self) -> Received {
        let Some(first) = self.recv_part(zmq::DONTWAIT) else {
            self.may_have.set(false);
            return Received::Nothing;
        };
        // Also where nobody waited for it: the read has taken the news of those behind.
        self.may_have.set(true);
        let mut more = first.get_more();
        let mut parts = vec![into_bytes(first)];
        let mut count = 1;
        while more {
            // libzmq hands over a message only when all of its parts have come.
            let Some(part) = self.recv_part(zmq::DONTWAIT) else { break };
            more = part.get_more();
            count += 1;
            if count <= MAX_PARTS {
                parts.push(into_bytes(part));
            }
        }
        if count > MAX_PARTS { Received::Oversized } else { Received::Parts(parts) }
    }

    /// None also for ETERM and ENOTSOCK, which only a socket that is being closed can answer.
    fn recv_part(&self, flags: i32) -> Option<zmq::Message> {
        let mut part = zmq::Message::new();
        loop {
            match self.socket().recv(&mut part, flags) {
                Ok(()) => return Some(part),
                Err(zmq::Error::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends one whole message, never waiting: to `peer` on a ROUTER, to the peer on a DEALER.
    pub(super) fn send(&self, peer: Option<&[u8]>, parts: &[Bytes]) -> Result<(), SendError> {
        if parts.is_empty() {
            return Err(SendError::Empty);
        }
        let sent = self.send_parts(peer, parts);
        self.look_again();
        sent
    }

    fn send_parts(&self, peer: Option<&[u8]>, parts: &[Bytes]) -> Result<(), SendError> {
        let all = peer.into_iter().chain(parts.iter().map(|part| &**part));
        let mut left = parts.len() + usize::from(peer.is_some());
        let mut sent = Ok(());
        for (part, index) in all.zip(0..) {
            left -= 1;
            let result = self.send_part(part, if left == 0 { 0 } else { zmq::SNDMORE });
            if index == 0 {
                // Whether the peer can take a message is decided here.
                result?;
            } else {
                // Where the link breaks amid a message, libzmq wants the rest all the same.
                sent = sent.and(result);
            }
        }
        sent
    }

    fn send_part(&self, part: &[u8], flags: i32) -> Result<(), SendError> {
        loop {
            match self.socket().send(part, flags | zmq::DONTWAIT) {
                Ok(()) => return Ok(()),
                Err(zmq::Error::EINTR) => {}
                Err(zmq::Error::EAGAIN) => return Err(SendError::Congested),
                Err(_) => return Err(SendError::Unreachable),
            }
        }
    }

    /// Sending may have taken the news of messages that came meanwhile.
    pub(super) fn look_again(&self) {
        if self.may_have.get() {
            return;
        }
        if self.socket().get_events().is_ok_and(|events| events.contains(zmq::POLLIN)) {
            self.may_have.set(true);
            self.poked.notify_one();
        }
    }
}

fn into_bytes(part: zmq::Message) -> Bytes {
    if part.len() < SHARE_FROM {
        Bytes::copy_from_slice(&part)
    } else {
        Bytes::from_owner(SharedPart(part))
    }
}

/// Registers a socket with the runtime.
pub(super) fn register(socket: zmq::Socket) -> Result<AsyncSocket, TransportError> {
    AsyncSocket::new(socket).map_err(TransportError::Register)
}
