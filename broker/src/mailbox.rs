//! The queue in front of a service.
//!
//! Senders never wait. Sources that can be told to wait (local sockets) look at [`Gate`] and stop
//! reading while the queue is longer than [`HIGH_WATER`]; what comes over the overlay can't be
//! stopped without stopping others, so past [`LIMIT`] requests are answered EAGAIN instead.

use std::cell::Cell;
use std::rc::Rc;

use flux_protocol::message::Message;
use tokio::sync::{Notify, mpsc};

/// Queue length at which local sockets stop reading requests for this service.
pub const HIGH_WATER: usize = 4096;
/// Queue length at which requests are refused.
pub const LIMIT: usize = 1 << 20;

/// What a service task receives.
pub(crate) enum Delivery<S> {
    Request(Message),
    /// To a request that was sent without a matchtag.
    Response(Message),
    Event(Message),
    /// The end of spawned work, with access to the state.
    Work(Work<S>),
    Stop,
}

type Work<S> = Box<dyn FnOnce(&mut S)>;

/// Length of a queue, shared between its two ends.
#[derive(Debug, Default)]
pub struct Gate {
    len: Cell<usize>,
    drained: Notify,
    deferred: Cell<bool>,
    resumed: Notify,
}

impl Gate {
    pub fn len(&self) -> usize {
        self.len.get()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn defer(&self, deferred: bool) {
        self.deferred.set(deferred);
        self.resumed.notify_waiters();
    }

    /// Wait until the queue is short enough for more.
    pub async fn passable(&self) {
        while self.len.get() > HIGH_WATER {
            self.drained.notified().await;
        }
    }
}

pub(crate) struct Sender<S> {
    queue: mpsc::UnboundedSender<Delivery<S>>,
    gate: Rc<Gate>,
}

pub(crate) struct Mailbox<S> {
    queue: mpsc::UnboundedReceiver<Delivery<S>>,
    gate: Rc<Gate>,
}

pub(crate) fn channel<S>() -> (Sender<S>, Mailbox<S>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let gate = Rc::new(Gate::default());
    (Sender { queue: tx, gate: gate.clone() }, Mailbox { queue: rx, gate })
}

impl<S> Clone for Sender<S> {
    fn clone(&self) -> Sender<S> {
        Sender { queue: self.queue.clone(), gate: self.gate.clone() }
    }
}

impl<S> Sender<S> {
    /// False when the service is gone.
    pub(crate) fn send(&self, delivery: Delivery<S>) -> bool {
        self.gate.len.set(self.gate.len.get() + 1);
        self.queue.send(delivery).is_ok()
    }

    pub(crate) fn gate(&self) -> &Rc<Gate> {
        &self.gate
    }
}

impl<S> Mailbox<S> {
    pub(crate) async fn recv(&mut self) -> Option<Delivery<S>> {
        let delivery = self.queue.recv().await?;
        while self.gate.deferred.get() {
            self.gate.resumed.notified().await;
        }
        let len = self.gate.len.get().saturating_sub(1);
        self.gate.len.set(len);
        if len == HIGH_WATER / 2 || len == 0 {
            self.gate.drained.notify_waiters();
        }
        Some(delivery)
    }
}
