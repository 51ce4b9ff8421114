//! The handle that programs hold.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::message::{Flags, Matchtag, Message, Nodeid, Topic};
use flux_protocol::payload::Payload;
use flux_protocol::rpc::{Method, attr};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::connect::{self, OpenError};
use crate::error::{Disconnect, RpcError};
use crate::events::Events;
use crate::pending::{Pending, RawPending, RawStream, Stream};
use crate::pump::{self, Shared, Waiter};
use crate::service::Service;

/// A connection to a broker. Clones share it; it closes with the last of them.
#[derive(Clone)]
pub struct Client {
    connection: Arc<Connection>,
}

struct Connection {
    shared: Arc<Shared>,
    pump: AbortHandle,
    cred: Credential,
    last_id: AtomicU64,
}

/// A request that no row of the table describes: any topic, any payload.
#[derive(Debug, Clone)]
pub struct Request {
    topic: Topic,
    nodeid: Nodeid,
    flags: Flags,
    payload: Option<Bytes>,
}

// === impl Request ===

impl Request {
    pub fn new(topic: impl Into<Topic>) -> Request {
        Request { topic: topic.into(), nodeid: Nodeid::ANY, flags: Flags::default(), payload: None }
    }

    pub fn to(mut self, nodeid: Nodeid) -> Request {
        self.nodeid = nodeid;
        self
    }

    pub fn payload(mut self, payload: Option<Bytes>) -> Request {
        self.payload = payload;
        self
    }

    /// Add flags of the message, such as [`Flags::UPSTREAM`].
    pub fn flags(mut self, flags: Flags) -> Request {
        self.flags.set(flags);
        self
    }

    /// A request of the table, for a method that another service has, too; see
    /// [`Request::service`].
    pub fn of<M: Method>(nodeid: Nodeid, request: &M::Request) -> Result<Request, RpcError> {
        Ok(Request::new(Topic::from_static(M::TOPIC)).to(nodeid).payload(request.encode()?))
    }

    /// The same method of another service, such as `sdexec` instead of `rexec`.
    pub fn service(mut self, name: &str) -> Request {
        self.topic = format!("{name}.{}", self.topic.method()).into();
        self
    }
}

// === impl Client ===

impl Client {
    /// Connect to the broker at `uri`, or where `FLUX_URI` says, or to the system instance.
    ///
    /// A path of `..` elements names the enclosing instances, `/` the outermost one.
    pub async fn open(uri: Option<&str>) -> Result<Client, OpenError> {
        match uri {
            Some(path) if path.starts_with(['.', '/']) => open_ancestor(path).await,
            Some(uri) => Client::connect(uri).await,
            None => Client::connect(&connect::default_uri()).await,
        }
    }

    async fn connect(uri: &str) -> Result<Client, OpenError> {
        let stream = connect::connect(&uri.parse()?).await?;
        Ok(Client::from_stream(stream, credential_from_environment()))
    }

    /// Talk over a stream whose handshake is done, sending messages with `cred`.
    pub fn from_stream(stream: UnixStream, cred: Credential) -> Client {
        let shared = Arc::new(Shared::new(stream));
        let pump = tokio::spawn(pump::pump(shared.clone())).abort_handle();
        let connection = Connection { shared, pump, cred, last_id: AtomicU64::new(0) };
        Client { connection: Arc::new(connection) }
    }

    /// Send a request of the table and wait for its response.
    pub async fn rpc<M: Method>(
        &self,
        nodeid: Nodeid,
        request: &M::Request,
    ) -> Result<M::Response, RpcError> {
        self.shared().room().await?;
        self.start::<M>(nodeid, request)?.await
    }

    /// [`Client::rpc`] that gives up after `limit`.
    pub async fn rpc_within<M: Method>(
        &self,
        limit: Duration,
        nodeid: Nodeid,
        request: &M::Request,
    ) -> Result<M::Response, RpcError> {
        match tokio::time::timeout(limit, self.rpc::<M>(nodeid, request)).await {
            Ok(result) => result,
            Err(_) => Err(RpcError::TimedOut(limit)),
        }
    }

    /// Send a request of the table now; its response may be awaited later, or never.
    pub fn start<M: Method>(
        &self,
        nodeid: Nodeid,
        request: &M::Request,
    ) -> Result<Pending<M::Response>, RpcError> {
        Ok(Pending::new(self.start_raw(Request::of::<M>(nodeid, request)?)?))
    }

    /// Send a request of the table that is answered with a stream.
    pub fn stream<M: Method>(
        &self,
        nodeid: Nodeid,
        request: &M::Request,
    ) -> Result<Stream<M::Response>, RpcError> {
        Ok(Stream::new(self.stream_raw(Request::of::<M>(nodeid, request)?)?))
    }

    /// Send a request of the table that is to have no response. See [`Client::flush`].
    pub fn notify<M: Method>(&self, nodeid: Nodeid, request: &M::Request) -> Result<(), RpcError> {
        self.notify_raw(Request::of::<M>(nodeid, request)?)
    }

