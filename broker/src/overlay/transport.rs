//! Message parts between a broker and its parent and children: ZeroMQ with CURVE, no more.
//!
//! [`Transport`] sends, [`Events`] receives; what the parts mean is the overlay service's affair.
//! Both belong to one thread, and sockets are read while [`Events::recv`] is polled: handshakes,
//! too, wait for that.
//!
//! **Nothing blocks.** Each child has a queue of its own for messages that it has not taken yet.
//! When it is full ([`Options::child_send_queue`] messages), sending to that child fails with
//! [`SendError::Congested`], and other children notice nothing; the caller then counts that child
//! as lost. Messages *from* a child wait in a queue of [`Options::child_receive_queue`]; when it
//! is full, TCP slows that child down, and what it still has to say waits there, in the queue
//! towards its parent, which has no end. Children are read in turn.
//!
//! **Who may connect.** Both sides prove that they hold the secret key of the public key that the
//! other one knows: the parent those given to [`Transport::authorize`], the child the one given to
//! [`Transport::connect`]. That holds for local sockets too.

mod children;
mod link;
mod monitor;
mod notice;
mod parent;
mod socket;
mod sys;
#[cfg(test)]
mod tests;
mod zap;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flux_cert::{Certificate, PublicKey};
use flux_protocol::errno::Errno;
use tokio::sync::Notify;

use children::Children;
use notice::Repetitions;
pub use notice::{HandshakeError, Notice};
use parent::Parent;
use zap::Authenticator;

/// Domain that the parent's libzmq names when it asks the authenticator.
const ZAP_DOMAIN: &str = "flux";
/// How long a closed socket goes on delivering.
const LINGER_MS: i32 = 5;
/// Messages read from one socket before others have their turn.
const BATCH: usize = 64;

/// What a transport needs to know before it opens a socket.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name under which the parent knows this broker: 36 characters, new for each process.
    pub uuid: String,
    pub certificate: Certificate,
    /// Use IPv6 only; IPv4 only otherwise.
    pub ipv6: bool,
    /// `tbon.connect_timeout`. None leaves it to the system.
    pub connect_timeout: Option<Duration>,
    /// `tbon.tcp_user_timeout`: how long sent data may stay unacknowledged before a TCP connection
    /// is given up. None leaves it to the system (about 20 minutes).
    pub tcp_user_timeout: Option<Duration>,
    /// How long after a refusal by the parent's authenticator to connect again: libzmq would not.
    pub retry_after_refusal: Duration,
    /// Messages queued towards one child, 0 for no limit.
    pub child_send_queue: i32,
    /// `tbon.child_rcvhwm`: messages queued from one child, 0 for no limit.
    pub child_receive_queue: i32,
    /// Bytes in one message part; a peer that sends more is disconnected. None for no limit.
    pub max_part_len: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message from the child whose uuid is `peer`: authenticated, but perhaps no child of ours.
    FromChild {
        peer: Bytes,
        parts: Vec<Bytes>,
    },
    /// The connection of a child ended. Sending to it fails until it connects again.
    ///
    /// Comes behind the last message of that child, but may be left out if its queue was full.
    ChildGone {
        peer: Bytes,
    },
    FromParent {
        parts: Vec<Bytes>,
    },
    Notice(Notice),
}

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("error binding to {endpoint}: {source}{}", advice(*source))]
    Bind { endpoint: String, source: zmq::Error },
    #[error("error connecting to {endpoint}: {source}")]
    Connect { endpoint: String, source: zmq::Error },
    #[error("error setting up an overlay socket: {0}")]
    Setup(#[from] zmq::Error),
    #[error("error watching an overlay socket: {0}")]
    Register(io::Error),
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No such child is connected, or there is no parent.
    #[error("{}", Errno::EHOSTUNREACH.text().unwrap_or_default())]
    Unreachable,
    /// The child does not take its messages. Give it up.
    #[error("too many messages wait for this child")]
    Congested,
    #[error("a message has at least one part")]
    Empty,
}

/// Sends; cheap to clone.
#[derive(Debug, Clone)]
pub struct Transport {
    shared: Rc<Shared>,
}

/// Receives.
#[derive(Debug)]
pub struct Events {
    shared: Rc<Shared>,
    pending: VecDeque<Event>,
    repetitions: Repetitions,
}

struct Shared {
    options: Options,
    children: RefCell<Option<Rc<Children>>>,
    parent: RefCell<Option<Rc<Parent>>>,
    /// A socket was opened or closed.
    changed: Notify,
    authenticator: Authenticator,
    context: zmq::Context,
}

// === impl Options ===

impl Options {
    pub fn new(uuid: String, certificate: Certificate) -> Self {
        Self {
            uuid,
            certificate,
            ipv6: false,
            connect_timeout: Some(Duration::from_secs(30)),
            tcp_user_timeout: None,
            retry_after_refusal: Duration::from_secs(5),
            child_send_queue: 65_536,
            child_receive_queue: 10_000,
            max_part_len: Some(2 << 30),
        }
    }
}

// === impl SendError ===

impl SendError {
    pub fn errno(self) -> Errno {
        match self {
            Self::Unreachable => Errno::EHOSTUNREACH,
            Self::Congested => Errno::EAGAIN,
            Self::Empty => Errno::EINVAL,
        }
    }
}

// === impl Transport ===

impl Transport {
    /// A transport without any link yet. Must be called within a tokio runtime.
    pub fn new(options: Options) -> Result<(Transport, Events), TransportError> {
        let context = zmq::Context::new();
        let authenticator = Authenticator::new(&context)?;
        let shared = Rc::new(Shared {
            options,
            children: RefCell::default(),
            parent: RefCell::default(),
            changed: Notify::new(),
            authenticator,
            context,
        });
        let events = Events {
            shared: shared.clone(),
            pending: VecDeque::new(),
            repetitions: Repetitions::default(),
        };
        Ok((Transport { shared }, events))
    }

