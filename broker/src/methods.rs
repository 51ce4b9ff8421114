//! The methods of a service: topic, caller check, decoding and handler, in one table.

use std::collections::HashMap;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Message};
use flux_protocol::payload::{Payload, PayloadError};
use flux_protocol::rpc::{Method, Reply};

use crate::call::{Call, Sender};
use crate::context::Context;
use crate::service::Service;

type Answer<S, M> = fn(
    &mut S,
    &Context<S>,
    <M as Method>::Request,
    &Sender,
) -> Result<<M as Method>::Response, Failure>;
type Handler<S> = Box<dyn Fn(&mut S, &Context<S>, Message)>;

/// Topic to handler. Role check, decoding and the streaming flag are dealt with here, once.
pub struct Methods<S> {
    by_topic: HashMap<&'static str, Handler<S>>,
}

impl<S> std::fmt::Debug for Methods<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_topic.keys()).finish()
    }
}

impl<S> Default for Methods<S> {
    fn default() -> Self {
        Methods { by_topic: HashMap::new() }
    }
}

impl<S: Service> Methods<S> {
    /// A method that is answered at once.
    pub fn reply<M: Method>(self, handler: Answer<S, M>) -> Self {
        self.serve::<M>(move |service, context, request, call| {
            let result = handler(service, context, request, &call.sender());
            call.finish(result);
        })
    }

    /// A method that is never answered, whatever comes of it.
    pub fn notify<M: Method>(self, handler: fn(&mut S, &Context<S>, M::Request, &Sender)) -> Self {
        self.serve::<M>(move |service, context, request, call| {
            handler(service, context, request, &call.sender());
            call.into_request();
        })
    }

    /// Let only those tell of a disconnect whom the row admits.
    pub fn disconnect<M: Method>(self) -> Self {
        self.serve::<M>(|service, context, _, call| {
            service.disconnect(context, &call.sender());
            call.into_request();
        })
    }

    /// A method that is answered later, or by a stream: the handler keeps the call.
    pub fn serve<M: Method>(
        self,
        handler: impl Fn(&mut S, &Context<S>, M::Request, Call<M::Response>) + 'static,
    ) -> Self {
        self.serve_or::<M>(|error| error.into(), handler)
    }

    /// As [`Methods::serve`], where a payload that can't be decoded is answered in own words.
    pub fn serve_or<M: Method>(
        mut self,
        refusal: fn(PayloadError) -> Failure,
        handler: impl Fn(&mut S, &Context<S>, M::Request, Call<M::Response>) + 'static,
    ) -> Self {
        let checked =
            move |service: &mut S, context: &Context<S>, mut message: Message| match check::<M>(
                &mut message,
                refusal,
            ) {
                Ok(request) => {
                    let call = Call::new(context.router().clone(), message);
                    handler(service, context, request, call);
                }
                // Who may not call is told so even where nothing is answered.
                Err(failure) if M::REPLY == Reply::Never && failure.errno != Errno::EPERM => {}
                Err(failure) => context.router().respond_failure(&message, &failure),
            };
        self.by_topic.insert(M::TOPIC, Box::new(checked));
        self
    }

    /// False when there is no such method here.
    pub(crate) fn dispatch(
        &self,
        service: &mut S,
        context: &Context<S>,
        message: Message,
    ) -> Result<(), Message> {
        let handler = match self.by_topic.get(message.topic.as_str()) {
            // A module that was loaded under another name.
            None if message.topic.service() == context.name() && context.name() != S::NAME => {
                self.by_topic.get(format!("{}.{}", S::NAME, message.topic.method()).as_str())
            }
            handler => handler,
        };
        match handler {
            Some(handler) => {
                handler(service, context, message);
                Ok(())
            }
            None => Err(message),
        }
    }
}

fn check<M: Method>(
    message: &mut Message,
    refusal: fn(PayloadError) -> Failure,
) -> Result<M::Request, Failure> {
    if !M::WHO.admits(message.cred) {
        return Err(Failure::new(Errno::EPERM, M::WHO.refusal()));
    }
    // Even when the request asks for it: a real Flux has no answer to these, but a refusal.
    if M::REPLY == Reply::Never {
        message.flags.set(Flags::NORESPONSE);
    }
    let request = M::Request::decode(message.payload.as_ref()).map_err(refusal)?;
    if M::REPLY == Reply::Stream && !message.is_streaming() {
        return Err(Errno::EPROTO.into());
    }
    Ok(request)
}
