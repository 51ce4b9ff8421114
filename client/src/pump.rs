//! The one task of a connection: it moves bytes, and hands each message to whom it is for.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BytesMut};
use flux_protocol::errno::Errno;
use flux_protocol::frame;
use flux_protocol::message::{Kind, Matchtag, Message};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::error::Disconnect;
use crate::tags::Tags;

/// Bytes in the outbox from which on callers that can wait do so.
const OUTBOX_HIGH: usize = 1 << 20;
const READ_CHUNK: usize = 64 << 10;
/// The broker is trusted with our memory.
const FRAME_LIMIT: usize = u32::MAX as usize;

/// Who waits for responses to a request.
pub(crate) enum Waiter {
    One(oneshot::Sender<Message>),
    Stream(mpsc::UnboundedSender<Message>),
    /// Nobody any more, but the matchtag is in use until the last response has come.
    Abandoned,
    /// The last response has come, but the matchtag is in use until whoever asked has seen it:
    /// else he would take leave of somebody else's request.
    Answered,
}

pub(crate) struct State {
    outbox: BytesMut,
    tags: Tags,
    waiters: HashMap<Matchtag, Waiter>,
    /// Requests without a matchtag that are answered all the same; matched by topic.
    pub(crate) untagged: Vec<(String, oneshot::Sender<Message>)>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) services: HashMap<String, mpsc::UnboundedSender<Message>>,
    end: Option<Disconnect>,
}

pub(crate) struct Subscription {
    pub(crate) id: u64,
    pub(crate) prefix: String,
    pub(crate) sink: mpsc::UnboundedSender<Message>,
}

pub(crate) struct Shared {
    stream: UnixStream,
    state: Mutex<State>,
    /// The outbox has something that the pump must wait to write.
    more: Notify,
    /// The outbox has room again, or the connection has ended.
    room: Notify,
}

