//! `flux jobtap`: list, load, remove, query.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::with_local_f58;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::job_manager as rpc;
use serde_json::{Map, Value, json};

use super::super::{Context, JobManager};
use crate::call::Call;
use crate::plugin::{LoadError, Plugin};

impl JobManager {
    pub(crate) fn jobtap(
        &mut self,
        context: &Context,
        request: rpc::JobtapRequest,
        call: Call<rpc::JobtapResponse>,
    ) {
        if request.query_only == Some(true) {
            return call.reply(&self.plugins.list());
        }
        let after = context.clone();
        self.change_plugins(move |manager| {
            let removed = match &request.remove {
                None => Vec::new(),
                Some(pattern) => {
                    let removed = manager.plugins.remove(pattern);
                    let wild = pattern == "all" || pattern.contains(['*', '?', '[']);
                    if removed.is_empty() && !wild {
                        let text = "Failed to find plugin to remove";
                        call.fail(Failure::new(Errno::ENOENT, text));
                        return manager.changed_plugins();
                    }
                    removed
                }
            };
            if let Some(load) = request.load {
                return manager.load_plugin(&after, load, request.conf, removed, call);
            }
            manager.plugins_removed(&after, &removed);
            // Those that remain may think otherwise of what the removed ones have held back.
            let pending = manager.pending_jobs();
            manager.plugins_reprioritize(&after, &pending);
            call.reply_raw(None);
            manager.changed_plugins();
        });
    }

    /// Load, in the place of one that was removed if there was one. What was removed comes back
    /// when the new one does not load.
    fn load_plugin(
        &mut self,
        context: &Context,
        load: String,
        conf: Option<Value>,
        removed: Vec<(usize, super::Loaded)>,
        call: Call<rpc::JobtapResponse>,
    ) {
        let mut entry = Map::from_iter([("load".to_owned(), json!(load))]);
        if let Some(conf) = conf {
            entry.insert("conf".to_owned(), conf);
        }
        let spec = match self.plugins.spec(context, &Value::Object(entry)) {
            Ok(spec) => spec,
            Err(text) => {
                self.plugins.restore(removed);
                call.fail(Failure::new(Errno::EINVAL, text));
                return self.changed_plugins();
            }
        };
        let name = spec.load.rsplit('/').next().unwrap_or(&spec.load).to_owned();
        if self.plugins.find(&super::listed_name(&load, &name)).is_some() {
            self.plugins.restore(removed);
            call.fail(Failure::new(Errno::EEXIST, format!("{load} already loaded")));
            return self.changed_plugins();
        }
        let host = self.plugins.host.clone();
        let old = removed.first().map(|(_, loaded)| loaded.plugin.clone());
        let after = context.clone();
        let states = self.plugins.states.clone();
        context.spawn(
            async move {
                match &old {
                    Some(old) if old.facts().file_name == name => host.replace(old, &spec).await,
                    _ => super::load(&host, &spec, &states).await,
                }
            },
            move |manager: &mut JobManager, result: Result<Plugin, LoadError>| {
                match result {
                    Ok(plugin) => {
                        let name = plugin.name().to_owned();
                        let listed = super::listed_name(&load, &plugin.facts().file_name);
                        manager.plugins.push(&after, plugin, &listed);
                        manager.tell_lifetime(&after, &name);
                        manager.plugins_removed(&after, &removed);
                        let pending = manager.pending_jobs();
                        manager.plugins_reprioritize(&after, &pending);
                        call.reply_raw(None);
                    }
                    Err(error) => {
                        manager.plugins.restore(removed);
                        call.fail(load_failure(&load, &error));
                    }
                }
                manager.changed_plugins();
            },
        );
    }

    /// Nobody waits any more for plugins that are gone.
    fn plugins_removed(&mut self, context: &Context, removed: &[(usize, super::Loaded)]) {
        for (_, loaded) in removed {
            let name = loaded.plugin.name();
            if !self.plugins.loaded.iter().any(|other| other.plugin.name() == name) {
                let timers: Vec<String> = self
                    .plugins
                    .timers
                    .keys()
                    .filter(|key| key.0 == name)
                    .map(|key| key.1.clone())
                    .collect();
                timers.iter().for_each(|timer| self.cancel_timer(name, timer));
            }
            self.release_held(context, name);
        }
    }

