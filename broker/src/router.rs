//! Where messages go (RFC 3): to local services and clients, up to the parent, down to a child.
//!
//! The router holds no queues and never waits: it hands each message to a [`Sink`], which queues
//! it. Everything runs on one thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Kind, Message, Nodeid, text_payload};

use crate::mailbox::Gate;
use crate::tap::{Tap, Way};

/// Takes messages for one local endpoint: a service, an in-process caller, a client connection.
pub trait Sink {
    /// Queue the message; must not call back into the router.
    fn deliver(&self, message: Message);
    /// The queue of a service, for back-pressure.
    fn gate(&self) -> Option<Rc<Gate>> {
        None
    }
    /// Who would read a private event here.
    fn cred(&self) -> Credential;
    /// Bytes that wait because the other end does not read.
    fn backlog(&self) -> usize {
        0
    }
}

/// The next hop towards a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    Here,
    Parent,
    /// A direct child, by its rank.
    Child(u32),
}

/// What the router needs of the overlay network.
pub trait Overlay {
    /// Next hop towards `rank`, or EHOSTUNREACH when it is not in the instance or not online.
    fn hop(&self, rank: u32) -> Result<Hop, Failure>;
    /// The route under which the parent's requests come, once connected.
    fn parent_uuid(&self) -> Option<Bytes>;
    /// The rank of the online child with this uuid.
    fn child_with_uuid(&self, uuid: &Bytes) -> Option<u32>;
    /// EHOSTUNREACH when there is no parent, or it is not connected.
    fn send_parent(&self, message: Message) -> Result<(), Failure>;
    /// The child's uuid is not on the route stack: the socket adds it.
    fn send_child(&self, rank: u32, message: Message) -> Result<(), Failure>;
    /// Send a copy to every online child.
    fn multicast(&self, event: &Message);
}

/// The overlay of a broker that is alone.
#[derive(Debug)]
struct Alone;

/// Cheap to clone; all clones are the same router.
#[derive(Clone)]
pub struct Router(Rc<Inner>, Tap);

struct Inner {
    rank: u32,
    owner: Userid,
    uuid: Bytes,
    overlay: RefCell<Rc<dyn Overlay>>,
    endpoints: RefCell<HashMap<Bytes, Rc<dyn Sink>>>,
    services: RefCell<HashMap<String, Registration>>,
    subscriptions: RefCell<HashMap<Bytes, Vec<Subscription>>>,
    event_seq: Cell<u32>,
    /// The broker takes its services down for good.
    ending: Cell<bool>,
}

struct Registration {
    owner: Bytes,
    sink: Rc<dyn Sink>,
}

struct Subscription {
    prefix: String,
    count: usize,
}

// === impl Alone ===

impl Overlay for Alone {
    fn hop(&self, rank: u32) -> Result<Hop, Failure> {
        if rank == 0 { Ok(Hop::Here) } else { Err(Errno::EHOSTUNREACH.into()) }
    }
    fn parent_uuid(&self) -> Option<Bytes> {
        None
    }
    fn child_with_uuid(&self, _: &Bytes) -> Option<u32> {
        None
    }
    fn send_parent(&self, _: Message) -> Result<(), Failure> {
        Err(Errno::EHOSTUNREACH.into())
    }
    fn send_child(&self, _: u32, _: Message) -> Result<(), Failure> {
        Err(Errno::EHOSTUNREACH.into())
    }
    fn multicast(&self, _: &Message) {}
}

// === impl Router ===

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("rank", &self.0.rank).finish_non_exhaustive()
    }
}

impl Router {
    /// A router of a broker that is alone until [`Router::set_overlay`]. The `uuid` is the broker's
    /// route.
    pub fn new(rank: u32, owner: Userid, uuid: Bytes) -> Router {
        let inner = Rc::new(Inner {
            rank,
            owner,
            uuid,
            overlay: RefCell::new(Rc::new(Alone)),
            endpoints: RefCell::default(),
            services: RefCell::default(),
            subscriptions: RefCell::default(),
            event_seq: Cell::new(0),
            ending: Cell::new(false),
        });
        Router(inner, Tap::default())
    }

    /// The same router as one module uses it.
    pub fn of_module(&self, name: &str) -> Router {
        Router(self.0.clone(), self.1.of(name))
    }

    /// Where the messages of modules can be seen.
    pub fn tap(&self) -> &Tap {
        &self.1
    }

    pub fn set_overlay(&self, overlay: Rc<dyn Overlay>) {
        *self.0.overlay.borrow_mut() = overlay;
    }

    pub fn rank(&self) -> u32 {
        self.0.rank
    }

    /// This broker's route; a fresh one for each process.
    pub fn uuid(&self) -> &Bytes {
        &self.0.uuid
    }

