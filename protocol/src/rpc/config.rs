//! The instance's configuration: one JSON object, made of all TOML tables.

use serde_json::Value;

use crate::methods;
use crate::payload::{Empty, Object};

/// What brokers look at when they start, and not when the configuration changes.
const AT_START: [&str; 22] = [
    "archive",
    "bootstrap",
    "content-sqlite",
    "cron.directory",
    "fake-resources",
    "job-manager.plugins",
    "resource.config",
    "resource.fake",
    "resource.history",
    "resource.norestrict",
    "resource.noverify",
    "resource.path",
    "resource.rediscover",
    "resource.scheduling",
    "resource.verify",
    "tbon.connect_timeout",
    "tbon.fanout",
    "tbon.interface-hint",
    "tbon.tcp_user_timeout",
    "tbon.topo",
    "tbon.zmq_io_threads",
    "tbon.zmqdebug",
];

methods! {
    /// The whole object; with the streaming flag again on every change.
    Get: "config.get", User, OneOrStream, Empty => Object;
    /// Replace the whole object. EINVAL: somebody refused it (text), or this is not rank 0.
    Load: "config.load", Owner, One, Object => Empty;
    /// Read the files again. EINVAL: the text says where it went wrong.
    Reload: "config.reload", Owner, One, Empty => Empty;
    Disconnect: "config.disconnect", User, Never, Empty => Empty;
}

/// The keys of a new configuration that have a meaning only once brokers start again, as far as
/// they differ from the old one.
pub fn kept_until_restart(old: &Object, new: &Object) -> Vec<String> {
    let mut keys = Vec::new();
    for key in AT_START {
        let (old, new) = (find(old, key), find(new, key));
        if let (Some(Value::Object(old)), Some(Value::Object(new))) = (old, new) {
            let inner = new.keys().chain(old.keys().filter(|inner| !new.contains_key(*inner)));
            let changed = inner.filter(|inner| old.get(*inner) != new.get(*inner));
            keys.extend(changed.map(|inner| format!("{key}.{inner}")));
        } else if old != new {
            keys.push(key.to_owned());
        }
    }
    keys
}

fn find<'a>(object: &'a Object, key: &str) -> Option<&'a Value> {
    let mut words = key.split('.');
    let first = object.get(words.next()?)?;
    words.try_fold(first, |value, word| value.get(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_that_need_a_restart_are_told_one_by_one() {
        let keys = |old: Value, new: Value| {
            kept_until_restart(old.as_object().unwrap(), new.as_object().unwrap()).join(" ")
        };
        let old = json!({"bootstrap": {"default_port": 1, "hosts": []}, "policy": {"a": 1}});
        let new = json!({
            "bootstrap": {"default_port": 2, "enable_ipv6": true},
            "resource": {"path": "/x", "exclude": "0"},
            "policy": {"a": 2},
        });
        assert_eq!(keys(old.clone(), old.clone()), "");
        let changed = "bootstrap.default_port bootstrap.enable_ipv6 bootstrap.hosts resource.path";
        assert_eq!(keys(old.clone(), new), changed);
        assert_eq!(keys(old, json!({})), "bootstrap");
    }
}
