//! `event`: publication that is acknowledged with the sequence number.
//!
//! Subscriptions are the connector's own, so a client can't subscribe anybody but itself.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Message};
use flux_protocol::rpc::event as rpc;

use crate::call::Sender;
use crate::context::Context;
use crate::methods::Methods;
use crate::service::Service;

#[derive(Debug)]
pub struct Event;

impl Service for Event {
    const NAME: &'static str = "event";
    const SERVICES: &'static [&'static str] = &["event"];
    const IS_MODULE: bool = false;

    async fn start(_: &Context<Event>, _: &[String]) -> Result<Event, Failure> {
        Ok(Event)
    }

    fn methods() -> Methods<Event> {
        Methods::default().reply::<rpc::Publish>(Event::publish)
    }
}

impl Event {
    fn publish(
        &mut self,
        context: &Context<Event>,
        request: rpc::PublishRequest,
        sender: &Sender,
    ) -> Result<rpc::PublishResponse, Failure> {
        let flags = match request.flags {
            0 => Flags::default(),
            rpc::PRIVATE => Flags::PRIVATE,
            _ => return Err(Errno::EPROTO.into()),
        };
        let payload = match request.payload {
            Some(text) => Some(BASE64_STANDARD.decode(text).map_err(|_| Errno::EPROTO)?),
            None => None,
        };
        let event = Message::event(request.topic)
            .with_payload(payload.map(Bytes::from))
            .with_flags(flags)
            .with_cred(sender.cred);
        Ok(rpc::PublishResponse { seq: context.router().publish(event)? })
    }
}
