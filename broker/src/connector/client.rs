//! One connected client: its requests come in, and what it used is told when it goes.

use std::collections::HashSet;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::frame;
use flux_protocol::message::{DecodeError, Flags, Kind, Matchtag, Message, Nodeid};
use flux_protocol::payload::decode_json;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

use super::writer::Outbox;
use crate::broker::Broker;
use crate::log::Severity;
use crate::mailbox::Gate;
use crate::router::{Router, Sink};

/// Largest body of a frame that the owner may send, and that a guest may: the owner's may hold a
/// blob beyond the greatest that is stored by default, so that it is refused by its name.
const OWNER_FRAME_LIMIT: usize = (1 << 30) + (1 << 20);
const GUEST_FRAME_LIMIT: usize = 64 << 20;
/// What the connector's own answers are sent as.
const CONNECTOR_CRED: Credential =
    Credential { userid: Userid::UNKNOWN, rolemask: Rolemask::OWNER };

struct Client {
    router: Router,
    uuid: Bytes,
    cred: Credential,
    outbox: Rc<Outbox>,
    /// Whom to tell when the client goes.
    used: HashSet<Used>,
    disconnects: Vec<Message>,
}

/// Where a disconnect request is due: one for each service, rank, and way there.
#[derive(PartialEq, Eq, Hash)]
struct Used {
    prefix: String,
    nodeid: u32,
    upstream: bool,
}

#[derive(Deserialize)]
struct Subscribe {
    topic: String,
}

#[derive(Deserialize)]
struct AddService {
    service: String,
}

/// Serve a client until it closes the connection, or breaks the protocol.
pub(super) async fn serve(stream: UnixStream, broker: &Rc<Broker>, uuid: Bytes, cred: Credential) {
    let (read, write) = stream.into_split();
    let outbox = Outbox::new(cred);
    let router = broker.router().clone();
    router.attach(uuid.clone(), outbox.clone());
    let mut client = Client {
        router: router.clone(),
        uuid: uuid.clone(),
        cred,
        outbox: outbox.clone(),
        used: HashSet::new(),
        disconnects: Vec::new(),
    };
    let result = tokio::select! {
        result = client.read_from(read) => result,
        () = outbox.write_to(write) => Ok(()),
    };
    if let Err(error) = result {
        let text = format!("malformed message from uid={}: {error}", cred.userid);
        broker.log().append(Severity::Err, "connector-local", &text);
    }
    if outbox.overflowed() {
        let text = format!("uid={} does not read its responses: disconnected", cred.userid);
        broker.log().append(Severity::Err, "connector-local", &text);
    }
    router.detach(&uuid);
    client.disconnect();
}

// === impl Client ===

