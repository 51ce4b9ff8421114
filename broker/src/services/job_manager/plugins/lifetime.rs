//! When the instance ends, for the plugins that have the topic `instance.expiration`: the end
//! stands in `resource.R`, and moves.

use flux_protocol::message::Nodeid;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{kvs, kvs_watch};
use flux_protocol::treeobj::Treeobj;
use serde_json::json;

use super::super::{Context, JobManager};
use crate::log::Severity;
use crate::plugin::types::Event;

const TOPIC: &str = "instance.expiration";

impl JobManager {
    /// Follow the end of the instance for as long as the service lives.
    pub(crate) fn watch_lifetime(&self, context: &Context) {
        let request = kvs_watch::LookupRequest {
            key: "resource.R".to_owned(),
            namespace: kvs::PRIMARY.to_owned(),
            flags: kvs::lookup::WATCH | kvs::lookup::WAITCREATE,
        };
        let stream = context.handle().stream::<kvs_watch::Lookup>(Nodeid::ANY, &request);
        let after = context.clone();
        tokio::task::spawn_local(async move {
            let Ok(mut stream) = stream else { return };
            while let Ok(response) = stream.next().await {
                if let Some(expiration) = expiration(response.val) {
                    let then = after.clone();
                    after.later(move |manager: &mut JobManager| {
                        manager.lifetime_known(&then, expiration);
                    });
                }
            }
        });
    }

    fn lifetime_known(&mut self, context: &Context, expiration: f64) {
        if self.plugins.expiration.replace(expiration) == Some(expiration) {
            return;
        }
        context.log(Severity::Debug, format!("the instance ends at {expiration:.2}"));
        let names: Vec<String> =
            self.plugins.loaded.iter().map(|loaded| loaded.plugin.name().to_owned()).collect();
        names.iter().for_each(|name| self.tell_lifetime(context, name));
    }

    /// Tell one plugin, if it wants to know and there is something to tell.
    pub(super) fn tell_lifetime(&mut self, context: &Context, plugin: &str) {
        let loaded = self.plugins.find_service(plugin);
        let wants = loaded.is_some_and(|loaded| loaded.plugin.facts().manifest.wants(TOPIC));
        if let Some(expiration) = self.plugins.expiration.filter(|_| wants) {
            let end = json!({ "expiration": expiration }).to_string();
            self.call_one(context, plugin, Event::Other((TOPIC.to_owned(), end)));
        }
    }
}

fn expiration(value: Treeobj) -> Option<f64> {
    let Treeobj::Val(data) = value else { return None };
    let text = String::from_utf8(data.decode().ok()?).ok()?;
    ResourceSet::decode(&text).ok().map(|set| set.expiration)
}