    /// The credential of the broker's own messages.
    pub fn owner_cred(&self) -> Credential {
        Credential { userid: self.0.owner, rolemask: Rolemask::OWNER.union(Rolemask::LOCAL) }
    }

    fn overlay(&self) -> Rc<dyn Overlay> {
        self.0.overlay.borrow().clone()
    }

    // --- endpoints, services, subscriptions ---

    pub fn attach(&self, uuid: Bytes, sink: Rc<dyn Sink>) {
        self.0.endpoints.borrow_mut().insert(uuid, sink);
    }

    /// Forget an endpoint with its services and subscriptions.
    pub fn detach(&self, uuid: &Bytes) {
        self.0.endpoints.borrow_mut().remove(uuid);
        self.0.subscriptions.borrow_mut().remove(uuid);
        self.0.services.borrow_mut().retain(|_, registration| registration.owner != *uuid);
    }

    /// EEXIST: the name is taken.
    pub fn register_service(
        &self,
        name: &str,
        owner: &Bytes,
        sink: Rc<dyn Sink>,
    ) -> Result<(), Failure> {
        let mut services = self.0.services.borrow_mut();
        if services.contains_key(name) {
            return Err(Errno::EEXIST.into());
        }
        services.insert(name.to_owned(), Registration { owner: owner.clone(), sink });
        Ok(())
    }

    /// ENOENT: there is no such service, or it is someone else's.
    pub fn unregister_service(&self, name: &str, owner: &Bytes) -> Result<(), Failure> {
        let mut services = self.0.services.borrow_mut();
        match services.get(name) {
            Some(registration) if registration.owner == *owner => {
                services.remove(name);
                Ok(())
            }
            _ => Err(Errno::ENOENT.into()),
        }
    }

    /// Bytes that wait for a local endpoint to read; 0 for one that is elsewhere.
    pub fn backlog(&self, uuid: &Bytes) -> usize {
        self.0.endpoints.borrow().get(uuid).map_or(0, |sink| sink.backlog())
    }

    pub fn has_service(&self, name: &str) -> bool {
        self.0.services.borrow().contains_key(name)
    }

    /// Receive events whose topic starts with `prefix`; counted.
    pub fn subscribe(&self, uuid: &Bytes, prefix: &str) {
        let mut subscriptions = self.0.subscriptions.borrow_mut();
        let list = subscriptions.entry(uuid.clone()).or_default();
        match list.iter_mut().find(|subscription| subscription.prefix == prefix) {
            Some(subscription) => subscription.count += 1,
            None => list.push(Subscription { prefix: prefix.to_owned(), count: 1 }),
        }
    }

    /// ENOENT: not subscribed.
    pub fn unsubscribe(&self, uuid: &Bytes, prefix: &str) -> Result<(), Failure> {
        let mut subscriptions = self.0.subscriptions.borrow_mut();
        let list = subscriptions.get_mut(uuid).ok_or(Errno::ENOENT)?;
        let at = list.iter().position(|s| s.prefix == prefix).ok_or(Errno::ENOENT)?;
        if let Some(subscription) = list.get_mut(at) {
            subscription.count -= 1;
            if subscription.count == 0 {
                list.swap_remove(at);
            }
        }
        Ok(())
    }

    // --- requests ---

    /// Route a request whose sender is on its route stack already. Failures are answered.
    ///
    /// Returns the queue of the local service that took it, so that a source that can wait does.
    pub fn request(&self, message: Message) -> Option<Rc<Gate>> {
        match self.try_request(message) {
            Ok(gate) => gate,
            Err((message, failure)) => {
                self.respond_failure(&message, &failure);
                None
            }
        }
    }

    /// Route a request; give it back when nothing took it.
    #[expect(clippy::result_large_err, reason = "the caller answers the request")]
    pub fn try_request(&self, message: Message) -> Result<Option<Rc<Gate>>, (Message, Failure)> {
        self.1.see(Way::Sent, &message);
        let nodeid = message.nodeid();
        let upstream = message.flags.contains(Flags::UPSTREAM);
        if upstream && nodeid.0 == self.0.rank {
            return self.forward(Hop::Parent, message);
        }
        if upstream || nodeid == Nodeid::ANY {
            return match self.local_request(message) {
                Err((message, failure)) if failure.errno == Errno::ENOSYS && self.0.rank > 0 => {
                    self.forward(Hop::Parent, message)
                }
                result => result,
            };
        }
        match self.overlay().hop(nodeid.0) {
            Ok(_) if nodeid.0 == self.0.rank => self.local_request(message),
            Ok(hop) => self.forward(hop, message),
            Err(failure) => Err((message, failure)),
        }
    }

