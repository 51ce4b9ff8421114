//! In-process calls: what a service uses to talk to other services, here or on other ranks.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use bytes::Bytes;
use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Kind, Matchtag, Message, Nodeid, Topic};
use flux_protocol::payload::{Payload, text};
use flux_protocol::rpc::Method;

use crate::router::{Router, Sink, new_uuid};
use crate::tap::{Tap, Way};

/// An endpoint of its own for calls; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    router: Router,
    uuid: Bytes,
    pending: Rc<Pending>,
}

/// Responses that are waited for, by matchtag.
#[derive(Default)]
struct Pending {
    slots: RefCell<Slots>,
    /// Services that were called, by the topic's beginning, each with where it is: they are told
    /// when this handle is closed, as those of a client are.
    called: RefCell<BTreeMap<(String, u32, bool), Nodeid>>,
    cred: Option<Credential>,
    tap: Tap,
}

#[derive(Default)]
struct Slots {
    next: u32,
    by_tag: HashMap<u32, Slot>,
}

#[derive(Default)]
struct Slot {
    queue: VecDeque<Message>,
    waker: Option<Waker>,
}

/// The responses to one request; forgets it when dropped.
pub struct Responses<M> {
    handle: Handle,
    tag: u32,
    _method: PhantomData<fn() -> M>,
}

// === impl Pending ===

impl Sink for Pending {
    fn deliver(&self, message: Message) {
        self.tap.see(Way::Received, &message);
        let mut slots = self.slots.borrow_mut();
        // A response whose caller has gone away finds no slot.
        if let Some(slot) = slots.by_tag.get_mut(&message.matchtag().0) {
            slot.queue.push_back(message);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    fn cred(&self) -> Credential {
        self.cred.unwrap_or(Credential::UNSET)
    }
}

// === impl Handle ===

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("uuid", &self.uuid).finish_non_exhaustive()
    }
}

impl Handle {
    pub fn new(router: Router) -> Handle {
        let pending = Rc::new(Pending {
            cred: Some(router.owner_cred()),
            slots: RefCell::default(),
            called: RefCell::default(),
            tap: router.tap().clone(),
        });
        let uuid = new_uuid();
        router.attach(uuid.clone(), pending.clone());
        Handle { router, uuid, pending }
    }

    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Stop receiving responses. Services that were called are told, so that they end streams and
    /// forget what was asked of them.
    pub fn close(&self) {
        for ((prefix, _, upstream), nodeid) in self.pending.called.take() {
            let flags = if upstream { Flags::UPSTREAM } else { Flags::default() };
            let topic = format!("{prefix}.disconnect").into();
            let flags = flags | Flags::NORESPONSE;
            self.router.request(self.message(topic, nodeid, Matchtag::NONE, flags, None));
        }
        self.router.detach(&self.uuid);
    }

    fn note_call(&self, topic: &Topic, nodeid: Nodeid, flags: Flags) {
        if let Some((prefix, _)) = topic.as_str().rsplit_once('.') {
            let key = (prefix.to_owned(), nodeid.0, flags.contains(Flags::UPSTREAM));
            self.pending.called.borrow_mut().entry(key).or_insert(nodeid);
        }
    }

    /// Call a method on the first broker on the way up that has it, and wait for its one answer.
    pub async fn rpc<M: Method>(&self, request: &M::Request) -> Result<M::Response, Failure> {
        self.rpc_to::<M>(Nodeid::ANY, request).await
    }

    /// Call a method at a rank.
    pub async fn rpc_to<M: Method>(
        &self,
        nodeid: Nodeid,
        request: &M::Request,
    ) -> Result<M::Response, Failure> {
        self.send::<M>(nodeid, Flags::default(), request)?.next().await
    }

    /// Call a method in the name of somebody else, whose rights then count.
    pub async fn rpc_as<M: Method>(
        &self,
        cred: Credential,
        request: &M::Request,
    ) -> Result<M::Response, Failure> {
        let (tag, topic) = (self.open(), Topic::from_static(M::TOPIC));
        let mut responses = Responses::<M> { handle: self.clone(), tag, _method: PhantomData };
        let flags = Flags::default();
        let message = self.message(topic, Nodeid::ANY, Matchtag(tag), flags, request.encode()?);
        self.router.request(message.with_cred(cred));
        responses.next().await
    }

    /// Call a method at the parent or above.
    pub async fn rpc_upstream<M: Method>(
        &self,
        request: &M::Request,
    ) -> Result<M::Response, Failure> {
        let nodeid = Nodeid(self.router.rank());
        self.send::<M>(nodeid, Flags::UPSTREAM, request)?.next().await
    }

    /// Open a stream of responses.
    pub fn stream<M: Method>(
        &self,
        nodeid: Nodeid,
        request: &M::Request,
    ) -> Result<Responses<M>, Failure> {
        self.send::<M>(nodeid, Flags::STREAMING, request)
    }

