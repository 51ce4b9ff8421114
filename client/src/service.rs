//! Services that a client registers: requests come to it, and it answers them.

use bytes::Bytes;
use flux_protocol::errno::Errno;
use flux_protocol::message::{Message, Nodeid, text_payload};
use flux_protocol::payload::Empty;
use flux_protocol::rpc::service;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::error::{Disconnect, RpcError};
use crate::pending::Pending;

/// A registered service. Dropping it removes the registration.
///
/// Requests that are not answered leave their callers waiting for good.
#[derive(Debug)]
pub struct Service {
    client: Client,
    name: String,
    requests: mpsc::UnboundedReceiver<Message>,
    /// The broker has been asked to end it.
    retired: bool,
}

impl Service {
    pub(crate) async fn register(client: &Client, name: &str) -> Result<Service, RpcError> {
        let (sink, requests) = mpsc::unbounded_channel();
        let taken = client.shared().state().services.contains_key(name);
        if taken {
            return Err(RpcError::Refused { errno: Errno::EEXIST, text: None });
        }
        // Before the request: calls may come right behind its response.
        client.shared().state().services.insert(name.to_owned(), sink);
        let request = service::AddRequest { service: name.to_owned() };
        let mut this =
            Service { client: client.clone(), name: name.to_owned(), requests, retired: false };
        if let Err(e) = client.rpc::<service::Add>(Nodeid::ANY, &request).await {
            this.forget();
            return Err(e);
        }
        Ok(this)
    }

    /// The next request, with the sender's credential.
    ///
    /// Topics are `NAME.METHOD`; `NAME.disconnect` tells that the sender has gone.
    pub async fn next(&mut self) -> Result<Message, Disconnect> {
        self.requests.recv().await.ok_or_else(|| self.client.shared().end())
    }

    /// The next request if one has come already.
    pub fn try_next(&mut self) -> Option<Message> {
        self.requests.try_recv().ok()
    }

    /// Answer a request. One that wants no response gets none.
    pub fn respond(&self, request: &Message, payload: Option<Bytes>) -> Result<(), Disconnect> {
        self.client.respond(request, payload)
    }

    /// Answer a request with an error; `text` may be empty.
    pub fn refuse(&self, request: &Message, errno: Errno, text: &str) -> Result<(), Disconnect> {
        self.client.refuse(request, errno, text)
    }

    /// Ask the broker to remove the registration.
    ///
    /// Requests come until it has answered, and those must be answered too, else their senders
    /// wait for good: read on, and when the answer is there, take the rest with
    /// [`Service::try_next`].
    pub fn retire(&mut self) -> Result<Pending<Empty>, RpcError> {
        self.retired = true;
        let request = service::RemoveRequest { service: self.name.clone() };
        self.client.start::<service::Remove>(Nodeid::ANY, &request)
    }

    /// Remove the registration and wait for the broker's answer. Requests that have come by then
    /// are refused as if there were no service (ENOSYS).
    pub async fn remove(mut self) -> Result<(), RpcError> {
        self.retire()?.await?;
        while let Some(request) = self.try_next() {
            self.refuse(&request, Errno::ENOSYS, "")?;
        }
        Ok(())
    }

    /// Returns whether the registration was still there.
    fn forget(&mut self) -> bool {
        self.client.shared().state().services.remove(&self.name).is_some()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.forget() && !self.retired {
            let request = service::RemoveRequest { service: self.name.clone() };
            // Nobody is left to hear of a failure.
            drop(self.client.start::<service::Remove>(Nodeid::ANY, &request));
        }
    }
}

impl Client {
    /// Answer a request that came to a [`Service`]. One that wants no response gets none.
    pub fn respond(&self, request: &Message, payload: Option<Bytes>) -> Result<(), Disconnect> {
        if !request.wants_response() {
            return Ok(());
        }
        self.shared().send(&Message::response(request, 0, payload))
    }

    /// Answer a request with an error; `text` may be empty.
    pub fn refuse(&self, request: &Message, errno: Errno, text: &str) -> Result<(), Disconnect> {
        if !request.wants_response() {
            return Ok(());
        }
        let payload = (!text.is_empty()).then(|| text_payload(text));
        self.shared().send(&Message::response(request, errno.0, payload))
    }
}
