//! `attr`: broker attributes.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::attr as rpc;

use crate::attrs::Access;
use crate::call::Sender;
use crate::context::Context;
use crate::log;
use crate::methods::Methods;
use crate::service::Service;

#[derive(Debug)]
pub struct Attr;

impl Service for Attr {
    const NAME: &'static str = "attr";
    const SERVICES: &'static [&'static str] = &["attr"];
    const IS_MODULE: bool = false;

    async fn start(_: &Context<Attr>, _: &[String]) -> Result<Attr, Failure> {
        Ok(Attr)
    }

    fn methods() -> Methods<Attr> {
        Methods::default()
            .reply::<rpc::Get>(Attr::get)
            .reply::<rpc::List>(Attr::list)
            .reply::<rpc::Set>(Attr::set)
            .reply::<rpc::Remove>(Attr::remove)
    }
}

impl Attr {
    fn get(
        &mut self,
        context: &Context<Attr>,
        request: rpc::GetRequest,
        _: &Sender,
    ) -> Result<rpc::GetResponse, Failure> {
        let attrs = context.broker().attrs();
        let value = attrs.get(&request.name).ok_or(Errno::ENOENT)?;
        let immutable = attrs.access(&request.name) == Some(Access::Immutable);
        Ok(rpc::GetResponse { value, flags: u32::from(immutable) })
    }

    fn list(
        &mut self,
        context: &Context<Attr>,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::ListResponse, Failure> {
        Ok(rpc::ListResponse { names: context.broker().attrs().names() })
    }

    fn set(
        &mut self,
        context: &Context<Attr>,
        request: rpc::SetRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        log::check_level(&request.name, &request.value)?;
        context.broker().attrs().set(&request.name, &request.value, request.force)?;
        context.broker().log().attrs_changed(context.broker().attrs());
        Ok(Empty)
    }

    fn remove(
        &mut self,
        context: &Context<Attr>,
        request: rpc::RemoveRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        context.broker().attrs().remove(&request.name)?;
        Ok(Empty)
    }
}
