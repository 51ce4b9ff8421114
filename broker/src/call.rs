//! A request that a service is answering.

use std::marker::PhantomData;

use bytes::Bytes;
use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Matchtag, Message};
use flux_protocol::payload::Payload;

use crate::router::Router;

/// Who sent a request: the first route on its stack, and the credential.
///
/// A disconnect request has the same sender as the requests that it cleans up after.
#[derive(Debug, Clone, PartialEq)]
pub struct Sender {
    pub uuid: Bytes,
    pub cred: Credential,
}

impl Sender {
    pub fn of(message: &Message) -> Sender {
        Sender { uuid: message.first_route().cloned().unwrap_or_default(), cred: message.cred }
    }

    /// May `other`, a disconnect or cancel request's sender, end what this sender started?
    pub fn ended_by(&self, other: &Sender) -> bool {
        self.uuid == other.uuid && other.cred.authorizes(self.cred.userid)
    }
}

/// A request with the right to answer it. Dropped unanswered it answers that the service
/// stopped.
pub struct Call<R> {
    router: Router,
    request: Message,
    answered: bool,
    _response: PhantomData<fn(R)>,
}

impl<R> std::fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("topic", &self.request.topic).finish_non_exhaustive()
    }
}

impl<R> Call<R> {
    pub(crate) fn new(router: Router, request: Message) -> Call<R> {
        Call { router, request, answered: false, _response: PhantomData }
    }

    pub fn request(&self) -> &Message {
        &self.request
    }

    pub fn cred(&self) -> Credential {
        self.request.cred
    }

    pub fn sender(&self) -> Sender {
        Sender::of(&self.request)
    }

    pub fn matchtag(&self) -> Matchtag {
        self.request.matchtag()
    }

    pub fn is_streaming(&self) -> bool {
        self.request.is_streaming()
    }

    /// Answer with an error: the end of a stream, too.
    pub fn fail(mut self, failure: impl Into<Failure>) {
        self.answered = true;
        self.router.respond_failure(&self.request, &failure.into());
    }

    /// End a stream normally.
    pub fn end(self) {
        self.fail(Errno::ENODATA);
    }

    /// Send a payload that is encoded already; for a stream, more may follow.
    pub fn send_raw(&self, payload: Option<Bytes>) {
        if self.request.wants_response() {
            self.router.respond(&self.request, 0, payload);
        }
    }

    /// Answer with a payload that is encoded already.
    pub fn reply_raw(mut self, payload: Option<Bytes>) {
        self.answered = true;
        self.send_raw(payload);
    }

    /// The request is answered by someone else, or never; for a service that passes it on.
    pub fn into_request(mut self) -> Message {
        self.answered = true;
        self.request.clone()
    }
}

impl<R: Payload> Call<R> {
    /// The one answer.
    pub fn reply(mut self, response: &R) {
        self.answered = true;
        self.send(response);
    }

    /// One answer of a stream.
    pub fn send(&self, response: &R) {
        match response.encode() {
            Ok(payload) => self.send_raw(payload),
            Err(error) => self.router.respond_failure(&self.request, &error.into()),
        }
    }

    pub fn finish(self, result: Result<R, Failure>) {
        match result {
            Ok(response) => self.reply(&response),
            Err(failure) => self.fail(failure),
        }
    }
}

impl<R> Drop for Call<R> {
    fn drop(&mut self) {
        if !self.answered {
            self.router.respond_stopped(&self.request);
        }
    }
}

/// Open calls of one kind, each with what the service keeps about it.
#[derive(Debug)]
pub struct Calls<R, T> {
    open: Vec<(Call<R>, T)>,
}

impl<R, T> Default for Calls<R, T> {
    fn default() -> Self {
        Calls { open: Vec::new() }
    }
}

impl<R, T> Calls<R, T> {
    pub fn insert(&mut self, call: Call<R>, value: T) {
        self.open.push((call, value));
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Call<R>, &mut T)> {
        self.open.iter_mut().map(|(call, value)| (&*call, value))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Call<R>, &T)> {
        self.open.iter().map(|(call, value)| (call, value))
    }

    /// Take out the calls for which `predicate` holds.
    pub fn take(
        &mut self,
        mut predicate: impl FnMut(&Call<R>, &mut T) -> bool,
    ) -> Vec<(Call<R>, T)> {
        self.open.extract_if(.., |(call, value)| predicate(call, value)).collect()
    }

    /// Take out the call that `sender` asks to cancel by its matchtag.
    pub fn cancel(&mut self, sender: &Sender, matchtag: u32) -> Option<(Call<R>, T)> {
        let at = self.open.iter().position(|(call, _)| {
            call.matchtag().0 == matchtag && call.sender().ended_by(sender)
        })?;
        Some(self.open.swap_remove(at))
    }

    /// Drop the calls of a sender that went away; nobody is there to be answered.
    pub fn disconnect(&mut self, sender: &Sender) -> Vec<T> {
        self.take(|call, _| call.sender().ended_by(sender))
            .into_iter()
            .map(|(call, value)| {
                call.into_request();
                value
            })
            .collect()
    }
}
