//! Flux messages (RFC 3): the four types, their header, and the message parts.
//!
//! A message is a list of parts, the same on a local socket (see [`crate::frame`]) and on the
//! overlay's ZeroMQ sockets:
//!
//! ```text
//! [route]* [empty delimiter] [topic] [payload] [20-byte header]
//! ```
//!
//! Routes stand with the most recent hop first. Which of the parts exist is told by the flags in
//! the header, which is last. The header's integers are big endian.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::credential::{Credential, Rolemask, Userid};
use crate::errno::Errno;

/// Size of the header part.
pub const HEADER_LEN: usize = 20;
const MAGIC: u8 = 0x8e;
const VERSION: u8 = 1;

/// Flag bits of the header.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    pub const TOPIC: Flags = Flags(0x01);
    pub const PAYLOAD: Flags = Flags(0x02);
    pub const NORESPONSE: Flags = Flags(0x04);
    pub const ROUTE: Flags = Flags(0x08);
    pub const UPSTREAM: Flags = Flags(0x10);
    pub const PRIVATE: Flags = Flags(0x20);
    pub const STREAMING: Flags = Flags(0x40);
    pub const USER1: Flags = Flags(0x80);

    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn set(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    pub fn clear(&mut self, other: Flags) {
        self.0 &= !other.0;
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Flags, &str); 8] = [
            (Flags::TOPIC, "topic"),
            (Flags::PAYLOAD, "payload"),
            (Flags::NORESPONSE, "noresponse"),
            (Flags::ROUTE, "route"),
            (Flags::UPSTREAM, "upstream"),
            (Flags::PRIVATE, "private"),
            (Flags::STREAMING, "streaming"),
            (Flags::USER1, "user1"),
        ];
        f.debug_list()
            .entries(NAMES.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| name))
            .finish()
    }
}

/// Rank that a request is addressed to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Nodeid(pub u32);

impl Nodeid {
    /// The first broker on the way up that has the service.
    pub const ANY: Nodeid = Nodeid(u32::MAX);
    /// An API constant of C clients, never valid on the wire.
    pub const UPSTREAM: Nodeid = Nodeid(u32::MAX - 1);
}

/// Ties responses to a request; [`Matchtag::NONE`] where no response is matched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Matchtag(pub u32);

impl Matchtag {
    pub const NONE: Matchtag = Matchtag(0);
}

/// Message type with the two header words that belong to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Request {
        nodeid: Nodeid,
        matchtag: Matchtag,
    },
    Response {
        errnum: u32,
        matchtag: Matchtag,
    },
    /// `seq` is 0 until rank 0 has published the event.
    Event {
        seq: u32,
    },
    Control {
        kind: u32,
        status: u32,
    },
}

/// Bit of a message type, as on the wire and in the `typemask` of trace requests.
pub mod typemask {
    pub const REQUEST: u8 = 1;
    pub const RESPONSE: u8 = 2;
    pub const EVENT: u8 = 4;
    pub const CONTROL: u8 = 8;
}

/// A topic string: UTF-8, shared without copying from the frame that it came in.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Topic(Bytes);

impl Topic {
    pub const fn from_static(topic: &'static str) -> Topic {
        Topic(Bytes::from_static(topic.as_bytes()))
    }

    pub fn as_str(&self) -> &str {
        // Only valid UTF-8 gets in, so the fallback is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The service that the topic names: what stands before the first dot.
    pub fn service(&self) -> &str {
        let topic = self.as_str();
        topic.split_once('.').map_or(topic, |(service, _)| service)
    }

    /// What stands behind the first dot, or nothing.
    pub fn method(&self) -> &str {
        self.as_str().split_once('.').map_or("", |(_, method)| method)
    }
}

impl From<&str> for Topic {
    fn from(topic: &str) -> Topic {
        Topic(Bytes::copy_from_slice(topic.as_bytes()))
    }
}

impl From<String> for Topic {
    fn from(topic: String) -> Topic {
        Topic(Bytes::from(topic))
    }
}

impl std::ops::Deref for Topic {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A Flux message.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    pub kind: Kind,
    pub flags: Flags,
    pub cred: Credential,
    /// The route stack, most recent hop **last**, so that push and pop are cheap.
    pub routes: Vec<Bytes>,
    pub topic: Topic,
    pub payload: Option<Bytes>,
}

/// Why bytes are not a message. All are EPROTO, but for a broken part list (EINVAL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("message has no parts")]
    Empty,
    #[error("part size reaches past the end of the frame")]
    Truncated,
    #[error("header has {0} bytes, not 20")]
    HeaderSize(usize),
    #[error("bad header magic {0:#04x}")]
    Magic(u8),
    #[error("unsupported protocol version {0}")]
    Version(u8),
    #[error("unknown message type {0}")]
    Type(u8),
    #[error("route flag without a delimiter")]
    NoDelimiter,
    #[error("topic flag without a topic")]
    NoTopic,
    #[error("payload flag without a payload")]
    NoPayload,
    #[error("topic is not UTF-8")]
    TopicUtf8,
    #[error("bad frame magic {0:#010x}")]
    FrameMagic(u32),
    #[error("frame of {0} bytes is larger than the limit of {1}")]
    FrameSize(usize, usize),
}