    #[expect(clippy::result_large_err, reason = "the caller answers the request")]
    fn local_request(&self, message: Message) -> Result<Option<Rc<Gate>>, (Message, Failure)> {
        let service = message.topic.service();
        let sink = self.0.services.borrow().get(service).map(|r| r.sink.clone());
        let Some(sink) = sink else {
            let text = format!("No service matching {} is registered", message.topic);
            return Err((message, Failure::new(Errno::ENOSYS, text)));
        };
        let gate = sink.gate();
        if gate.as_ref().is_some_and(|gate| gate.len() >= crate::mailbox::LIMIT) {
            let text = format!("{} has too many requests queued", message.topic.service());
            return Err((message, Failure::new(Errno::EAGAIN, text)));
        }
        sink.deliver(message);
        Ok(gate)
    }

    #[expect(clippy::result_large_err, reason = "the caller answers the request")]
    fn forward(
        &self,
        hop: Hop,
        mut message: Message,
    ) -> Result<Option<Rc<Gate>>, (Message, Failure)> {
        let overlay = self.overlay();
        let copy = message.clone();
        let sent = match hop {
            Hop::Here => return self.local_request(message),
            Hop::Parent => overlay.send_parent(message),
            Hop::Child(rank) => {
                message.routes.push(self.0.uuid.clone());
                overlay.send_child(rank, message)
            }
        };
        sent.map(|()| None).map_err(|failure| (copy, failure))
    }

    // --- responses ---

    /// Route a response by the top of its route stack; one that leads nowhere is dropped.
    pub fn response(&self, mut message: Message) {
        let Some(top) = message.routes.last() else { return };
        let endpoint = self.0.endpoints.borrow().get(top).cloned();
        if let Some(sink) = endpoint {
            message.routes.pop();
            sink.deliver(message);
            return;
        }
        let overlay = self.overlay();
        if let Some(rank) = overlay.child_with_uuid(top) {
            message.routes.pop();
            // A child that is gone has its pending requests failed by the overlay.
            let _ = overlay.send_child(rank, message);
        } else if overlay.parent_uuid().as_ref() == Some(top) {
            let _ = overlay.send_parent(message);
        }
    }

    pub fn respond(&self, request: &Message, errnum: u32, payload: Option<Bytes>) {
        let response = Message::response(request, errnum, payload).with_cred(self.owner_cred());
        self.1.see(Way::Sent, &response);
        self.response(response);
    }

    /// Answer with an error, unless no response is wanted.
    pub fn respond_failure(&self, request: &Message, failure: &Failure) {
        if request.wants_response() {
            let payload = failure.text.as_deref().map(text_payload);
            self.respond(request, failure.errno.0, payload);
        }
    }

    /// From now on services do not come back.
    pub fn set_ending(&self) {
        self.0.ending.set(true);
    }

    /// The answer to a request whose service stopped before it had one. ENOSYS: it may be loaded
    /// again. ECONNRESET: the broker ends, and the connection with it.
    pub(crate) fn respond_stopped(&self, request: &Message) {
        let errno = if self.0.ending.get() { Errno::ECONNRESET } else { Errno::ENOSYS };
        let failure = match errno {
            Errno::ECONNRESET => Failure::from(errno),
            _ => {
                let text = format!("{} was not answered: its service stopped", request.topic);
                Failure::new(errno, text)
            }
        };
        self.respond_failure(request, &failure);
    }

    // --- events ---

    /// Publish an event of this broker or of one below: rank 0 numbers it and sends it to all.
    ///
    /// Returns the sequence number at rank 0; EHOSTUNREACH elsewhere when the parent is gone.
    pub fn publish(&self, mut event: Message) -> Result<u32, Failure> {
        self.1.see(Way::Sent, &event);
        if self.0.rank > 0 {
            return self.overlay().send_parent(event).map(|()| 0);
        }
        let seq = self.0.event_seq.get() + 1;
        self.0.event_seq.set(seq);
        event.kind = Kind::Event { seq };
        event.routes.clear();
        event.flags.set(Flags::ROUTE);
        self.distribute(&event);
        Ok(seq)
    }

    /// A published event: to local subscribers and to all children.
    pub fn distribute(&self, event: &Message) {
        self.overlay().multicast(event);
        let private = event.flags.contains(Flags::PRIVATE);
        let mut sinks: Vec<Rc<dyn Sink>> = Vec::new();
        {
            let endpoints = self.0.endpoints.borrow();
            for (uuid, list) in self.0.subscriptions.borrow().iter() {
                if list.iter().any(|s| event.topic.starts_with(s.prefix.as_str()))
                    && let Some(sink) = endpoints.get(uuid)
                    && (!private || sink.cred().authorizes(event.cred.userid))
                {
                    sinks.push(sink.clone());
                }
            }
        }
        for sink in sinks {
            sink.deliver(event.clone());
        }
    }
}

/// A fresh uuid as text, which is how routes are written.
pub fn new_uuid() -> Bytes {
    Bytes::from(uuid::Uuid::new_v4().to_string())
}