impl Shared {
    pub(crate) fn new(stream: UnixStream) -> Shared {
        let state = State {
            outbox: BytesMut::new(),
            tags: Tags::default(),
            waiters: HashMap::new(),
            untagged: Vec::new(),
            subscriptions: Vec::new(),
            services: HashMap::new(),
            end: None,
        };
        Shared { stream, state: Mutex::new(state), more: Notify::new(), room: Notify::new() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // State is consistent between statements, so a panic elsewhere does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the connection has ended.
    pub(crate) fn end(&self) -> Disconnect {
        self.state().end.clone().unwrap_or(Disconnect::Closed)
    }

    /// Send without waiting: what the socket does not take now, the pump writes later.
    pub(crate) fn send(&self, message: &Message) -> Result<(), Disconnect> {
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        frame::encode(message, &mut state.outbox);
        self.write(&mut state)?;
        if !state.outbox.is_empty() {
            self.more.notify_one();
        }
        Ok(())
    }

    /// Send a request whose responses are for `waiter`; also takes the matchtag.
    pub(crate) fn send_request(
        &self,
        mut message: Message,
        waiter: Waiter,
    ) -> Result<Matchtag, Disconnect> {
        let tag = {
            let mut state = self.state();
            if let Some(end) = &state.end {
                return Err(end.clone());
            }
            let tag = state.tags.take();
            state.waiters.insert(tag, waiter);
            tag
        };
        if let Kind::Request { matchtag, .. } = &mut message.kind {
            *matchtag = tag;
        }
        self.send(&message)?;
        Ok(tag)
    }

    /// Whoever asked has seen the last response, or does not wait for the rest any more.
    ///
    /// To be called once for each request, as the matchtag may be another's afterwards.
    pub(crate) fn leave(&self, tag: Matchtag) {
        let mut state = self.state();
        match state.waiters.get_mut(&tag) {
            Some(Waiter::Answered) => state.free(tag),
            Some(waiter) => *waiter = Waiter::Abandoned,
            None => {}
        }
    }

    /// Wait until there is room in the outbox.
    pub(crate) async fn room(&self) -> Result<(), Disconnect> {
        self.wait_outbox(OUTBOX_HIGH).await
    }

    /// Wait until everything is with the kernel.
    pub(crate) async fn flush(&self) -> Result<(), Disconnect> {
        self.wait_outbox(0).await
    }

    /// Wait until the connection has ended.
    pub(crate) async fn closed(&self) -> Disconnect {
        loop {
            let changed = self.room.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(end) = &self.state().end {
                return end.clone();
            }
            changed.await;
        }
    }

    async fn wait_outbox(&self, most: usize) -> Result<(), Disconnect> {
        loop {
            // Before the check, else a change between check and wait would be missed.
            let changed = self.room.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state();
                if let Some(end) = &state.end {
                    return Err(end.clone());
                }
                if state.outbox.len() <= most {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    fn write(&self, state: &mut State) -> Result<(), Disconnect> {
        while !state.outbox.is_empty() {
            match self.stream.try_write(&state.outbox) {
                Ok(n) => state.outbox.advance(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    // The pump will see the end of the stream once it has read what is left.
                    state.outbox.clear();
                    return Err(Disconnect::Io(Errno::from(&e)));
                }
            }
        }
        Ok(())
    }

    fn finish(&self, reason: Disconnect) {
        let mut state = self.state();
        state.end = Some(reason);
        // Dropped senders wake everybody who waits.
        state.waiters.clear();
        state.untagged.clear();
        state.subscriptions.clear();
        state.services.clear();
        self.room.notify_waiters();
    }
}

/// Run until the connection ends.
pub(crate) async fn pump(shared: Arc<Shared>) {
    let reason = match move_bytes(&shared).await {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    shared.finish(reason);
}

async fn move_bytes(shared: &Shared) -> Result<std::convert::Infallible, Disconnect> {
    let mut inbox = BytesMut::with_capacity(READ_CHUNK);
    loop {
        let unsent = !shared.state().outbox.is_empty();
        tokio::select! {
            ready = shared.stream.readable() => {
                ready.map_err(|e| Disconnect::Io(Errno::from(&e)))?;
                read(shared, &mut inbox)?;
            }
            ready = shared.stream.writable(), if unsent => {
                ready.map_err(|e| Disconnect::Io(Errno::from(&e)))?;
                // An error to write is not the end: the broker's last words may be unread.
                let _ = shared.write(&mut shared.state());
                shared.room.notify_waiters();
            }
            () = shared.more.notified() => {}
        }
    }
}

fn read(shared: &Shared, inbox: &mut BytesMut) -> Result<(), Disconnect> {
    loop {
        inbox.reserve(READ_CHUNK);
        match shared.stream.try_read_buf(inbox) {
            Ok(0) => return Err(Disconnect::Closed),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err(Disconnect::Closed),
            Err(e) => return Err(Disconnect::Io(Errno::from(&e))),
        }
        let mut state = shared.state();
        while let Some(message) = frame::decode(inbox, FRAME_LIMIT)? {
            state.deliver(message);
        }
    }
}

// === impl State ===

impl State {
    /// What nobody waits for is dropped: the receiver may have left in the meantime.
    fn deliver(&mut self, message: Message) {
        match message.kind {
            Kind::Response { matchtag: Matchtag::NONE, .. } => self.deliver_untagged(message),
            Kind::Response { matchtag, .. } => self.deliver_response(matchtag, message),
            Kind::Event { .. } => {
                let topic = message.topic.as_str();
                for subscription in &self.subscriptions {
                    if topic.starts_with(&subscription.prefix) {
                        let _ = subscription.sink.send(message.clone());
                    }
                }
            }
            Kind::Request { .. } => {
                if let Some(service) = self.services.get(message.topic.service()) {
                    let _ = service.send(message);
                }
            }
            Kind::Control { .. } => {}
        }
    }

    fn deliver_response(&mut self, tag: Matchtag, message: Message) {
        let last = message.errnum() != 0 || !message.is_streaming();
        let Some(waiter) = self.waiters.get_mut(&tag) else { return };
        if !last {
            if let Waiter::Stream(sink) = waiter {
                let _ = sink.send(message);
            }
            return;
        }
        match std::mem::replace(waiter, Waiter::Answered) {
            Waiter::One(sink) => drop(sink.send(message)),
            Waiter::Stream(sink) => drop(sink.send(message)),
            Waiter::Abandoned => self.free(tag),
            // A second last response: the service is wrong, and nobody is to be confused by it.
            Waiter::Answered => {}
        }
    }

    fn free(&mut self, tag: Matchtag) {
        self.waiters.remove(&tag);
        self.tags.put_back(tag);
    }

    fn deliver_untagged(&mut self, message: Message) {
        let topic = message.topic.as_str();
        if let Some(at) = self.untagged.iter().position(|(expected, _)| expected == topic) {
            let (_, sink) = self.untagged.remove(at);
            let _ = sink.send(message);
        }
    }
}
