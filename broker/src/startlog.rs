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
        Entry::Finish => Ok(Event::new(now, "finish")),
    };
    let line = event.and_then(|event| event.encode());
    let line = line.map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
    let dirent = Some(Treeobj::val(line.as_bytes()));
    let request = kvs::CommitRequest {
        namespace: kvs::PRIMARY.to_owned(),
        flags: 0,
        ops: vec![kvs::Op { key: KEY.to_owned(), flags: kvs::OP_APPEND, dirent }],
    };
    handle.rpc::<kvs::Commit>(&request).await?;
    Ok(())
}
