//! The handshake: a child introduces itself, its parent lets it in or says why not.
//!
//! `overlay.hello` is not a method of a service: it is the first message on a link, and is answered
//! before the child has a route.

use std::time::Instant;

use bytes::Bytes;
use flux_protocol::credential::Rolemask;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Matchtag, Message, Nodeid, text_payload};
use flux_protocol::payload::{Payload, text};
use flux_protocol::rpc::Method;
use flux_protocol::rpc::overlay as rpc;

use super::status::Status;
use super::{News, Overlay, Severity, Uplink};
use crate::attrs::Attrs;

/// `MAJOR.MINOR.PATCH`, as a number with a byte for each. Peers must have the same; what follows
/// in the version's text, such as `-5-g1234567`, does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(u32);

impl Version {
    /// This program's; a test may pretend another by the attribute `tbon.test-version`.
    pub(super) fn of(attrs: &Attrs) -> Version {
        let pretended = attrs.get("tbon.test-version");
        Version::parse(pretended.as_deref().unwrap_or(crate::VERSION))
    }

    fn parse(text: &str) -> Version {
        let mut numbers = text.splitn(3, '.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..digits).and_then(|digits| digits.parse::<u8>().ok()).unwrap_or(0)
        });
        let mut next = || u32::from(numbers.next().unwrap_or(0));
        Version(next() << 16 | next() << 8 | next())
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [_, major, minor, patch] = self.0.to_be_bytes();
        write!(f, "v{major}.{minor}.{patch}")
    }
}

// === the child's side ===

impl Overlay {
    /// Introduce this broker to its parent, once the link is up.
    pub(super) fn send_hello(&self) {
        let hello = rpc::HelloRequest {
            rank: i64::from(self.rank),
            version: self.version.0,
            uuid: String::from_utf8_lossy(self.broker.router().uuid()).into_owned(),
            status: self.status().number(),
            hostname: self.host(self.rank),
        };
        let payload = hello.encode().unwrap_or_default();
        let mut message =
            Message::request(rpc::Hello::TOPIC, Nodeid::ANY, Matchtag::NONE).with_payload(payload);
        message.cred.rolemask = Rolemask::OWNER;
        // A link that breaks again comes up again, and with it the hello.
        if self.send_up(&message).is_ok() {
            self.introduced.send_replace(true);
        }
    }

    pub(super) fn hello_answered(&self, response: &Message) {
        let answer = match response.errnum() {
            0 => rpc::HelloResponse::decode(response.payload.as_ref()).map_err(Failure::from),
            errnum => Err(Failure {
                errno: Errno(errnum),
                text: text(response.payload.as_ref()).ok().map(str::to_owned),
            }),
        };
        match answer {
            Ok(rpc::HelloResponse { uuid }) => self.joined(&uuid),
            Err(failure) => {
                let reason = format!("overlay.hello: {failure}");
                self.uplink.send_replace(Uplink::Refused(reason));
                if let Some(transport) = self.transport.borrow().as_ref() {
                    transport.disconnect_parent();
                }
            }
        }
        self.introduced.send_replace(false);
    }

    fn joined(&self, uuid: &str) {
        if let Some(parent) = self.parent.borrow_mut().as_mut() {
            parent.uuid = Bytes::copy_from_slice(uuid.as_bytes());
            let text = format!("hello parent {} {uuid}", parent.rank);
            self.log(Severity::Debug, &text);
        }
        self.uplink.send_replace(Uplink::Joined);
        // The status may have changed since the hello was sent.
        let status = self.status().number();
        let _ = self.send_up(&Message::control(super::control::STATUS, status));
        self.tell(&News::Status);
    }
}

// === the parent's side ===

impl Overlay {
    /// Somebody who is no online child introduces itself.
    pub(super) fn hello_from(&self, peer: &Bytes, request: &Message) {
        let response = match self.admit(peer, request) {
            Ok(()) => {
                let uuid = String::from_utf8_lossy(self.broker.router().uuid()).into_owned();
                let payload = rpc::HelloResponse { uuid }.encode().unwrap_or_default();
                Message::response(request, 0, payload)
            }
            Err(failure) => {
                let payload = failure.text.as_deref().map(text_payload);
                Message::response(request, failure.errno.0, payload)
            }
        };
        self.answer_hello(peer, response);
    }

