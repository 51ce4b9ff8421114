//! `runat`: commands that are to run at a later state of the broker, such as `cleanup`.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::broker as rpc;

use crate::call::Sender;
use crate::context::Context;
use crate::methods::Methods;
use crate::service::Service;

#[derive(Debug)]
pub struct Runat;

impl Service for Runat {
    const NAME: &'static str = "runat";
    const SERVICES: &'static [&'static str] = &["runat"];
    const IS_MODULE: bool = false;

    async fn start(_: &Context<Runat>, _: &[String]) -> Result<Runat, Failure> {
        Ok(Runat)
    }

    fn methods() -> Methods<Runat> {
        Methods::default().reply::<rpc::RunatPush>(Runat::push)
    }
}

impl Runat {
    fn push(
        &mut self,
        context: &Context<Runat>,
        request: rpc::RunatPushRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        if request.commands.is_empty() {
            return Err(Failure::new(Errno::EPROTO, "commands array is empty"));
        }
        if request.commands.iter().any(String::is_empty) {
            return Err(Failure::new(Errno::EPROTO, "cannot push an empty command line"));
        }
        for command in request.commands {
            context.broker().pushed().push(&request.name, command);
        }
        Ok(Empty)
    }
}