    /// End the quarantine of a plugin. Jobs that wait for it go on.
    pub(crate) fn jobtap_rearm(
        &mut self,
        context: &Context,
        request: rpc::NameRequest,
        call: Call<Empty>,
    ) {
        let Some(loaded) = self.plugins.find(&request.name).cloned() else {
            let text = format!("{}: plugin not found", request.name);
            return call.fail(Failure::new(Errno::ENOENT, text));
        };
        context.spawn(async move { loaded.plugin.rearm().await }, |_: &mut JobManager, result| {
            call.finish(
                result.map(|()| Empty).map_err(|error| Failure::new(Errno::EIO, error.to_string())),
            );
        });
    }

    pub(crate) fn jobtap_query(
        &mut self,
        context: &Context,
        request: rpc::NameRequest,
        call: Call<Object>,
    ) {
        let Some(loaded) = self.plugins.find(&request.name).cloned() else {
            let text = format!("{}: plugin not found", request.name);
            return call.fail(Failure::new(Errno::ENOENT, text));
        };
        context.spawn(
            async move {
                let query = loaded.plugin.query().await;
                (loaded, query)
            },
            move |manager: &mut JobManager, (loaded, query)| {
                let mut object = describe(&loaded);
                match query.map(|text| serde_json::from_str::<Object>(&with_local_f58(&text))) {
                    Ok(Ok(own)) => object.extend(own),
                    Ok(Err(error)) => {
                        object.insert("error".to_owned(), json!(error.to_string()));
                    }
                    Err(error) => {
                        object.insert("error".to_owned(), json!(error.to_string()));
                    }
                }
                manager.commands_describe(loaded.plugin.name(), &mut object);
                call.reply(&object);
            },
        );
    }
}

impl super::Plugins {
    fn list(&self) -> rpc::JobtapResponse {
        let status = |loaded: &super::Loaded| loaded.plugin.stats().status;
        let ill = self.loaded.iter().filter(|loaded| status(loaded) != "running");
        rpc::JobtapResponse {
            plugins: self.loaded.iter().map(|loaded| json!(loaded.name)).collect(),
            down: ill.map(|loaded| (loaded.name.clone(), json!(status(loaded)))).collect(),
        }
    }
}

/// What the host knows of a plugin.
fn describe(loaded: &super::Loaded) -> Object {
    let facts = loaded.plugin.facts();
    let path = match loaded.builtin {
        true => json!("builtin"),
        false => json!(facts.path.to_string_lossy()),
    };
    let mut object = Object::new();
    object.insert("name".to_owned(), json!(loaded.name));
    object.insert("path".to_owned(), path);
    if !facts.spec.conf.is_empty() {
        object.insert("conf".to_owned(), Value::Object(facts.spec.conf.clone()));
    }
    object.insert("kind".to_owned(), json!("wasm"));
    object.insert("abi".to_owned(), json!(facts.manifest.abi.to_string()));
    object.insert("version".to_owned(), json!(facts.manifest.version));
    object.insert("description".to_owned(), json!(facts.manifest.description));
    object.insert("sha256".to_owned(), json!(facts.digest));
    if let Ok(stats) = serde_json::to_value(loaded.plugin.stats()) {
        object.insert("stats".to_owned(), stats);
    }
    object
}

fn load_failure(load: &str, error: &LoadError) -> Failure {
    match error {
        error if error.is_missing() => {
            Failure::new(Errno::ENOENT, format!("{load}: No such plugin found"))
        }
        error => Failure::new(Errno::EINVAL, error.to_string()),
    }
}

/// A shell pattern with `*`, `?` and `[...]`, on a plugin's name.
pub(super) fn glob(pattern: &str, name: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = chars.as_str();
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| name.get(at..).is_some_and(|tail| glob(rest, tail)))
        }
        Some('[') => {
            let rest = chars.as_str();
            let Some((set, rest)) = rest.split_once(']') else { return false };
            let mut name = name.chars();
            name.next().is_some_and(|first| set.contains(first)) && glob(rest, name.as_str())
        }
        Some(wanted) => {
            let mut name = name.chars();
            name.next().is_some_and(|first| wanted == '?' || wanted == first)
                && glob(chars.as_str(), name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn globs_match_as_in_a_shell() {
        assert!(glob("*.wasm", "perilog.wasm"));
        assert!(glob("p?rilog*", "perilog.wasm"));
        assert!(glob("[pq]erilog.wasm", "perilog.wasm"));
        assert!(!glob("*.so", "perilog.wasm"));
        assert!(glob("*", ""));
    }
}
