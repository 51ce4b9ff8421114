//! `connector-local`: who may connect, and who is connected.

use std::rc::Rc;

use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::connector_local as rpc;

use crate::call::Sender;
use crate::config::Config;
use crate::config::access::Access;
use crate::connector::status::Status;
use crate::context::Context;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;

#[derive(Debug)]
pub struct ConnectorLocal {
    status: Rc<Status>,
}

impl Service for ConnectorLocal {
    const NAME: &'static str = "connector-local";
    const SERVICES: &'static [&'static str] = &["connector-local"];
    const RELOAD_REFUSAL: &'static str = "Error unpacking {topic} request";

    async fn start(context: &Context<Self>, _: &[String]) -> Result<Self, Failure> {
        let status = context.broker().connector_status().clone();
        let service = ConnectorLocal { status };
        service.log_access(context);
        Ok(service)
    }

    fn methods() -> Methods<Self> {
        Methods::default().reply::<rpc::Stats>(Self::statistics)
    }

    fn configure(&mut self, context: &Context<Self>, config: &Config) -> Result<(), Failure> {
        self.status.set_access(Access::parse(config)?);
        self.log_access(context);
        Ok(())
    }
}

impl ConnectorLocal {
    fn log_access(&self, context: &Context<Self>) {
        let access = self.status.access();
        context.log(Severity::Debug, format!("allow-guest-user={}", access.allow_guest_user));
        context.log(Severity::Debug, format!("allow-root-owner={}", access.allow_root_owner));
    }

    fn statistics(
        &mut self,
        _: &Context<Self>,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::StatsResponse, Failure> {
        let access = self.status.access();
        Ok(rpc::StatsResponse {
            server: rpc::Server {
                clients: self.status.clients(),
                connects: self.status.connects(),
            },
            allow_guest_user: access.allow_guest_user,
            allow_root_owner: access.allow_root_owner,
        })
    }
}
