//! The plugin host of this broker: where plugins are found, cached, and log to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use flux_protocol::fluid::with_local_f58;

use crate::broker::Broker;
use crate::log::Severity;
use crate::plugin::types::Level;
use crate::plugin::{HostConfig, LogSink, Notice, PluginHost, SharedJobs, default_path};

/// Make a host. The engine behind it costs nothing until the first plugin is loaded.
pub fn plugin_host(
    broker: &Rc<Broker>,
    jobs: SharedJobs,
) -> (PluginHost, mpsc::UnboundedReceiver<Notice>) {
    let attrs = broker.attrs();
    let attributes: BTreeMap<String, String> = attrs
        .names()
        .into_iter()
        .filter_map(|name| attrs.get(&name).map(|value| (name, value)))
        .collect();
    let config = HostConfig {
        path: default_path(),
        cache: cache_dir(broker),
        log: log_sink(broker),
        jobs,
        owner: broker.owner().0,
        size: broker.size(),
        level: attrs.parse("instance-level").unwrap_or(0),
        attributes,
        config: broker.config().object().clone(),
        replay: None,
    };
    let (notices, received) = mpsc::unbounded_channel();
    (PluginHost::new(config, notices), received)
}

/// A host without a broker, whose plugins log to nobody: to see whether they would load.
pub(crate) fn plugin_host_alone(config: Map<String, Value>) -> PluginHost {
    let config = HostConfig {
        path: default_path(),
        cache: user_cache(),
        log: Arc::new(|_: &str, _: Level, _: &str| {}),
        jobs: SharedJobs::default(),
        owner: nix::unistd::geteuid().as_raw(),
        size: 1,
        level: 0,
        attributes: BTreeMap::new(),
        config,
        replay: None,
    };
    let (notices, _nobody) = mpsc::unbounded_channel();
    PluginHost::new(config, notices)
}

/// Compiled plugins are kept where only the owner can write: beside the state of an instance that
/// has some, else in the user's cache, else for the life of this broker.
fn cache_dir(broker: &Broker) -> Option<PathBuf> {
    let attrs = broker.attrs();
    if let Some(statedir) = attrs.kept_statedir() {
        return Some(PathBuf::from(statedir).join("plugin-cache"));
    }
    user_cache().or_else(|| Some(PathBuf::from(attrs.get("rundir")?).join("plugin-cache")))
}

/// For compiled plugins, in the cache of the user.
pub(crate) fn user_cache() -> Option<PathBuf> {
    let from_env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    from_env("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(from_env("HOME")?).join(".cache")))
        .filter(|dir| dir.is_absolute() && dir.parent().is_some_and(std::path::Path::is_dir))
        .map(|dir| dir.join("flux-wasm/plugins"))
}

/// Plugins log from threads of their own; the broker's log is on this one.
fn log_sink(broker: &Rc<Broker>) -> LogSink {
    let (lines, mut received) = mpsc::unbounded_channel::<(String, Level, String)>();
    let log_to = Rc::downgrade(broker);
    tokio::task::spawn_local(async move {
        while let Some((plugin, level, text)) = received.recv().await {
            let Some(broker) = log_to.upgrade() else { return };
            broker.log().append(severity(level), &plugin, &text);
        }
    });
    Arc::new(move |plugin: &str, level: Level, text: &str| {
        // The broker may be gone already.
        let text = with_local_f58(text).into_owned();
        let _ = lines.send((plugin.to_owned(), level, text));
    })
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Emerg => Severity::Emerg,
        Level::Alert => Severity::Alert,
        Level::Crit => Severity::Crit,
        Level::Err => Severity::Err,
        Level::Warning => Severity::Warning,
        Level::Notice => Severity::Notice,
        Level::Info => Severity::Info,
        Level::Debug => Severity::Debug,
    }
}
