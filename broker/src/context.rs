//! What a service has at hand beside its own state.

use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use flux_protocol::message::{Matchtag, Message, Nodeid, Topic};

use crate::broker::Broker;
use crate::config::Config;
use crate::handle::Handle;
use crate::log::Severity;
use crate::mailbox::{Delivery, Sender};
use crate::router::Router;

/// Given to every handler of a service; cheap to clone.
pub struct Context<S> {
    name: Rc<str>,
    uuid: Bytes,
    broker: Rc<Broker>,
    handle: Handle,
    mailbox: Sender<S>,
}

impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        Context {
            name: self.name.clone(),
            uuid: self.uuid.clone(),
            broker: self.broker.clone(),
            handle: self.handle.clone(),
            mailbox: self.mailbox.clone(),
        }
    }
}

impl<S> std::fmt::Debug for Context<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<S: 'static> Context<S> {
    pub(crate) fn new(
        name: &str,
        uuid: Bytes,
        broker: Rc<Broker>,
        handle: Handle,
        mailbox: Sender<S>,
    ) -> Context<S> {
        Context { name: name.into(), uuid, broker, handle, mailbox }
    }

    /// The name under which the service was loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn broker(&self) -> &Rc<Broker> {
        &self.broker
    }

    pub fn router(&self) -> &Router {
        self.handle.router()
    }

    /// For calls to other services.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub fn rank(&self) -> u32 {
        self.router().rank()
    }

    /// The configuration as it is now.
    pub fn config(&self) -> Rc<Config> {
        self.broker.config()
    }

    /// Log under the service's name.
    pub fn log(&self, severity: Severity, text: impl AsRef<str>) {
        self.broker.log().append(severity, &self.name, text.as_ref());
    }

    /// Send a request without a matchtag to the local broker, for the old protocols in which
    /// responses are told apart by what is in them; see [`crate::service::Service::response`].
    pub fn send_untagged(&self, topic: impl Into<Topic>, payload: Option<Bytes>) {
        let mut request = Message::request(topic, Nodeid::ANY, Matchtag::NONE)
            .with_payload(payload)
            .with_cred(self.router().owner_cred());
        request.routes.push(self.uuid.clone());
        self.router().request(request);
    }

    /// Receive events through [`crate::service::Service::event`].
    pub fn subscribe(&self, prefix: &str) {
        self.router().subscribe(&self.uuid, prefix);
    }

    pub fn unsubscribe(&self, prefix: &str) {
        let _ = self.router().unsubscribe(&self.uuid, prefix);
    }

    /// Run `work` beside the service and hand its result to `done` with the service's state.
    ///
    /// The state never changes while a handler waits, since handlers never wait. `done` does not
    /// run when the service has stopped meanwhile.
    pub fn spawn<T: 'static>(
        &self,
        work: impl Future<Output = T> + 'static,
        done: impl FnOnce(&mut S, T) + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let mailbox = self.mailbox.clone();
        tokio::task::spawn_local(async move {
            let result = work.await;
            mailbox.send(Delivery::Work(Box::new(move |state| done(state, result))));
        })
    }

    /// Run `done` with the state in a later turn.
    pub fn later(&self, done: impl FnOnce(&mut S) + 'static) {
        self.mailbox.send(Delivery::Work(Box::new(done)));
    }
}
