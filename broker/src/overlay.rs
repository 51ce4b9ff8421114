//! The tree-based overlay network between the brokers of an instance.
//!
//! [`Overlay`] stands between the [router](crate::router) and the [`transport`]: it says which
//! child or parent is next on the way to a rank, lets children in, notices who is gone, and answers
//! what was asked of those. The `overlay` service tells its state to who asks.
//!
//! **Nothing waits here.** Messages go from the router to a socket and back within one call. A
//! child whose queue is full (see [`transport`]) is given up like one whose connection broke, so
//! that the others do not wait for it.
//!
//! **A link breaks once.** A child that is lost is told to leave when it speaks again, and comes
//! back as a new process; a broker that loses its parent exits. Requests that were on the way over
//! a broken link are answered at once with EHOSTUNREACH.

mod children;
mod hello;
mod membership;
mod parent;
mod peers;
mod receive;
mod status;
pub mod topology;
mod torpid;
mod trace;
mod tracker;
pub mod transport;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::message::{Flags, Message};
use flux_protocol::rpc::overlay as rpc;
use tokio::sync::{Notify, watch};

use crate::boot::tbon::Torpid;
use crate::boot::{Boot, Links};
use crate::broker::Broker;
use crate::log::Severity;
use crate::router::{self, Hop};
use crate::trace::{Direction, Traced};
use children::Children;
use parent::Parent;
pub use parent::Uplink;
pub use status::Status;
use topology::Topology;
use transport::{Events, SendError, Transport, TransportError};

/// To those who ask before the parent has let this broker in.
const OFFLINE: &str = "Upstream Flux broker is offline. Try again later.";

/// Types of control messages.
mod control {
    pub(super) const HEARTBEAT: u32 = 0;
    pub(super) const STATUS: u32 = 1;
    pub(super) const DISCONNECT: u32 = 2;
}

/// What observers are told.
#[derive(Debug, Clone)]
pub enum News {
    /// A child's status or torpidity may have changed.
    Child(rpc::MonitorResponse),
    /// The status of this broker's own subtree has changed.
    Status,
    /// A message crossed a link; told while [`Overlay::set_tracing`] is on.
    Message(Traced),
}

/// The overlay of one broker, with no peers for a broker that is alone.
pub struct Overlay {
    broker: Rc<Broker>,
    rank: u32,
    hosts: Hostlist,
    topology: Topology,
    version: hello::Version,
    transport: RefCell<Option<Transport>>,
    children: RefCell<Children>,
    parent: RefCell<Option<Parent>>,
    uplink: watch::Sender<Uplink>,
    /// A hello is on its way to the parent, which may have let this broker in already.
    introduced: watch::Sender<bool>,
    online_children: watch::Sender<usize>,
    /// Of this broker's own subtree, and since when.
    status: Cell<(Status, Instant)>,
    torpid: Cell<Torpid>,
    /// Let no more children in.
    closed: Cell<bool>,
    event_seq: Cell<u32>,
    pulse: Notify,
    tracing: Cell<bool>,
    observers: RefCell<Vec<Observer>>,
    tasks: RefCell<Vec<tokio::task::JoinHandle<()>>>,
}

// === impl Overlay ===

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("rank", &self.rank).finish_non_exhaustive()
    }
}

impl Overlay {
    /// Take over the sockets of a boot, connect to the parent, and become the router's overlay.
    ///
    /// Call within a `LocalSet`. [`Overlay::stop`] closes the sockets.
    pub fn start(broker: &Rc<Broker>, boot: Boot) -> Result<Rc<Overlay>, TransportError> {
        let Boot { rank, hosts, topology, torpid, links, warnings, .. } = boot;
        let now = Instant::now();
        let (transport, events, key, parent) = match links {
            Some(Links { transport, events, public_key, parent }) => {
                (Some(transport), Some(events), Some(public_key), parent)
            }
            None => (None, None, None, None),
        };
        let children = Children::new(topology.children(rank), now);
        let parent =
            parent.zip(topology.parent(rank)).map(|(link, parent)| Parent::new(parent, link, now));
        let overlay = Rc::new(Overlay {
            broker: broker.clone(),
            rank,
            hosts,
            version: hello::Version::of(broker.attrs()),
            transport: RefCell::new(transport),
            uplink: watch::Sender::new(Uplink::Joining),
            introduced: watch::Sender::new(false),
            online_children: watch::Sender::new(0),
            status: Cell::new((children.subtree_status(), now)),
            children: RefCell::new(children),
            parent: RefCell::new(parent),
            topology,
            torpid: Cell::new(torpid),
            closed: Cell::new(false),
            event_seq: Cell::new(0),
            pulse: Notify::new(),
            tracing: Cell::new(false),
            observers: RefCell::default(),
            tasks: RefCell::default(),
        });
        for warning in warnings {
            overlay.log(Severity::Warning, &warning);
        }
        if let Some(key) = key {
            overlay.log(Severity::Debug, &format!("public key is {key}"));
        }
        overlay.connect()?;
        broker.router().set_overlay(overlay.clone());
        broker.set_overlay(overlay.clone());
        if let Some(events) = events {
            overlay.spawn_tasks(events);
        }
        Ok(overlay)
    }

