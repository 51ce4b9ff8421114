//! `module`: load, unload, list and trace the broker's modules.

mod glob;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Kind, Message};
use flux_protocol::payload::{Empty, PayloadError, text};
use flux_protocol::rpc::module as rpc;
use serde_json::value::RawValue;

use crate::call::{Call, Calls, Sender};
use crate::context::Context;
use crate::methods::Methods;
use crate::modules;
use crate::service::Service;
use crate::tap::{Traced, Way};

#[derive(Debug, Default)]
pub struct Module {
    traces: Calls<rpc::TraceResponse, rpc::TraceRequest>,
}

impl Service for Module {
    const NAME: &'static str = "module";
    const SERVICES: &'static [&'static str] = &["module"];
    const IS_MODULE: bool = false;

    async fn start(_: &Context<Module>, _: &[String]) -> Result<Module, Failure> {
        Ok(Module::default())
    }

    fn methods() -> Methods<Module> {
        Methods::default()
            .serve::<rpc::Load>(Module::load)
            .serve::<rpc::Remove>(Module::remove)
            .reply::<rpc::List>(Module::list)
            .serve_or::<rpc::Status>(status_refusal, Module::status)
            .reply::<rpc::Debug>(Module::debug)
            .serve::<rpc::Trace>(Module::trace)
            .disconnect::<rpc::Disconnect>()
    }

    fn disconnect(&mut self, context: &Context<Module>, sender: &Sender) {
        self.traces.disconnect(sender);
        if self.traces.is_empty() {
            context.router().tap().tracer().stop();
        }
    }

    async fn stop(mut self, context: &Context<Module>) {
        context.router().tap().tracer().stop();
        for (call, _) in self.traces.take(|_, _| true) {
            call.end();
        }
    }
}

fn status_refusal(_: PayloadError) -> Failure {
    Failure::new(Errno::EPROTO, "error decoding module.status request")
}

impl Module {
    fn load(&mut self, context: &Context<Module>, request: rpc::LoadRequest, call: Call<Empty>) {
        let broker = context.broker().clone();
        context.spawn(
            async move {
                let name = request.name.as_deref();
                modules::load(&broker, &request.path, name, &request.args).await
            },
            |_, result| call.finish(result.map(|()| Empty)),
        );
    }

    fn remove(
        &mut self,
        context: &Context<Module>,
        request: rpc::RemoveRequest,
        call: Call<Empty>,
    ) {
        let broker = context.broker().clone();
        context.spawn(async move { modules::remove(&broker, &request.name).await }, |_, result| {
            call.finish(result.map(|()| Empty))
        });
    }

    fn list(
        &mut self,
        context: &Context<Module>,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::ListResponse, Failure> {
        let mods = context.broker().modules().list_all().into_iter().map(|loaded| rpc::Module {
            name: loaded.name.clone(),
            // All are part of this program; clients take those that can't be unloaded by the word.
            path: match context.broker().modules().is_builtin(&loaded.name) {
                true => "builtin".to_owned(),
                false => loaded.module.to_owned(),
            },
            idle: loaded.idle(),
            status: loaded.status() as u32,
            services: loaded.services.clone(),
            sendqueue: 0,
            recvqueue: loaded.gate.len() as u64,
        });
        Ok(rpc::ListResponse { mods: mods.collect() })
    }

    /// Modules elsewhere tell of themselves; ours are known without.
    fn status(&mut self, _: &Context<Module>, _: rpc::StatusRequest, call: Call<Empty>) {
        call.reply(&Empty);
    }

    fn debug(
        &mut self,
        context: &Context<Module>,
        request: rpc::DebugRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        let loaded = context.broker().modules().get(&request.name).ok_or(Errno::ENOENT)?;
        if let Some(defer) = request.defer {
            loaded.defer(defer);
        }
        Ok(Empty)
    }

    fn trace(
        &mut self,
        context: &Context<Module>,
        request: rpc::TraceRequest,
        call: Call<rpc::TraceResponse>,
    ) {
        if self.traces.is_empty() {
            let after = context.clone();
            context.router().tap().tracer().listen(move |traced| {
                // What this service answers must not be traced again.
                if *traced.module != *Module::NAME {
                    after.later(move |module: &mut Module| module.tell(&traced));
                }
            });
        }
        self.traces.insert(call, request);
    }

    fn tell(&mut self, traced: &Traced) {
        for (call, request) in self.traces.iter() {
            let Traced { module, message, .. } = traced;
            let named = request.names.is_empty() || request.names.iter().any(|n| **n == **module);
            if named
                && request.typemask & u32::from(message.typemask()) != 0
                && glob::matches(&request.topic_glob, &message.topic)
            {
                call.send(&response(traced, request.full));
            }
        }
    }
}

fn response(traced: &Traced, full: bool) -> rpc::TraceResponse {
    let message = &traced.message;
    let errnum = message.errnum();
    let payload = message.payload.as_ref();
    let errstr = match (full && errnum != 0, text(payload)) {
        (true, Ok(text)) => text.to_owned(),
        _ => String::new(),
    };
    rpc::TraceResponse {
        timestamp: crate::time::unix_seconds(traced.time),
        prefix: if traced.way == Way::Sent { "tx" } else { "rx" }.to_owned(),
        rank: -1,
        name: Some(traced.module.to_string()),
        kind: message.typemask().into(),
        topic: topic(message),
        payload_size: if errnum == 0 { payload.map_or(0, |p| p.len() as u64) } else { 0 },
        payload: if full && errnum == 0 { json(message) } else { None },
        errnum,
        errstr,
    }
}

fn topic(message: &Message) -> String {
    match message.kind {
        Kind::Control { kind, status } => format!("control {kind} {status}"),
        _ => message.topic.to_string(),
    }
}

fn json(message: &Message) -> Option<Box<RawValue>> {
    let text = text(message.payload.as_ref()).ok()?;
    if !text.starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}
