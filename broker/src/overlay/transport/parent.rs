//! The side of the parent: one DEALER, connected to one endpoint.

use std::cell::Cell;
use std::collections::VecDeque;

use bytes::Bytes;
use flux_cert::PublicKey;

use super::link::{Change, Link};
use super::monitor::Monitor;
use super::notice::Notice;
use super::socket::{AsyncSocket, Received, register};
use super::{BATCH, Event, Options, SendError, TransportError, milliseconds, set_common, sys};

#[derive(Debug)]
pub(super) struct Parent {
    dealer: AsyncSocket,
    monitor: Monitor,
    endpoint: String,
    key: PublicKey,
    link: Cell<Link>,
}

// === impl Parent ===

impl Parent {
    /// Starts to connect to the parent whose public key is `key`.
    pub(super) fn connect(
        context: &zmq::Context,
        options: &Options,
        endpoint: &str,
        key: PublicKey,
    ) -> Result<Self, TransportError> {
        let mut socket = context.socket(zmq::DEALER)?;
        set_common(&mut socket, options)?;
        socket.set_sndhwm(0)?;
        socket.set_rcvhwm(0)?;
        socket.set_identity(options.uuid.as_bytes())?;
        socket.set_curve_serverkey(key.as_bytes())?;
        if let Some(timeout) = options.connect_timeout {
            socket.set_connect_timeout(milliseconds(timeout))?;
        }
        let monitor = Monitor::start(context, &mut socket)?;
        let dealer = register(socket)?;
        dealer
            .socket()
            .connect(endpoint)
            .map_err(|source| TransportError::Connect { endpoint: endpoint.to_owned(), source })?;
        let link = Cell::default();
        Ok(Self { dealer, monitor, endpoint: endpoint.to_owned(), key, link })
    }

    /// The same once more, with a new socket. What was queued on the old one is lost.
    pub(super) fn again(
        &self,
        context: &zmq::Context,
        options: &Options,
    ) -> Result<Self, TransportError> {
        let parent = Self::connect(context, options, &self.endpoint, self.key)?;
        parent.link.set(self.link.get());
        Ok(parent)
    }

    pub(super) async fn readable(&self) {
        tokio::select! {
            () = self.dealer.readable() => {}
            () = self.monitor.readable() => {}
        }
    }

    /// Takes what has come, up to one batch.
    pub(super) fn drain(&self, events: &mut VecDeque<Event>) {
        while let Some(report) = self.monitor.next() {
            let mut link = self.link.get();
            let change = link.observe(report.kind);
            self.link.set(link);
            events.extend(change.map(|change| Event::Notice(self.notice(change))));
        }
        for _ in 0..BATCH {
            match self.dealer.recv() {
                Received::Parts(parts) => events.push_back(Event::FromParent { parts }),
                Received::Oversized => {}
                Received::Nothing => break,
            }
        }
    }

    /// True once the parent refused this broker, so that libzmq gave up on it.
    pub(super) fn was_refused(&self) -> bool {
        self.link.get().was_refused()
    }

    pub(super) fn send(&self, parts: &[Bytes]) -> Result<(), SendError> {
        if self.was_refused() {
            return Err(SendError::Unreachable);
        }
        // The queue has no end, so "full" says that there is none: libzmq gave up on the parent.
        self.dealer.send(None, parts).map_err(|error| match error {
            SendError::Congested => SendError::Unreachable,
            other => other,
        })
    }

    fn notice(&self, change: Change) -> Notice {
        let endpoint = self.endpoint.clone();
        match change {
            Change::Up => Notice::ParentConnected { endpoint },
            Change::Refused => Notice::ParentRefused { endpoint },
            Change::HandshakeFailed(cause) => Notice::ParentHandshakeFailed { endpoint, cause },
            Change::Unreachable => Notice::ParentUnreachable { endpoint },
            Change::Lost => Notice::ParentDisconnected { endpoint },
        }
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // Else the I/O thread may be telling the monitor while its receiver is closed.
        sys::stop_monitor(self.dealer.socket_mut());
    }
}