    fn connect(&self) -> Result<(), TransportError> {
        if let (Some(transport), Some(parent)) =
            (self.transport.borrow().as_ref(), self.parent.borrow().as_ref())
        {
            let endpoint = &parent.link.endpoint;
            self.log(Severity::Debug, &format!("connecting to {endpoint}"));
            transport.connect(endpoint, parent.link.key)?;
        }
        Ok(())
    }

    fn spawn_tasks(self: &Rc<Self>, mut events: Events) {
        let overlay = self.clone();
        let receive = tokio::task::spawn_local(async move {
            loop {
                let event = events.recv().await;
                overlay.receive(event);
            }
        });
        let overlay = self.clone();
        let watch = tokio::task::spawn_local(async move { overlay.watch_silence().await });
        self.tasks.borrow_mut().extend([receive, watch]);
    }

    /// Close all links at once, without a goodbye.
    pub fn stop(&self) {
        for task in self.tasks.borrow_mut().drain(..) {
            task.abort();
        }
        self.transport.replace(None);
    }

    pub fn rank(&self) -> u32 {
        self.rank
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The host that a rank is configured to run on.
    pub fn host(&self, rank: u32) -> String {
        self.hosts.nth(u64::from(rank)).unwrap_or_else(|| format!("rank{rank}"))
    }

    /// The status of this broker's subtree.
    pub fn status(&self) -> Status {
        self.status.get().0
    }

    /// The link to the parent. [`Uplink::Joining`] for ever at rank 0.
    pub fn uplink(&self) -> watch::Receiver<Uplink> {
        self.uplink.subscribe()
    }

    /// Be told of what happens; must not call back into the overlay.
    pub fn observe(&self, observer: impl Fn(&News) + 'static) {
        self.observers.borrow_mut().push(Box::new(observer));
    }

    /// Tell observers of messages.
    pub fn set_tracing(&self, on: bool) {
        self.tracing.set(on);
    }

    pub fn torpid(&self) -> Torpid {
        self.torpid.get()
    }

    pub fn set_torpid(&self, torpid: Torpid) {
        self.torpid.set(torpid);
        self.check_torpid_children();
    }

    /// As `overlay.health` answers.
    pub fn health(&self) -> rpc::HealthResponse {
        let (status, since) = self.status.get();
        let children = self.children.borrow();
        let child = |child: &children::Child| rpc::ChildHealth {
            rank: child.rank,
            status: child.status.name().to_owned(),
            duration: child.since.elapsed().as_secs_f64(),
            error: (!child.status.is_online() && !child.error.is_empty())
                .then(|| child.error.clone()),
        };
        rpc::HealthResponse {
            rank: self.rank,
            status: status.name().to_owned(),
            duration: since.elapsed().as_secs_f64(),
            children: children.iter().map(child).collect(),
        }
    }

    /// Children that are not simply offline, as `overlay.monitor` tells them first.
    pub fn notable_children(&self) -> Vec<rpc::MonitorResponse> {
        let children = self.children.borrow();
        let notable = |child: &&children::Child| child.status != Status::Offline || child.torpid;
        children.iter().filter(notable).map(monitored).collect()
    }

    pub fn stats(&self) -> rpc::StatsResponse {
        let children = self.children.borrow();
        let parent = self.parent.borrow();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        rpc::StatsResponse {
            child_count: count(children.len()),
            child_connected: count(children.online_count()),
            parent_count: u64::from(parent.is_some()),
            parent_rpc: parent.as_ref().map_or(0, |parent| count(parent.tracker.len())),
            child_rpc: children.iter().map(|child| count(child.tracker.len())).sum(),
            interthread: rpc::QueueStats { sendq: 0, recvq: 0 },
        }
    }

    fn is_joined(&self) -> bool {
        *self.uplink.borrow() == Uplink::Joined
    }

    fn log(&self, severity: Severity, text: &str) {
        self.broker.log().append(severity, "overlay", text);
    }

    fn tell(&self, news: &News) {
        for observer in self.observers.borrow().iter() {
            observer(news);
        }
    }

    // --- sending ---

    /// Send to a peer of the ROUTER, be it a child of ours or not.
    fn send_peer(&self, uuid: &[u8], message: &Message) -> Result<(), SendError> {
        let transport = self.transport.borrow();
        transport.as_ref().ok_or(SendError::Unreachable)?.send_child(uuid, &message.to_parts())
    }

    /// Send to an online child; one that can't be sent to is lost.
    fn send_to_child(&self, rank: u32, uuid: &[u8], message: &Message) -> Result<(), SendError> {
        let sent = self.send_peer(uuid, message);
        match sent {
            Ok(()) => self.trace(Direction::Sent, Some(rank), message),
            Err(SendError::Congested) => {
                self.child_lost(rank, "does not take its messages, its queue is full");
            }
            Err(SendError::Unreachable | SendError::Empty) => self.child_lost(rank, "failed"),
        }
        sent
    }

    /// Send to the parent whether it has let this broker in or not.
    fn send_up(&self, message: &Message) -> Result<(), Failure> {
        let rank = {
            let transport = self.transport.borrow();
            let mut parent = self.parent.borrow_mut();
            let (Some(transport), Some(parent)) = (transport.as_ref(), parent.as_mut()) else {
                return Err(Errno::EHOSTUNREACH.into());
            };
            if parent.goodbye_sent {
                return Err(Errno::EHOSTUNREACH.into());
            }
            transport
                .send_parent(&message.to_parts())
                .map_err(|error| Failure::from(error.errno()))?;
            parent.last_sent = Instant::now();
            parent.rank
        };
        self.trace(Direction::Sent, Some(rank), message);
        Ok(())
    }
}

fn monitored(child: &children::Child) -> rpc::MonitorResponse {
    rpc::MonitorResponse {
        rank: child.rank,
        status: child.status.name().to_owned(),
        torpid: child.torpid,
    }
}

// === impl router::Overlay for Overlay ===

impl router::Overlay for Overlay {
    fn hop(&self, rank: u32) -> Result<Hop, Failure> {
        let unreachable = Failure::from(Errno::EHOSTUNREACH);
        let hop = self.topology.next_hop(self.rank, rank).ok_or(unreachable.clone())?;
        match hop {
            Hop::Child(child) => {
                let children = self.children.borrow();
                let online = children.get(child).is_some_and(|child| child.status.is_online());
                online.then_some(hop).ok_or(unreachable)
            }
            Hop::Here | Hop::Parent => Ok(hop),
        }
    }