    /// Send a request whose flags beyond those of every request are `flags`.
    pub fn send<M: Method>(
        &self,
        nodeid: Nodeid,
        flags: Flags,
        request: &M::Request,
    ) -> Result<Responses<M>, Failure> {
        let payload = request.encode()?;
        Ok(self.send_raw(M::TOPIC, nodeid, flags, payload))
    }

    /// Send a request for which there is no row in the table, such as one to a plugin.
    pub fn send_raw<M>(
        &self,
        topic: impl Into<Topic>,
        nodeid: Nodeid,
        flags: Flags,
        payload: Option<Bytes>,
    ) -> Responses<M> {
        let (tag, topic) = (self.open(), topic.into());
        self.note_call(&topic, nodeid, flags);
        let message = self.message(topic, nodeid, Matchtag(tag), flags, payload);
        self.router.request(message);
        Responses { handle: self.clone(), tag, _method: PhantomData }
    }

    /// Send a request that is not answered.
    pub fn notify<M: Method>(
        &self,
        nodeid: Nodeid,
        flags: Flags,
        request: &M::Request,
    ) -> Result<(), Failure> {
        let flags = flags | Flags::NORESPONSE;
        let payload = request.encode()?;
        let topic = Topic::from_static(M::TOPIC);
        self.router.request(self.message(topic, nodeid, Matchtag::NONE, flags, payload));
        Ok(())
    }

    /// Send a raw request that is not answered; the failure when it can't be sent now.
    pub fn try_notify_raw(
        &self,
        topic: impl Into<Topic>,
        nodeid: Nodeid,
        flags: Flags,
        payload: Option<Bytes>,
    ) -> Result<(), Failure> {
        let flags = flags | Flags::NORESPONSE;
        let message = self.message(topic.into(), nodeid, Matchtag::NONE, flags, payload);
        self.router.try_request(message).map(|_| ()).map_err(|(_, failure)| failure)
    }

    /// Publish an event.
    pub fn publish(&self, topic: impl Into<Topic>, payload: Option<Bytes>) -> Result<(), Failure> {
        self.publish_flags(topic, Flags::default(), payload)
    }

    /// Publish an event with flags, such as [`Flags::PRIVATE`].
    pub fn publish_flags(
        &self,
        topic: impl Into<Topic>,
        flags: Flags,
        payload: Option<Bytes>,
    ) -> Result<(), Failure> {
        let event = Message::event(topic)
            .with_payload(payload)
            .with_flags(flags)
            .with_cred(self.router.owner_cred());
        self.router.publish(event).map(|_| ())
    }

    fn message(
        &self,
        topic: Topic,
        nodeid: Nodeid,
        matchtag: Matchtag,
        flags: Flags,
        payload: Option<Bytes>,
    ) -> Message {
        let mut message = Message::request(topic, nodeid, matchtag)
            .with_payload(payload)
            .with_flags(flags)
            .with_cred(self.router.owner_cred());
        message.routes.push(self.uuid.clone());
        message
    }

    fn open(&self) -> u32 {
        let mut slots = self.pending.slots.borrow_mut();
        loop {
            slots.next = slots.next.wrapping_add(1);
            let tag = slots.next;
            if tag != Matchtag::NONE.0 && !slots.by_tag.contains_key(&tag) {
                slots.by_tag.insert(tag, Slot::default());
                return tag;
            }
        }
    }
}

// === impl Responses ===

impl<M> std::fmt::Debug for Responses<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responses").field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl<M> Responses<M> {
    /// The matchtag, which cancel requests name.
    pub fn matchtag(&self) -> Matchtag {
        Matchtag(self.tag)
    }

    /// The next response, whatever its errnum.
    pub fn next_message(&mut self) -> impl Future<Output = Message> + '_ {
        NextMessage { pending: &self.handle.pending, tag: self.tag }
    }

    /// The next response's payload; an error response is a [`Failure`].
    pub async fn next_raw(&mut self) -> Result<Option<Bytes>, Failure> {
        let message = self.next_message().await;
        match message.kind {
            Kind::Response { errnum, .. } if errnum != 0 => Err(Failure {
                errno: Errno(errnum),
                text: text(message.payload.as_ref()).ok().map(str::to_owned),
            }),
            _ => Ok(message.payload),
        }
    }
}

impl<M: Method> Responses<M> {
    /// The next response, decoded; the end of a stream is a failure with ENODATA.
    pub async fn next(&mut self) -> Result<M::Response, Failure> {
        let payload = self.next_raw().await?;
        Ok(M::Response::decode(payload.as_ref())?)
    }
}

impl<M> Drop for Responses<M> {
    fn drop(&mut self) {
        self.handle.pending.slots.borrow_mut().by_tag.remove(&self.tag);
    }
}

struct NextMessage<'a> {
    pending: &'a Pending,
    tag: u32,
}

impl Future for NextMessage<'_> {
    type Output = Message;
    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Message> {
        let mut slots = self.pending.slots.borrow_mut();
        let Some(slot) = slots.by_tag.get_mut(&self.tag) else { return Poll::Pending };
        match slot.queue.pop_front() {
            Some(message) => Poll::Ready(message),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
