//! `heaptrace`: profiles of the C library's heap, which this broker has none of.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::heaptrace as rpc;

use crate::call::Sender;
use crate::context::Context;
use crate::methods::Methods;
use crate::service::Service;

#[derive(Debug)]
pub struct Heaptrace;

impl Service for Heaptrace {
    const NAME: &'static str = "heaptrace";
    const SERVICES: &'static [&'static str] = &["heaptrace"];
    const IS_MODULE: bool = false;

    async fn start(_: &Context<Heaptrace>, _: &[String]) -> Result<Heaptrace, Failure> {
        Ok(Heaptrace)
    }

    fn methods() -> Methods<Heaptrace> {
        Methods::default()
            .reply::<rpc::Start>(Heaptrace::start)
            .reply::<rpc::Dump>(Heaptrace::dump)
            .reply::<rpc::Stop>(Heaptrace::stop)
    }
}

impl Heaptrace {
    fn start(
        &mut self,
        _: &Context<Heaptrace>,
        _: rpc::StartRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        Err(Errno::ENOSYS.into())
    }

    fn dump(
        &mut self,
        _: &Context<Heaptrace>,
        _: rpc::DumpRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        Err(Errno::ENOSYS.into())
    }

    fn stop(&mut self, _: &Context<Heaptrace>, _: Empty, _: &Sender) -> Result<Empty, Failure> {
        Err(Errno::ENOSYS.into())
    }
}
