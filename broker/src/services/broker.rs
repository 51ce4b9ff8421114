//! `broker`: the broker process itself.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::layout::Layout;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::broker as rpc;

use crate::call::Sender;
use crate::config::Config;
use crate::context::Context;
use crate::methods::Methods;
use crate::service::Service;

#[derive(Debug)]
pub struct BrokerService {
    layout: Layout,
}

impl Service for BrokerService {
    const NAME: &'static str = "broker";
    const SERVICES: &'static [&'static str] = &["broker"];

    async fn start(_: &Context<Self>, _: &[String]) -> Result<Self, Failure> {
        Ok(BrokerService { layout: Layout::from_program(&std::env::current_exe()?) })
    }

    fn methods() -> Methods<Self> {
        Methods::default()
            .reply::<rpc::Getenv>(Self::getenv)
            .reply::<rpc::Setenv>(Self::setenv)
            .reply::<rpc::ConfBuiltin>(Self::conf_builtin)
            .disconnect::<rpc::Disconnect>()
    }

    fn configure(&mut self, _: &Context<Self>, config: &Config) -> Result<(), Failure> {
        crate::config::tables::check(config).map_err(|refusal| refusal.error.into())
    }
}

impl BrokerService {
    fn getenv(
        &mut self,
        context: &Context<Self>,
        request: rpc::GetenvRequest,
        _: &Sender,
    ) -> Result<rpc::GetenvResponse, Failure> {
        let environment = context.broker().environment();
        let value = |name: String| environment.get(&name).map(|value| (name, value));
        Ok(rpc::GetenvResponse { env: request.names.into_iter().filter_map(value).collect() })
    }

    fn setenv(
        &mut self,
        context: &Context<Self>,
        request: rpc::SetenvRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        // As for setenv(3), of all before any is set: a command could not be started with them.
        let is_name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        let is_value = |value: &Option<String>| value.as_ref().is_none_or(|v| !v.contains('\0'));
        if let Some((name, _)) = request.env.iter().find(|(n, v)| !(is_name(n) && is_value(v))) {
            let text = format!("'{}' can't be set in an environment", name.escape_default());
            return Err(Failure::new(Errno::EPROTO, text));
        }
        for (name, value) in request.env {
            context.broker().environment().set(&name, value);
        }
        Ok(Empty)
    }

    fn conf_builtin(
        &mut self,
        _: &Context<Self>,
        request: rpc::ConfBuiltinRequest,
        _: &Sender,
    ) -> Result<rpc::ConfBuiltinResponse, Failure> {
        let value = |key: String| match self.layout.builtin(&key) {
            Some(value) => Ok((key, value)),
            None => Err(Failure::new(Errno::EINVAL, format!("{key}: invalid key"))),
        };
        let values = request.keys.into_iter().map(value).collect::<Result<_, _>>()?;
        Ok(rpc::ConfBuiltinResponse { values })
    }
}