    /// Send any request and wait for its response.
    pub async fn rpc_raw(&self, request: Request) -> Result<Message, RpcError> {
        self.shared().room().await?;
        self.start_raw(request)?.await
    }

    /// Send any request now; its response may be awaited later, or never.
    pub fn start_raw(&self, request: Request) -> Result<RawPending, RpcError> {
        let (sink, response) = oneshot::channel();
        let message = self.message(request, Flags::default());
        let tag = self.shared().send_request(message, Waiter::One(sink))?;
        Ok(RawPending::new(self.clone(), Some(tag), response))
    }

    /// Send any request that is answered with a stream.
    pub fn stream_raw(&self, request: Request) -> Result<RawStream, RpcError> {
        let (sink, responses) = mpsc::unbounded_channel();
        let nodeid = request.nodeid;
        let message = self.message(request, Flags::STREAMING);
        let tag = self.shared().send_request(message, Waiter::Stream(sink))?;
        Ok(RawStream::new(self.clone(), tag, nodeid, responses))
    }

    /// Send any request that is to have no response. See [`Client::flush`].
    pub fn notify_raw(&self, request: Request) -> Result<(), RpcError> {
        Ok(self.shared().send(&self.message(request, Flags::NORESPONSE))?)
    }

    /// Send a request with the no-response flag and yet wait for an answer, matched by topic.
    ///
    /// `job-exec.shell-barrier` is such a request.
    pub async fn rpc_untagged(&self, request: Request) -> Result<Message, RpcError> {
        let (sink, response) = oneshot::channel();
        let topic = request.topic.as_str().to_owned();
        self.shared().state().untagged.push((topic, sink));
        self.notify_raw(request)?;
        RawPending::new(self.clone(), None, response).await
    }

    /// Receive events whose topics begin with `prefix`.
    pub async fn subscribe(&self, prefix: &str) -> Result<Events, RpcError> {
        Events::subscribe(self, prefix).await
    }

    /// Send an event to be published; nobody tells when. See [`Client::flush`].
    ///
    /// With [`Flags::PRIVATE`] only the same user and the instance owner receive it.
    pub fn publish(
        &self,
        topic: &str,
        payload: Option<Bytes>,
        flags: Flags,
    ) -> Result<(), Disconnect> {
        let message = Message::event(topic)
            .with_payload(payload)
            .with_flags(flags)
            .with_cred(self.connection.cred);
        self.shared().send(&message)
    }

    /// Register a service on the broker; its requests come to this client.
    ///
    /// EEXIST: somebody else has that name. EPERM: a guest's must begin with its user id and `-`.
    pub async fn register(&self, name: &str) -> Result<Service, RpcError> {
        Service::register(self, name).await
    }

    /// The value of a broker attribute. ENOENT: there is none of that name.
    pub async fn attr(&self, name: &str) -> Result<String, RpcError> {
        let request = attr::GetRequest { name: name.to_owned() };
        Ok(self.rpc::<attr::Get>(Nodeid::ANY, &request).await?.value)
    }

    /// Wait until all that was sent is out of this process; before exit after a last notify.
    pub async fn flush(&self) -> Result<(), Disconnect> {
        self.shared().flush().await
    }

    /// Wait until the connection ends; tells why.
    pub async fn closed(&self) -> Disconnect {
        self.shared().closed().await
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.connection.shared
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.connection.last_id.fetch_add(1, Ordering::Relaxed)
    }

    fn message(&self, request: Request, flags: Flags) -> Message {
        Message::request(request.topic, request.nodeid, Matchtag::NONE)
            .with_payload(request.payload)
            .with_flags(request.flags | flags)
            .with_cred(self.connection.cred)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Follow `parent-uri` as many levels up as `path` has `..` elements.
async fn open_ancestor(path: &str) -> Result<Client, OpenError> {
    let failed = |reason: String| OpenError::Ancestor { uri: path.to_owned(), reason };
    let mut levels = 0;
    if path == "/" {
        levels = u32::MAX;
    } else if path.starts_with('/') {
        return Err(failed("only / itself may start with a slash".to_owned()));
    } else {
        for element in path.split('/') {
            match element {
                ".." => levels += 1,
                "." | "" => {}
                _ => return Err(failed(format!("invalid URI path element '{element}'"))),
            }
        }
    }
    let mut client = Client::connect(&connect::default_uri()).await?;
    while levels > 0 {
        let level = client.attr("instance-level").await.map_err(|e| failed(e.to_string()))?;
        if level == "0" {
            break;
        }
        let parent = client.attr("parent-uri").await.map_err(|e| failed(e.to_string()))?;
        client = Client::connect(&parent).await?;
        levels -= 1;
    }
    Ok(client)
}

/// `FLUX_HANDLE_USERID` and `FLUX_HANDLE_ROLEMASK` let the instance owner act as somebody else.
fn credential_from_environment() -> Credential {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => value.parse().ok(),
        }
    };
    Credential {
        userid: number("FLUX_HANDLE_USERID").map_or(Userid::UNKNOWN, Userid),
        rolemask: number("FLUX_HANDLE_ROLEMASK").map_or(Rolemask::NONE, Rolemask),
    }
}