impl Client {
    async fn read_from(&mut self, mut stream: OwnedReadHalf) -> Result<(), DecodeError> {
        let limit = if self.cred.is_owner() { OWNER_FRAME_LIMIT } else { GUEST_FRAME_LIMIT };
        let mut buf = BytesMut::new();
        loop {
            while let Some(message) = frame::decode(&mut buf, limit)? {
                if let Some(gate) = self.receive(message)
                    && gate.len() > crate::mailbox::HIGH_WATER
                {
                    gate.passable().await;
                }
                self.outbox.passable().await;
            }
            buf.reserve(16 << 10);
            match stream.read_buf(&mut buf).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => {}
            }
        }
    }

    fn receive(&mut self, mut message: Message) -> Option<Rc<Gate>> {
        self.stamp(&mut message);
        match message.kind {
            Kind::Request { .. } => return self.request(message),
            Kind::Response { .. } => self.router.response(message),
            Kind::Event { .. } => {
                // Rank 0 numbers it; there is nobody to tell when the way there is broken.
                let _ = self.router.publish(message);
            }
            Kind::Control { .. } => {}
        }
        None
    }

    /// A guest is who the kernel says; the owner may speak for others, field by field.
    fn stamp(&self, message: &mut Message) {
        let owner = self.cred.is_owner();
        if !owner || message.cred.userid == Userid::UNKNOWN {
            message.cred.userid = self.cred.userid;
        }
        if !owner || message.cred.rolemask == Rolemask::NONE {
            message.cred.rolemask = self.cred.rolemask;
        }
    }

    fn request(&mut self, mut message: Message) -> Option<Rc<Gate>> {
        message.flags.set(Flags::ROUTE);
        message.routes.push(self.uuid.clone());
        let own = match message.topic.as_str() {
            "event.subscribe" => Some(self.subscribe(&message)),
            "event.unsubscribe" => Some(self.unsubscribe(&message)),
            "service.add" => Some(self.add_service(&message)),
            "service.remove" => Some(self.remove_service(&message)),
            _ => None,
        };
        if let Some(result) = own {
            self.answer(&message, result);
            return None;
        }
        if message.wants_response() {
            self.note_use(&message);
        }
        self.router.request(message)
    }

    fn answer(&self, request: &Message, result: Result<(), Failure>) {
        if !request.wants_response() {
            return;
        }
        let (errnum, payload) = match result {
            Ok(()) => (0, None),
            Err(failure) => {
                let text = failure.text.as_deref().map(flux_protocol::message::text_payload);
                (failure.errno.0, text)
            }
        };
        let mut response = Message::response(request, errnum, payload).with_cred(CONNECTOR_CRED);
        response.routes.pop();
        self.outbox.deliver(response);
    }

    fn subscribe(&self, message: &Message) -> Result<(), Failure> {
        let request: Subscribe = decode_json(message.payload.as_ref())?;
        self.router.subscribe(&self.uuid, &request.topic);
        Ok(())
    }

    fn unsubscribe(&self, message: &Message) -> Result<(), Failure> {
        let request: Subscribe = decode_json(message.payload.as_ref())?;
        self.router.unsubscribe(&self.uuid, &request.topic)
    }

    /// Guests own the names that begin with their user id.
    fn add_service(&self, message: &Message) -> Result<(), Failure> {
        let request: AddService = decode_json(message.payload.as_ref())?;
        // Behind the first dot of a topic is the method.
        if request.service.contains('.') {
            return Err(Errno::EINVAL.into());
        }
        let own = format!("{}-", message.cred.userid);
        if !message.cred.is_owner() && !request.service.starts_with(&own) {
            return Err(Errno::EPERM.into());
        }
        self.router.register_service(&request.service, &self.uuid, self.outbox.clone())
    }

    fn remove_service(&self, message: &Message) -> Result<(), Failure> {
        let request: AddService = decode_json(message.payload.as_ref())?;
        self.router.unregister_service(&request.service, &self.uuid)
    }

    /// Remember the disconnect request that is due for this request's service.
    fn note_use(&mut self, message: &Message) {
        let topic = message.topic.as_str();
        let prefix = topic.rsplit_once('.').map_or("", |(prefix, _)| prefix);
        let upstream = message.flags.contains(Flags::UPSTREAM);
        let used = Used { prefix: prefix.to_owned(), nodeid: message.nodeid().0, upstream };
        if self.used.contains(&used) {
            return;
        }
        let topic = match prefix {
            "" => "disconnect".to_owned(),
            prefix => format!("{prefix}.disconnect"),
        };
        let mut disconnect = Message::request(topic, Nodeid(used.nodeid), Matchtag::NONE)
            .with_flags(Flags::NORESPONSE)
            .with_cred(message.cred);
        disconnect.kind = Kind::Request { nodeid: message.nodeid(), matchtag: message.matchtag() };
        if upstream {
            disconnect.flags.set(Flags::UPSTREAM);
        }
        disconnect.routes.push(self.uuid.clone());
        self.used.insert(used);
        self.disconnects.push(disconnect);
    }

    /// Tell every service that was used that this client is gone.
    fn disconnect(&mut self) {
        self.outbox.close();
        for message in self.disconnects.drain(..) {
            self.router.request(message);
        }
    }
}