impl DecodeError {
    pub fn errno(self) -> Errno {
        match self {
            DecodeError::Truncated => Errno::EINVAL,
            _ => Errno::EPROTO,
        }
    }
}

// === impl Message ===

impl Message {
    /// A request as a client sends it: route flag set, empty stack, credential unset.
    pub fn request(topic: impl Into<Topic>, nodeid: Nodeid, matchtag: Matchtag) -> Message {
        Message {
            kind: Kind::Request { nodeid, matchtag },
            flags: Flags::TOPIC | Flags::ROUTE,
            cred: Credential::UNSET,
            routes: Vec::new(),
            topic: topic.into(),
            payload: None,
        }
    }

    /// An unpublished event.
    pub fn event(topic: impl Into<Topic>) -> Message {
        Message {
            kind: Kind::Event { seq: 0 },
            flags: Flags::TOPIC | Flags::ROUTE,
            cred: Credential::UNSET,
            routes: Vec::new(),
            topic: topic.into(),
            payload: None,
        }
    }

    pub fn control(kind: u32, status: u32) -> Message {
        Message {
            kind: Kind::Control { kind, status },
            flags: Flags::ROUTE,
            cred: Credential::UNSET,
            routes: Vec::new(),
            topic: Topic::default(),
            payload: None,
        }
    }

    /// The response to a request: same topic, route stack, matchtag and streaming flag.
    ///
    /// Of anything else than a request the response has matchtag 0.
    pub fn response(request: &Message, errnum: u32, payload: Option<Bytes>) -> Message {
        let kept = Flags::TOPIC | Flags::ROUTE | Flags::STREAMING | Flags::UPSTREAM;
        let mut flags = Flags(request.flags.0 & kept.0);
        if payload.is_some() {
            flags.set(Flags::PAYLOAD);
        }
        Message {
            kind: Kind::Response { errnum, matchtag: request.matchtag() },
            flags,
            cred: Credential::UNSET,
            routes: request.routes.clone(),
            topic: request.topic.clone(),
            payload,
        }
    }

    pub fn with_payload(mut self, payload: Option<Bytes>) -> Message {
        if payload.is_some() {
            self.flags.set(Flags::PAYLOAD);
        } else {
            self.flags.clear(Flags::PAYLOAD);
        }
        self.payload = payload;
        self
    }

    pub fn with_flags(mut self, flags: Flags) -> Message {
        self.flags.set(flags);
        self
    }

    pub fn with_cred(mut self, cred: Credential) -> Message {
        self.cred = cred;
        self
    }

    pub fn typemask(&self) -> u8 {
        match self.kind {
            Kind::Request { .. } => typemask::REQUEST,
            Kind::Response { .. } => typemask::RESPONSE,
            Kind::Event { .. } => typemask::EVENT,
            Kind::Control { .. } => typemask::CONTROL,
        }
    }

    pub fn matchtag(&self) -> Matchtag {
        match self.kind {
            Kind::Request { matchtag, .. } | Kind::Response { matchtag, .. } => matchtag,
            Kind::Event { .. } | Kind::Control { .. } => Matchtag::NONE,
        }
    }

    pub fn nodeid(&self) -> Nodeid {
        match self.kind {
            Kind::Request { nodeid, .. } => nodeid,
            _ => Nodeid::ANY,
        }
    }

    pub fn errnum(&self) -> u32 {
        match self.kind {
            Kind::Response { errnum, .. } => errnum,
            _ => 0,
        }
    }

    pub fn is_streaming(&self) -> bool {
        self.flags.contains(Flags::STREAMING)
    }

    pub fn wants_response(&self) -> bool {
        matches!(self.kind, Kind::Request { .. }) && !self.flags.contains(Flags::NORESPONSE)
    }

    /// The hop that sent the message first; a request's sender.
    pub fn first_route(&self) -> Option<&Bytes> {
        self.routes.first()
    }

    /// The message as its parts in wire order.
    pub fn to_parts(&self) -> Vec<Bytes> {
        let mut parts = Vec::with_capacity(self.routes.len() + 4);
        if self.flags.contains(Flags::ROUTE) {
            parts.extend(self.routes.iter().rev().cloned());
            parts.push(Bytes::new());
        }
        if self.flags.contains(Flags::TOPIC) {
            parts.push(self.topic.0.clone());
        }
        if self.flags.contains(Flags::PAYLOAD) {
            parts.push(self.payload.clone().unwrap_or_default());
        }
        parts.push(Bytes::copy_from_slice(&self.header()));
        parts
    }