    fn parent_uuid(&self) -> Option<Bytes> {
        let parent = self.parent.borrow();
        parent.as_ref().map(|parent| parent.uuid.clone()).filter(|uuid| !uuid.is_empty())
    }

    fn child_with_uuid(&self, uuid: &Bytes) -> Option<u32> {
        self.children.borrow().online(uuid).map(|child| child.rank)
    }

    fn send_parent(&self, message: Message) -> Result<(), Failure> {
        match &*self.uplink.borrow() {
            Uplink::Joined => {}
            Uplink::Joining if self.rank > 0 => return Err(Failure::new(Errno::EAGAIN, OFFLINE)),
            Uplink::Joining | Uplink::Refused(_) | Uplink::Lost(_) | Uplink::Left => {
                return Err(Errno::EHOSTUNREACH.into());
            }
        }
        self.send_up(&message)?;
        if let Some(parent) = self.parent.borrow_mut().as_mut() {
            parent.tracker.sent(&message);
        }
        Ok(())
    }

    fn send_child(&self, rank: u32, message: Message) -> Result<(), Failure> {
        let uuid = {
            let children = self.children.borrow();
            let child = children.get(rank).filter(|child| child.status.is_online());
            child.ok_or(Errno::EHOSTUNREACH)?.uuid.clone()
        };
        self.send_to_child(rank, &uuid, &message).map_err(|_| Errno::EHOSTUNREACH)?;
        if let Some(child) = self.children.borrow_mut().get_mut(rank) {
            child.tracker.sent(&message);
        }
        Ok(())
    }

    fn multicast(&self, event: &Message) {
        if event.topic.as_str() == "heartbeat.pulse" {
            self.pulse.notify_one();
        }
        let online: Vec<(u32, Bytes)> = {
            let children = self.children.borrow();
            let online = children.iter().filter(|child| child.status.is_online());
            online.map(|child| (child.rank, child.uuid.clone())).collect()
        };
        if online.is_empty() {
            return;
        }
        let parts = event.clone().with_flags(Flags::ROUTE).to_parts();
        for (rank, uuid) in &online {
            let sent = match self.transport.borrow().as_ref() {
                Some(transport) => transport.send_child(uuid, &parts),
                None => return,
            };
            match sent {
                Ok(()) => {}
                Err(SendError::Congested) => {
                    self.child_lost(*rank, "does not take its messages, its queue is full");
                }
                Err(_) => self.child_lost(*rank, "failed"),
            }
        }
        self.trace(Direction::Sent, None, event);
    }
}

/// Called with what happens to peers.
type Observer = Box<dyn Fn(&News)>;
