//! What comes from parent and children.

use std::time::{Duration, Instant};

use bytes::Bytes;
use flux_protocol::credential::Rolemask;
use flux_protocol::message::{DecodeError, Flags, Kind, Message};
use flux_protocol::payload::Payload;
use flux_protocol::rpc::Method;
use flux_protocol::rpc::overlay as rpc;

use super::status::Status;
use super::transport::{Event, Notice};
use super::{Overlay, Severity, Uplink, control};
use crate::trace::Direction;

/// Between two hellos to a parent that lets nobody in at the moment.
const HELLO_RETRY: Duration = Duration::from_secs(2);

impl Overlay {
    pub(super) fn receive(self: &std::rc::Rc<Self>, event: Event) {
        match event {
            Event::FromChild { peer, parts } => match decode(&parts) {
                Ok(message) => self.take_peer(&peer, message),
                Err(error) => {
                    let peer = String::from_utf8_lossy(&peer);
                    let text = format!("DROP downstream message from {peer}: {error}");
                    self.log(Severity::Err, &text);
                }
            },
            Event::FromParent { parts } => match decode(&parts) {
                Ok(message) => self.from_parent(message),
                Err(error) => {
                    self.log(Severity::Err, &format!("DROP upstream message: {error}"));
                }
            },
            Event::ChildGone { peer } => {
                let rank = self.children.borrow().online(&peer).map(|child| child.rank);
                if let Some(rank) = rank {
                    self.child_lost(rank, "failed");
                }
            }
            Event::Notice(notice) => self.noticed(&notice),
        }
    }

    fn noticed(&self, notice: &Notice) {
        self.log(notice.severity(), &notice.to_string());
        match notice {
            Notice::ParentConnected { .. } if *self.uplink.borrow() == Uplink::Joining => {
                self.send_hello();
            }
            Notice::ParentDisconnected { .. } => {
                self.introduced.send_replace(false);
                if self.is_joined() {
                    self.parent_lost(&notice.to_string());
                }
            }
            _ => {}
        }
    }

    // --- from below ---

    fn take_peer(&self, peer: &Bytes, mut message: Message) {
        // As the ROUTER would have it: a request has its sender on top.
        message.routes.push(peer.clone());
        let child = self.children.borrow_mut().online_mut(peer).map(|child| {
            child.last_seen = Instant::now();
            (child.rank, child.torpid)
        });
        let child = child.map(|(rank, torpid)| {
            if torpid {
                self.check_torpid_children();
            }
            rank
        });
        match child {
            Some(rank) => self.take_child(rank, peer, message),
            None => self.take_stranger(peer, &message),
        }
    }

    /// A new child says hello. Anyone else has been given up, and is told to leave.
    fn take_stranger(&self, peer: &Bytes, message: &Message) {
        let hello = is_hello(message);
        let rank = match hello {
            true => rpc::HelloRequest::decode(message.payload.as_ref()).ok(),
            false => None,
        };
        let rank = rank.and_then(|hello| u32::try_from(hello.rank).ok());
        self.trace(Direction::Received, rank, message);
        if hello && !self.closed.get() {
            self.hello_from(peer, message);
        } else {
            // It may be gone already.
            let _ = self.send_peer(peer, &Message::control(control::DISCONNECT, 0));
        }
    }

    fn take_child(&self, rank: u32, peer: &Bytes, mut message: Message) {
        match message.kind {
            Kind::Control { kind, status } => {
                self.trace(Direction::Received, Some(rank), &message);
                if let (control::STATUS, Some(status)) = (kind, Status::from_number(status)) {
                    self.set_child_status(rank, status, "");
                }
            }
            Kind::Request { .. } if is_hello(&message) => self.hello_again(peer, &message),
            Kind::Request { .. } if message.topic.as_str() == rpc::Goodbye::TOPIC => {
                self.trace(Direction::Received, Some(rank), &message);
                self.goodbye_from(rank, &message);
            }
            Kind::Request { .. } => {
                self.trace(Direction::Received, Some(rank), &message);
                self.broker.router().request(message);
            }
            Kind::Response { .. } => {
                // Off with the child, put there by the ROUTER, and this broker, the hop before.
                message.routes.pop();
                message.routes.pop();
                if let Some(child) = self.children.borrow_mut().get_mut(rank) {
                    child.tracker.received(&message);
                }
                self.trace(Direction::Received, Some(rank), &message);
                self.broker.router().response(message);
            }
            Kind::Event { .. } => {
                self.trace(Direction::Received, Some(rank), &message);
                // The publisher is not told: events may be lost with a link.
                let _ = self.broker.router().publish(message);
            }
        }
    }