    /// Lets children connect that hold the secret key to `key`; the log calls them `name`.
    pub fn authorize(&self, name: &str, key: PublicKey) {
        self.shared.authenticator.allow(name, key);
    }

    /// Listens for children at `tcp://ADDRESS:PORT` or `ipc://PATH` endpoints, in place of those
    /// that were listened at before. Port `*` takes any free one.
    ///
    /// Returns the endpoints as they were bound. An address of `*` or `0.0.0.0` stays as it is.
    pub fn bind(&self, endpoints: &[&str]) -> Result<Vec<String>, TransportError> {
        let Shared { context, options, children, changed, .. } = &*self.shared;
        children.replace(None);
        let (new, resolved) = Children::bind(context, options, endpoints)?;
        children.replace(Some(Rc::new(new)));
        changed.notify_one();
        Ok(resolved)
    }

    /// Connects to the parent, in place of the one before, whose public key must be `key`.
    ///
    /// Does not wait: messages are kept until the link is up, which a [`Notice`] tells.
    pub fn connect(&self, endpoint: &str, key: PublicKey) -> Result<(), TransportError> {
        let Shared { context, options, parent, changed, .. } = &*self.shared;
        parent.replace(None);
        parent.replace(Some(Rc::new(Parent::connect(context, options, endpoint, key)?)));
        changed.notify_one();
        Ok(())
    }

    /// Sends to the child whose uuid is `peer`.
    pub fn send_child(&self, peer: &[u8], parts: &[Bytes]) -> Result<(), SendError> {
        let children = self.shared.children.borrow();
        children.as_ref().ok_or(SendError::Unreachable)?.send(peer, parts)
    }

    pub fn send_parent(&self, parts: &[Bytes]) -> Result<(), SendError> {
        let parent = self.shared.parent.borrow();
        parent.as_ref().ok_or(SendError::Unreachable)?.send(parts)
    }

    /// Closes the link to the parent. Its messages that have not been received yet are lost.
    pub fn disconnect_parent(&self) {
        self.shared.parent.replace(None);
        self.shared.changed.notify_one();
    }
}

// === impl Events ===

impl Events {
    /// The next event. Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Event {
        loop {
            // A busy peer must not keep the other tasks of this thread from running.
            tokio::task::coop::consume_budget().await;
            match self.pending.pop_front() {
                Some(Event::Notice(notice)) => {
                    if self.repetitions.is_news(&notice, Instant::now()) {
                        return Event::Notice(notice);
                    }
                }
                Some(event) => return event,
                None => self.wait().await,
            }
        }
    }

    /// Waits until something happens, and adds it to `pending`.
    async fn wait(&mut self) {
        let shared = &self.shared;
        let pending = &mut self.pending;
        let children = shared.children.borrow().clone();
        let parent = shared.parent.borrow().clone();
        let refused = parent.as_ref().is_some_and(|parent| parent.was_refused());
        tokio::select! {
            () = shared.changed.notified() => {}
            () = shared.authenticator.readable() => {
                let answers = std::iter::from_fn(|| shared.authenticator.answer_next());
                pending.extend(answers.take(BATCH).map(Event::Notice));
            }
            children = when(children, async |children| children.readable().await) => {
                children.drain(pending);
            }
            parent = when(parent, async |parent| parent.readable().await) => {
                parent.drain(pending);
            }
            () = tokio::time::sleep(shared.options.retry_after_refusal), if refused => {
                shared.retry_parent();
            }
        }
    }
}

/// Waits for a socket that is there; for ever if it is not.
async fn when<S>(socket: Option<Rc<S>>, readable: impl AsyncFn(&S)) -> Rc<S> {
    match socket {
        Some(socket) => {
            readable(&socket).await;
            socket
        }
        None => std::future::pending().await,
    }
}

// === impl Shared ===

impl Shared {
    /// A failure here would be one of the system that the first attempt did not have; the next
    /// retry may find it gone.
    fn retry_parent(&self) {
        let again = match self.parent.borrow().as_ref() {
            Some(parent) => parent.again(&self.context, &self.options),
            None => return,
        };
        if let Ok(parent) = again {
            self.parent.replace(Some(Rc::new(parent)));
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("uuid", &self.options.uuid).finish_non_exhaustive()
    }
}

/// Options that both kinds of socket have.
fn set_common(socket: &mut zmq::Socket, options: &Options) -> Result<(), TransportError> {
    let keys = &options.certificate;
    socket.set_linger(LINGER_MS)?;
    socket.set_ipv6(options.ipv6)?;
    socket.set_zap_domain(ZAP_DOMAIN)?;
    socket.set_curve_publickey(keys.public_key().as_bytes())?;
    socket.set_curve_secretkey(keys.secret_key().as_bytes())?;
    if let Some(len) = options.max_part_len {
        socket.set_maxmsgsize(i64::try_from(len).unwrap_or(i64::MAX))?;
    }
    if let Some(timeout) = options.tcp_user_timeout {
        sys::set_int(socket, zmq_sys::ZMQ_TCP_MAXRT, milliseconds(timeout))?;
    }
    Ok(())
}

/// What to do about an address that can't be had.
fn advice(error: zmq::Error) -> &'static str {
    match error {
        zmq::Error::EADDRINUSE => "; does another broker run on this host?",
        zmq::Error::EADDRNOTAVAIL | zmq::Error::ENODEV => "; no interface of this host has it",
        _ => "",
    }
}

/// Durations beyond 24 days are as good as 24 days.
fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