    /// The child is online, but has not heard the answer to its hello: it broke with a link.
    pub(super) fn hello_again(&self, peer: &Bytes, request: &Message) {
        let uuid = String::from_utf8_lossy(self.broker.router().uuid()).into_owned();
        let payload = rpc::HelloResponse { uuid }.encode().unwrap_or_default();
        self.answer_hello(peer, Message::response(request, 0, payload));
    }

    fn answer_hello(&self, peer: &Bytes, mut response: Message) {
        response.routes.pop();
        let rank = self.children.borrow().online(peer).map(|child| child.rank);
        let _ = match rank {
            Some(rank) => self.send_to_child(rank, peer, &response),
            None => self.send_peer(peer, &response),
        };
    }

    /// EPROTO, EPERM, EINVAL: the reasons to refuse a child.
    fn admit(&self, peer: &Bytes, request: &Message) -> Result<(), Failure> {
        let hello = rpc::HelloRequest::decode(request.payload.as_ref())?;
        if !request.cred.is_owner() {
            return Err(Errno::EPERM.into());
        }
        let rank = u32::try_from(hello.rank).map_err(|_| Errno::EPROTO)?;
        let status = Status::from_number(hello.status).filter(|status| status.is_online());
        let status = status.ok_or(Errno::EPROTO)?;
        self.check_place(rank, &hello.hostname)?;
        let was_online =
            self.children.borrow().get(rank).is_some_and(|child| child.status.is_online());
        let host = self.host(rank);
        if was_online {
            let text = format!(
                "{host} (rank {rank}) reconnected after crash, dropping old connection state"
            );
            self.log(Severity::Err, &text);
            self.set_child_status(rank, Status::Lost, "reconnected after crash");
        }
        self.check_version(rank, Version(hello.version))?;
        self.children.borrow_mut().introduce(rank, peer.clone(), Instant::now());
        self.set_child_status(rank, status, "");
        let text =
            format!("accepting connection from {host} (rank {rank}) status {}", status.name());
        let severity = if was_online { Severity::Err } else { Severity::Debug };
        self.log(severity, &text);
        Ok(())
    }

    fn check_place(&self, rank: u32, hostname: &str) -> Result<(), Failure> {
        let configured = self.host(rank);
        let text = if !hostname.is_empty() && hostname != configured {
            format!("{configured} is configured as rank {rank}: mismatched config?")
        } else if self.children.borrow().get(rank).is_none() {
            let own = self.rank;
            format!("rank {rank} is not a child of rank {own}: mismatched config?")
        } else {
            return Ok(());
        };
        let from = if hostname.is_empty() { &configured } else { hostname };
        let line = format!("rejecting connection from {from} (rank {rank}): {text}");
        self.log(Severity::Err, &line);
        Err(Failure::new(Errno::EINVAL, text))
    }

    fn check_version(&self, rank: u32, version: Version) -> Result<(), Failure> {
        if version == self.version {
            return Ok(());
        }
        let own = self.version;
        let text = format!("flux-core {version} mismatched with parent {own}");
        let host = self.host(rank);
        let line = format!(
            "rejecting connection from {host} (rank {rank}): flux-core version mismatch - needs \
             software update? ({version}, this broker is {own})"
        );
        self.log(Severity::Err, &line);
        if let Some(child) = self.children.borrow_mut().get_mut(rank) {
            child.error = text.clone();
        }
        Err(Failure::new(Errno::EINVAL, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_up_to_the_patch_level() {
        assert_eq!(Version::parse("0.88.0").0, 0x5800);
        assert_eq!(Version::parse("0.88.0-59-g4a5e79f56").0, 0x5800);
        assert_eq!(Version::parse("1.2.3rc1").0, 0x01_0203);
        assert_eq!(Version::parse("1").0, 0x01_0000);
        assert_eq!(Version(0x01_0203).to_string(), "v1.2.3");
        assert_ne!(Version::parse("0.1.0"), Version::parse("0.1.1"));
    }
}
