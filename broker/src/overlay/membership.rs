//! Who is there: changes of the children's statuses, the loss of the parent, leaving.

use std::time::Instant;

use flux_protocol::credential::Rolemask;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Matchtag, Message, Nodeid, text_payload};
use flux_protocol::rpc::Method;
use flux_protocol::rpc::overlay as rpc;

use super::status::Status;
use super::{News, Overlay, Severity, Uplink, control, monitored};

impl Overlay {
    /// A child has another status: tell the parent if this broker's own changes with it, tell
    /// observers, and answer for a child that is gone.
    pub(super) fn set_child_status(&self, rank: u32, status: Status, reason: &str) {
        let now = Instant::now();
        let mut children = self.children.borrow_mut();
        let was_online = children.get(rank).is_some_and(|child| child.status.is_online());
        let changed = children.set_status(rank, status, now);
        let Some(child) = children.get_mut(rank) else { return };
        reason.clone_into(&mut child.error);
        if !changed {
            return;
        }
        let orphans = match was_online && !status.is_online() {
            true => child.tracker.drain(),
            false => Vec::new(),
        };
        let news = News::Child(monitored(child));
        let online = children.online_count();
        let own = children.subtree_status();
        drop(children);
        self.fail_downstream(orphans);
        self.set_own_status(own, now);
        self.tell(&news);
        self.online_children.send_if_modified(|count| std::mem::replace(count, online) != online);
    }

    fn set_own_status(&self, status: Status, now: Instant) {
        if self.status.get().0 == status {
            return;
        }
        self.status.set((status, now));
        if self.is_joined() {
            // A parent that can't be told is lost, which is noticed elsewhere.
            let _ = self.send_up(&Message::control(control::STATUS, status.number()));
        }
        self.tell(&News::Status);
    }

    /// Requests that went to a child carry this broker's uuid on top, put there for the way back.
    fn fail_downstream(&self, responses: Vec<Message>) {
        for mut response in responses {
            response.routes.pop();
            self.broker.router().response(response.with_cred(self.broker.router().owner_cred()));
        }
    }

    /// The connection of a child broke, or it can't be kept.
    pub(super) fn child_lost(&self, rank: u32, why: &str) {
        let online = self.children.borrow().get(rank).is_some_and(|child| child.status.is_online());
        if online {
            self.log_lost_child(rank, why);
            self.set_child_status(rank, Status::Lost, "lost connection");
        }
    }

    fn log_lost_child(&self, rank: u32, why: &str) {
        let below = match self.topology.descendants(rank) {
            0 => String::new(),
            count => format!(" and severed contact with {count} other nodes"),
        };
        let host = self.host(rank);
        self.log(Severity::Err, &format!("{host} (rank {rank}) {why}{below}"));
    }

    /// Make a child, and what is below it, leave.
    ///
    /// ENOENT: not a child. EINVAL: not online.
    pub fn disconnect_subtree(&self, rank: u32) -> Result<(), Failure> {
        let (status, uuid) = {
            let children = self.children.borrow();
            let text = "requested rank is not this broker's direct child";
            let child = children.get(rank).ok_or_else(|| Failure::new(Errno::ENOENT, text))?;
            (child.status, child.uuid.clone())
        };
        if !status.is_online() {
            let text = format!("rank {rank} is already {}", status.name());
            return Err(Failure::new(Errno::EINVAL, text));
        }
        let message = Message::control(control::DISCONNECT, 0);
        self.send_peer(&uuid, &message).map_err(|error| {
            Failure::new(error.errno(), "failed to send CONTROL_DISCONNECT message")
        })?;
        self.log_lost_child(rank, "disconnected by request");
        self.set_child_status(rank, Status::Lost, "administrative disconnect");
        Ok(())
    }

    /// Give up the parent, for a reason that is the administrator's.
    pub fn disconnect_parent(&self, reason: &str) {
        self.log(Severity::Crit, &format!("disconnecting: {reason}"));
        self.parent_lost(reason);
    }

    /// The link to the parent that had let this broker in is broken for good.
    pub(super) fn parent_lost(&self, reason: &str) {
        // A parent that leaves as well may be gone before its answer to the goodbye is read.
        let leaving = self.parent.borrow().as_ref().is_some_and(|parent| parent.goodbye_sent);
        let lost = self.uplink.send_if_modified(|uplink| match uplink {
            Uplink::Joining | Uplink::Joined => {
                *uplink = match leaving {
                    true => Uplink::Left,
                    false => Uplink::Lost(reason.to_owned()),
                };
                true
            }
            Uplink::Refused(_) | Uplink::Lost(_) | Uplink::Left => false,
        });
        if !lost {
            return;
        }
        if let Some(transport) = self.transport.borrow().as_ref() {
            transport.disconnect_parent();
        }
        let orphans = match self.parent.borrow_mut().as_mut() {
            Some(parent) => parent.tracker.drain(),
            None => Vec::new(),
        };
        let router = self.broker.router();
        for response in orphans {
            let text = Some(text_payload("overlay disconnect"));
            router.response(response.with_payload(text).with_cred(router.owner_cred()));
        }
    }

    /// Ask the parent to take this broker off its list; false when there is nobody to ask.
    pub(super) fn send_goodbye(&self) -> bool {
        if !self.is_joined() {
            return false;
        }
        let mut message = Message::request(rpc::Goodbye::TOPIC, Nodeid::ANY, Matchtag::NONE);
        message.cred.rolemask = Rolemask::OWNER;
        let sent = self.send_up(&message).is_ok();
        if let Some(parent) = self.parent.borrow_mut().as_mut() {
            parent.goodbye_sent = true;
        }
        sent
    }

    /// A child leaves in good order.
    pub(super) fn goodbye_from(&self, rank: u32, request: &Message) {
        let uuid = request.routes.last().cloned().unwrap_or_default();
        let mut response = Message::response(request, 0, None);
        response.routes.pop();
        response.flags.set(Flags::ROUTE);
        if self.send_to_child(rank, &uuid, &response).is_ok() {
            self.set_child_status(rank, Status::Offline, "administrative shutdown");
        }
    }
}
