//! `admin.eventlog` in the KVS: when the instance was started and properly stopped.

use std::time::SystemTime;

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::kvs;
use flux_protocol::treeobj::Treeobj;
use serde_json::json;

use crate::handle::Handle;

const KEY: &str = "admin.eventlog";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Start,
    /// An orderly stop; a start without one was followed by a crash.
    Finish,
}

/// Append an entry to the log.
pub async fn append(handle: &Handle, entry: Entry) -> Result<(), Failure> {
    let now = crate::time::unix_seconds(SystemTime::now());
    let event = match entry {
        Entry::Start => Event::new(now, "start")
            .with_context(&json!({"version": 1, "core_version": crate::VERSION})),
        Entry::Finish => Event::new(now, "finish").with_context(&json!({"version": 1})),
    };
    let line = event.and_then(|event| event.encode());
    let line = line.map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
    let dirent = Some(Treeobj::val(line.as_bytes()));
    let request = kvs::CommitRequest {
        namespace: kvs::PRIMARY.to_owned(),
        // Without a record of the start its crash would go unnoticed.
        flags: kvs::commit::SYNC,
        ops: vec![kvs::Op { key: KEY.to_owned(), flags: kvs::OP_APPEND, dirent }],
    };
    handle.rpc::<kvs::Commit>(&request).await?;
    Ok(())
}

/// Was the instance that wrote the last entry not stopped properly? To be asked before this one
/// writes its own.
pub async fn has_crashed(handle: &Handle) -> Result<bool, Failure> {
    let request = kvs::LookupRequest {
        key: KEY.to_owned(),
        namespace: Some(kvs::PRIMARY.to_owned()),
        flags: 0,
        rootdir: None,
        rootseq: None,
    };
    let value = match handle.rpc::<kvs::Lookup>(&request).await {
        Ok(response) => response.val,
        Err(failure) if failure.errno == Errno::ENOENT => return Ok(false),
        Err(failure) => return Err(failure),
    };
    let Treeobj::Val(data) = value else { return Ok(false) };
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let log = data.decode().map_err(|error| invalid(error.to_string()))?;
    Ok(is_open(&String::from_utf8_lossy(&log)))
}

/// Is the last entry a start?
fn is_open(log: &str) -> bool {
    let mut open = false;
    for line in log.lines() {
        // A line that can't be read says nothing about those around it.
        match Event::decode(line) {
            Ok(event) if event.name == "start" => open = true,
            Ok(event) if event.name == "finish" => open = false,
            Ok(_) | Err(_) => {}
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_without_a_finish_was_followed_by_a_crash() {
        let line = |name: &str| format!("{{\"timestamp\":1.0,\"name\":\"{name}\"}}\n");
        let log = |names: &[&str]| names.iter().map(|name| line(name)).collect::<String>();
        assert!(!is_open(""));
        assert!(is_open(&log(&["start"])));
        assert!(!is_open(&log(&["start", "start", "finish"])));
        assert!(is_open(&log(&["start", "finish", "start"])));
        assert!(is_open(&format!("{}nonsense\n", line("start"))));
    }
}