    /// The 20 header bytes.
    pub fn header(&self) -> [u8; HEADER_LEN] {
        let (aux1, aux2) = match self.kind {
            Kind::Request { nodeid, matchtag } => (nodeid.0, matchtag.0),
            Kind::Response { errnum, matchtag } => (errnum, matchtag.0),
            Kind::Event { seq } => (seq, 0),
            Kind::Control { kind, status } => (kind, status),
        };
        let mut header = [0; HEADER_LEN];
        let mut buf = header.as_mut_slice();
        buf.put_slice(&[MAGIC, VERSION, self.typemask(), self.flags.0]);
        for word in [self.cred.userid.0, self.cred.rolemask.0, aux1, aux2] {
            buf.put_u32(word);
        }
        header
    }

    /// Decode wire-order parts. Parts between the last expected one and the header are ignored.
    pub fn from_parts(parts: &[Bytes]) -> Result<Message, DecodeError> {
        let (header, mut rest) = parts.split_last().ok_or(DecodeError::Empty)?;
        let header: [u8; HEADER_LEN] =
            header.as_ref().try_into().map_err(|_| DecodeError::HeaderSize(header.len()))?;
        let (kind, flags, cred) = decode_header(&header)?;
        let mut routes = Vec::new();
        if flags.contains(Flags::ROUTE) {
            let delimiter =
                rest.iter().position(Bytes::is_empty).ok_or(DecodeError::NoDelimiter)?;
            let (stack, after) = rest.split_at(delimiter);
            routes.extend(stack.iter().rev().cloned());
            rest = after.get(1..).unwrap_or_default();
        }
        let mut rest = rest.iter();
        let mut topic = Topic::default();
        if flags.contains(Flags::TOPIC) {
            topic = decode_topic(rest.next().ok_or(DecodeError::NoTopic)?)?;
        }
        let mut payload = None;
        if flags.contains(Flags::PAYLOAD) {
            payload = Some(rest.next().ok_or(DecodeError::NoPayload)?.clone());
        }
        Ok(Message { kind, flags, cred, routes, topic, payload })
    }

    /// Number of bytes that topic, payload and routes hold; what queue limits count.
    pub fn weight(&self) -> usize {
        let routes: usize = self.routes.iter().map(Bytes::len).sum();
        routes + self.topic.0.len() + self.payload.as_ref().map_or(0, Bytes::len) + 64
    }
}

fn decode_header(header: &[u8; HEADER_LEN]) -> Result<(Kind, Flags, Credential), DecodeError> {
    let [magic, version, kind, flags, words @ ..] = *header;
    if magic != MAGIC {
        return Err(DecodeError::Magic(magic));
    }
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let [u0, u1, u2, u3, r0, r1, r2, r3, a0, a1, a2, a3, b0, b1, b2, b3] = words;
    let aux1 = u32::from_be_bytes([a0, a1, a2, a3]);
    let aux2 = u32::from_be_bytes([b0, b1, b2, b3]);
    let kind = match kind {
        typemask::REQUEST => Kind::Request { nodeid: Nodeid(aux1), matchtag: Matchtag(aux2) },
        typemask::RESPONSE => Kind::Response { errnum: aux1, matchtag: Matchtag(aux2) },
        typemask::EVENT => Kind::Event { seq: aux1 },
        typemask::CONTROL => Kind::Control { kind: aux1, status: aux2 },
        other => return Err(DecodeError::Type(other)),
    };
    let cred = Credential {
        userid: Userid(u32::from_be_bytes([u0, u1, u2, u3])),
        rolemask: Rolemask(u32::from_be_bytes([r0, r1, r2, r3])),
    };
    Ok((kind, Flags(flags), cred))
}

/// C peers hold the topic as a C string: what stands behind a NUL does not exist for them.
fn decode_topic(part: &Bytes) -> Result<Topic, DecodeError> {
    let end = part.iter().position(|&b| b == 0).unwrap_or(part.len());
    let topic = part.slice(..end);
    std::str::from_utf8(&topic).map_err(|_| DecodeError::TopicUtf8)?;
    Ok(Topic(topic))
}

/// A NUL-terminated text payload, as error texts, JSON and hwloc XML travel.
pub fn text_payload(text: &str) -> Bytes {
    let mut buf = BytesMut::with_capacity(text.len() + 1);
    buf.put_slice(text.as_bytes());
    buf.put_u8(0);
    buf.freeze()
}
