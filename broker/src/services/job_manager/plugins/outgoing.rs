//! What plugins ask of others: RPCs, values of the KVS, callbacks of other plugins. The answer
//! comes back to the plugin under the tag that it chose.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::fluid::with_local_f58;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::{encode_json, text};
use flux_protocol::rpc::kvs;

use super::super::{Context, JobManager};
use super::Call;
use crate::plugin::types::{
    CustomCall, Event, KvsQuery, PluginCall, Published, Refusal, RpcCall, RpcResponse,
};

impl JobManager {
    /// Send a request to a service.
    pub(crate) fn plugin_rpc(
        &mut self,
        context: &Context,
        plugin: &str,
        call: RpcCall,
    ) -> Result<(), String> {
        let payload = with_local_f58(&call.payload);
        let payload = encode_json(&super::super::effects::object(&payload)?);
        let payload = payload.map_err(|error| error.to_string())?;
        let nodeid = call.nodeid.map_or(Nodeid::ANY, Nodeid);
        let mut answer =
            context.handle().send_raw::<()>(call.topic, nodeid, Flags::default(), payload);
        let (after, plugin) = (context.clone(), plugin.to_owned());
        context.spawn(
            async move { answer.next_raw().await },
            move |manager: &mut JobManager, result| {
                let outcome = result.and_then(|payload| match payload {
                    None => Ok("{}".to_owned()),
                    payload => Ok(text(payload.as_ref()).map_err(Failure::from)?.to_owned()),
                });
                manager.plugin_answer(&after, &plugin, call.tag, outcome);
            },
        );
        Ok(())
    }

    /// Read a value of the primary namespace.
    pub(crate) fn plugin_kvs_read(&mut self, context: &Context, plugin: &str, query: KvsQuery) {
        let handle = context.handle().clone();
        let (after, plugin) = (context.clone(), plugin.to_owned());
        context.spawn(
            async move {
                let value = super::super::restart::lookup(&handle, &query.key).await?;
                value.ok_or_else(|| Failure::from(Errno::ENOENT))
            },
            move |manager: &mut JobManager, result: Result<String, Failure>| {
                let outcome = result.map(|text| as_json(text.trim_end()));
                manager.plugin_answer(&after, &plugin, query.tag, outcome);
            },
        );
    }

    /// A request of a plugin that was not granted to make it.
    pub(crate) fn plugin_refused(&mut self, context: &Context, plugin: &str, tag: &str) {
        if let Ok(tag) = tag.parse() {
            self.plugin_answer(context, plugin, tag, Err(Errno::EPERM.into()));
        }
    }

    fn plugin_answer(
        &mut self,
        context: &Context,
        plugin: &str,
        tag: u64,
        outcome: Result<String, Failure>,
    ) {
        let outcome = outcome.map_err(|failure| Refusal {
            errnum: failure.errno.0,
            text: failure.text.unwrap_or_else(|| failure.errno.to_string()),
        });
        self.call_one(context, plugin, Event::RpcResponse(RpcResponse { tag, outcome }));
    }

    /// Call the plugins that have a topic of their own choice in their manifest.
    pub(crate) fn plugin_call(
        &mut self,
        context: &Context,
        call: PluginCall,
    ) -> Result<(), String> {
        let id = JobId(call.job);
        let job = self.record(id).ok_or_else(|| format!("job {} is not known", id.f58()))?;
        let event = Event::Call(CustomCall { topic: call.topic, job, payload: call.payload });
        if self.plugins.wants_event(&event) {
            self.enqueue_call(context, Call { id, event });
        }
        Ok(())
    }

    /// A message of the event plane: to the plugins that were granted to see it.
    pub(crate) fn plugin_event(
        &mut self,
        context: &Context,
        message: &flux_protocol::message::Message,
    ) {
        let sees = |capability: &String| {
            let prefix = capability.strip_prefix("event:")?;
            let prefix = prefix.strip_suffix('*').unwrap_or(prefix);
            message.topic.starts_with(prefix).then_some(())
        };
        let names: Vec<String> = self
            .plugins
            .loaded
            .iter()
            .filter(|loaded| {
                let manifest = &loaded.plugin.facts().manifest;
                manifest.capabilities.iter().any(|capability| sees(capability).is_some())
            })
            .map(|loaded| loaded.plugin.name().to_owned())
            .collect();
        let payload = text(message.payload.as_ref()).unwrap_or("{}").to_owned();
        for name in names {
            let topic = message.topic.to_string();
            let published = Published { topic, payload: payload.clone() };
            self.call_one(context, &name, Event::Published(published));
        }
    }
}

/// The value itself when it is JSON, else as a JSON string.
fn as_json(text: &str) -> String {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => text.to_owned(),
        Err(_) => serde_json::Value::from(text).to_string(),
    }
}

/// Subscribe to what a plugin was granted to see.
pub(super) fn subscribe(context: &Context, capabilities: &[String]) {
    for prefix in capabilities.iter().filter_map(|capability| capability.strip_prefix("event:")) {
        context.subscribe(prefix.strip_suffix('*').unwrap_or(prefix));
    }
}

/// A change of the KVS that keeps a value of a plugin.
pub(super) fn put_op(key: String, value: Option<&[u8]>) -> kvs::Op {
    kvs::Op { key, flags: 0, dirent: value.map(flux_protocol::treeobj::Treeobj::val) }
}
