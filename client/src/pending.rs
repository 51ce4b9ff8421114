//! Requests on the way: a single response, or a stream of them.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use flux_protocol::errno::Errno;
use flux_protocol::message::{Matchtag, Message, Nodeid};
use flux_protocol::payload::{self, Payload};
use flux_protocol::rpc::Method;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::client::{Client, Request};
use crate::error::RpcError;

/// A request that has been sent; await it for its one response.
///
/// Dropping it means not to care: the response is thrown away when it comes.
#[derive(Debug)]
pub struct RawPending {
    client: Client,
    tag: Option<Matchtag>,
    response: oneshot::Receiver<Message>,
}

/// [`RawPending`] with the response decoded.
#[derive(Debug)]
pub struct Pending<T> {
    raw: RawPending,
    response: PhantomData<fn() -> T>,
}

/// Responses to one request. Dropping it throws away the rest; see [`RawStream::cancel`].
#[derive(Debug)]
pub struct RawStream {
    client: Client,
    tag: Matchtag,
    nodeid: Nodeid,
    responses: mpsc::UnboundedReceiver<Message>,
    ended: bool,
}

/// [`RawStream`] with the responses decoded.
#[derive(Debug)]
pub struct Stream<T> {
    raw: RawStream,
    response: PhantomData<fn() -> T>,
}

/// What cancel requests of all services carry.
#[derive(Serialize)]
struct CancelRequest {
    matchtag: u32,
}

// === impl RawPending ===

impl RawPending {
    pub(crate) fn new(
        client: Client,
        tag: Option<Matchtag>,
        response: oneshot::Receiver<Message>,
    ) -> RawPending {
        RawPending { client, tag, response }
    }

    /// Decode the response when it comes.
    pub fn decode<T: Payload>(self) -> Pending<T> {
        Pending::new(self)
    }

    fn leave(&mut self) {
        if let Some(tag) = self.tag.take() {
            self.client.shared().leave(tag);
        }
    }
}

impl Future for RawPending {
    type Output = Result<Message, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.response).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                self.leave();
                Poll::Ready(match result {
                    Ok(message) => check(message),
                    Err(_) => Err(self.client.shared().end().into()),
                })
            }
        }
    }
}

impl Drop for RawPending {
    fn drop(&mut self) {
        self.leave();
    }
}

// === impl Pending ===

impl<T: Payload> Pending<T> {
    pub(crate) fn new(raw: RawPending) -> Pending<T> {
        Pending { raw, response: PhantomData }
    }
}

impl<T: Payload> Future for Pending<T> {
    type Output = Result<T, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.raw).poll(cx).map(|result| Ok(T::decode(result?.payload.as_ref())?))
    }
}

// === impl RawStream ===

impl RawStream {
    pub(crate) fn new(
        client: Client,
        tag: Matchtag,
        nodeid: Nodeid,
        responses: mpsc::UnboundedReceiver<Message>,
    ) -> RawStream {
        RawStream { client, tag, nodeid, responses, ended: false }
    }

    /// The next response; `None` at the regular end (ENODATA). Nothing follows an error.
    pub async fn next(&mut self) -> Result<Option<Message>, RpcError> {
        if self.ended {
            return Ok(None);
        }
        let Some(message) = self.responses.recv().await else {
            self.leave();
            return Err(self.client.shared().end().into());
        };
        if message.errnum() != 0 || !message.is_streaming() {
            self.leave();
        }
        if message.errnum() == Errno::ENODATA.0 {
            return Ok(None);
        }
        check(message).map(Some)
    }

    /// Ask the service to end the stream; read on until it does.
    ///
    /// `topic` is that of the service's cancel method, such as `kvs-watch.cancel`.
    pub fn cancel(&self, topic: &str) -> Result<(), RpcError> {
        let request = CancelRequest { matchtag: self.tag.0 };
        self.client.notify_raw(
            Request::new(topic).to(self.nodeid).payload(payload::encode_json(&request)?),
        )
    }

    pub fn matchtag(&self) -> Matchtag {
        self.tag
    }

    /// Decode the responses as they come.
    pub fn decode<T: Payload>(self) -> Stream<T> {
        Stream::new(self)
    }

    fn leave(&mut self) {
        self.ended = true;
        self.client.shared().leave(self.tag);
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        if !self.ended {
            self.leave();
        }
    }
}

// === impl Stream ===

impl<T: Payload> Stream<T> {
    pub(crate) fn new(raw: RawStream) -> Stream<T> {
        Stream { raw, response: PhantomData }
    }

    /// The next response; `None` at the regular end (ENODATA). Nothing follows an error.
    pub async fn next(&mut self) -> Result<Option<T>, RpcError> {
        match self.raw.next().await? {
            Some(message) => Ok(Some(T::decode(message.payload.as_ref())?)),
            None => Ok(None),
        }
    }

    /// Ask the service to end the stream with its cancel method `C`; read on until it does.
    pub fn cancel<C: Method>(&self) -> Result<(), RpcError> {
        self.raw.cancel(C::TOPIC)
    }

    pub fn matchtag(&self) -> Matchtag {
        self.raw.matchtag()
    }
}

/// An error response as an error.
fn check(message: Message) -> Result<Message, RpcError> {
    match message.errnum() {
        0 => Ok(message),
        errnum => {
            let text = payload::text(message.payload.as_ref()).ok();
            let text = text.filter(|text| !text.is_empty()).map(str::to_owned);
            Err(RpcError::Refused { errno: Errno(errnum), text })
        }
    }
}
