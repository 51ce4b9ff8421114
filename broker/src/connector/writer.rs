//! The way out to one client: a bounded queue and the task that writes it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;
use flux_protocol::credential::Credential;
use flux_protocol::frame;
use flux_protocol::message::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::router::Sink;

/// Unsent bytes at which requests of this client are no longer read.
pub(super) const HIGH_WATER: usize = 4 << 20;
/// Unsent bytes at which the client is disconnected: it does not read what it asked for.
pub(super) const LIMIT: usize = 256 << 20;
/// A buffer that grew larger than this is given back after it was written.
const KEEP: usize = 256 << 10;

/// Messages to a client; the router's end.
pub(super) struct Outbox {
    cred: Credential,
    queue: RefCell<VecDeque<Message>>,
    bytes: Cell<usize>,
    overflowed: Cell<bool>,
    closed: Cell<bool>,
    filled: Notify,
    drained: Notify,
}

impl Outbox {
    pub(super) fn new(cred: Credential) -> Rc<Outbox> {
        Rc::new(Outbox {
            cred,
            queue: RefCell::default(),
            bytes: Cell::new(0),
            overflowed: Cell::new(false),
            closed: Cell::new(false),
            filled: Notify::new(),
            drained: Notify::new(),
        })
    }

    /// Wait until the client has read enough to be allowed new requests.
    pub(super) async fn passable(&self) {
        while self.bytes.get() > HIGH_WATER && !self.closed.get() {
            self.drained.notified().await;
        }
    }

    pub(super) fn overflowed(&self) -> bool {
        self.overflowed.get()
    }

    /// Let the writer finish with what is queued.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// Write until [`Outbox::close`], an overflow, or an error of the socket.
    pub(super) async fn write_to(&self, mut stream: OwnedWriteHalf) {
        let mut buf = BytesMut::new();
        loop {
            while let Some(message) = self.pop() {
                frame::encode(&message, &mut buf);
                if buf.len() > KEEP {
                    break;
                }
            }
            if buf.is_empty() {
                if self.closed.get() {
                    break;
                }
                self.filled.notified().await;
                continue;
            }
            if self.overflowed.get() || stream.write_all(&buf).await.is_err() {
                break;
            }
            buf.clear();
            if buf.capacity() > KEEP {
                buf = BytesMut::new();
            }
            if self.bytes.get() <= HIGH_WATER {
                self.drained.notify_waiters();
            }
        }
        self.close();
    }

    fn pop(&self) -> Option<Message> {
        let message = self.queue.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get().saturating_sub(message.weight()));
        Some(message)
    }
}

impl Sink for Outbox {
    fn deliver(&self, message: Message) {
        if self.closed.get() || self.overflowed.get() {
            return;
        }
        let bytes = self.bytes.get() + message.weight();
        self.bytes.set(bytes);
        if bytes > LIMIT {
            self.overflowed.set(true);
            self.queue.borrow_mut().clear();
        } else {
            self.queue.borrow_mut().push_back(message);
        }
        self.filled.notify_one();
    }

    fn cred(&self) -> Credential {
        self.cred
    }

    fn backlog(&self) -> usize {
        self.bytes.get()
    }
}