    // --- from above ---

    fn from_parent(self: &std::rc::Rc<Self>, message: Message) {
        let rank = self.parent.borrow().as_ref().map(|parent| parent.rank);
        let uplink = self.uplink.borrow().clone();
        match (uplink, message.kind) {
            (_, Kind::Control { kind, .. }) => self.control_from_parent(kind),
            (Uplink::Joining, Kind::Response { .. })
                if message.topic.as_str() == rpc::Hello::TOPIC =>
            {
                self.trace(Direction::Received, rank, &message);
                self.hello_answered(&message);
            }
            // The answer to a hello that was sent twice.
            (Uplink::Joined, Kind::Response { .. })
                if message.topic.as_str() == rpc::Hello::TOPIC => {}
            (Uplink::Joined, _) => self.take_joined_parent(rank, message),
            (Uplink::Joining, _) => {
                let text = format!(
                    "DROP upstream message topic {}: message received before hello handshake \
                     completed",
                    message.topic
                );
                self.log(Severity::Err, &text);
            }
            (Uplink::Refused(_) | Uplink::Lost(_) | Uplink::Left, _) => {}
        }
    }

    fn take_joined_parent(&self, rank: Option<u32>, mut message: Message) {
        self.trace(Direction::Received, rank, &message);
        match message.kind {
            Kind::Response { .. } if message.topic.as_str() == rpc::Goodbye::TOPIC => {
                self.uplink.send_replace(Uplink::Left);
            }
            Kind::Response { .. } => {
                if let Some(parent) = self.parent.borrow_mut().as_mut() {
                    parent.tracker.received(&message);
                }
                self.broker.router().response(message);
            }
            Kind::Request { .. } => {
                self.broker.router().request(message);
            }
            Kind::Event { seq } => {
                if self.is_new_event(seq) {
                    message.routes.clear();
                    message.flags.set(Flags::ROUTE);
                    self.broker.router().distribute(&message);
                }
            }
            Kind::Control { .. } => {}
        }
    }

    fn control_from_parent(self: &std::rc::Rc<Self>, kind: u32) {
        if kind != control::DISCONNECT {
            self.log(Severity::Err, "DROP upstream control: unknown control type");
            return;
        }
        if *self.uplink.borrow() == Uplink::Joining {
            self.introduced.send_replace(false);
            // It is shutting down, or has not noticed yet that the process before this one ended.
            let overlay = self.clone();
            let retry = tokio::task::spawn_local(async move {
                tokio::time::sleep(HELLO_RETRY).await;
                if *overlay.uplink.borrow() == Uplink::Joining {
                    overlay.send_hello();
                }
            });
            let mut tasks = self.tasks.borrow_mut();
            tasks.retain(|task| !task.is_finished());
            tasks.push(retry);
            return;
        }
        let Some(rank) = self.parent.borrow().as_ref().map(|parent| parent.rank) else { return };
        let host = self.host(rank);
        let text = format!("{host} (rank {rank}) sent disconnect control message");
        if self.is_joined() {
            self.log(Severity::Crit, &text);
        }
        self.parent_lost(&text);
    }

    /// Events come in the order of their numbers; a gap tells of a loss, which can't be helped.
    fn is_new_event(&self, seq: u32) -> bool {
        let last = self.event_seq.get();
        if seq <= last {
            self.log(Severity::Debug, &format!("duplicate event {seq}"));
            return false;
        }
        // What came before this broker joined was not lost.
        if last > 0 {
            match (last + 1, seq - 1) {
                (first, before) if first < before => {
                    self.log(Severity::Err, &format!("lost events {first}-{before}"));
                }
                (first, before) if first == before => {
                    self.log(Severity::Err, &format!("lost event {first}"));
                }
                _ => {}
            }
        }
        self.event_seq.set(seq);
        true
    }
}

fn is_hello(message: &Message) -> bool {
    matches!(message.kind, Kind::Request { .. }) && message.topic.as_str() == rpc::Hello::TOPIC
}

/// A message of another broker, which is not local here.
fn decode(parts: &[Bytes]) -> Result<Message, DecodeError> {
    let mut message = Message::from_parts(parts)?;
    message.cred.rolemask = message.cred.rolemask.without(Rolemask::LOCAL);
    Ok(message)
}
