//! The plugins' own state in the KVS: `plugin.NAME.KEY`, a value each.
//!
//! Names and keys are any text; what the KVS would take for structure is escaped as in a URL.

use std::collections::BTreeMap;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::kvs;
use flux_protocol::treeobj::Treeobj;

use super::super::{Context, JobManager};
use super::outgoing::put_op;
use crate::handle::Handle;
use crate::plugin::types::KeyValue;

const DIR: &str = "plugin";

/// The values of all plugins, by the plugin's name.
pub(super) type States = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

impl JobManager {
    /// Keep a value, or remove it.
    pub(crate) fn plugin_put(&mut self, context: &Context, plugin: &str, change: KeyValue) {
        let key = format!("{DIR}.{}.{}", escape(plugin), escape(&change.key));
        let op = put_op(key, change.value.as_deref());
        let state = self.plugins.states.entry(plugin.to_owned()).or_default();
        match change.value {
            Some(value) => {
                state.insert(change.key, value);
            }
            // Removing what is not there is no change.
            None if state.remove(&change.key).is_none() => return,
            None => {}
        }
        self.store.push(context, op);
    }
}

/// Read what a former instance has kept.
pub(super) async fn restore(handle: &Handle) -> Result<States, Failure> {
    let mut states = States::new();
    for plugin in names(handle, DIR).await? {
        let dir = format!("{DIR}.{plugin}");
        let mut state = BTreeMap::new();
        for key in names(handle, &dir).await? {
            if let Some(value) = value(handle, &format!("{dir}.{key}")).await? {
                state.insert(unescape(&key), value);
            }
        }
        states.insert(unescape(&plugin), state);
    }
    Ok(states)
}

async fn names(handle: &Handle, dir: &str) -> Result<Vec<String>, Failure> {
    match lookup(handle, dir, kvs::lookup::READDIR).await {
        Ok(value) => Ok(value
            .as_dir()
            .map(|dir| dir.keys().map(|name| name.to_string()).collect())
            .unwrap_or_default()),
        Err(failure) if failure.errno == Errno::ENOENT => Ok(Vec::new()),
        // An instance without a KVS keeps nothing.
        Err(failure) if failure.errno == Errno::ENOSYS => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

async fn value(handle: &Handle, key: &str) -> Result<Option<Vec<u8>>, Failure> {
    match lookup(handle, key, 0).await {
        Ok(Treeobj::Val(data)) => {
            let bytes = data.decode();
            Ok(Some(bytes.map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?))
        }
        Ok(_) => Ok(None),
        Err(failure) if failure.errno == Errno::ENOENT => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn lookup(handle: &Handle, key: &str, flags: u32) -> Result<Treeobj, Failure> {
    let request = kvs::LookupRequest {
        key: key.to_owned(),
        namespace: Some(kvs::PRIMARY.to_owned()),
        flags,
        rootdir: None,
        rootseq: None,
    };
    Ok(handle.rpc_to::<kvs::Lookup>(Nodeid::ANY, &request).await?.val)
}

fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if text.is_empty() {
        // The KVS has no empty names.
        return "%".to_owned();
    }
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ if *first == b'%' => rest = tail,
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{escape, unescape};

    #[test]
    fn any_text_is_one_name_of_the_kvs_and_comes_back() {
        for text in ["plain", "a.b", "user/ƒ 1", "", "100%", "-_"] {
            let name = escape(text);
            assert!(!name.is_empty() && !name.contains(['.', '/']), "{name}");
            assert_eq!(unescape(&name), text);
        }
    }
}
