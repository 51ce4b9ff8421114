//! `resource.R` and `resource.eventlog` in the KVS.

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::{self, Event};
use flux_protocol::failure::Failure;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::kvs;
use flux_protocol::treeobj::Treeobj;

use crate::handle::Handle;

const R: &str = "resource.R";
const EVENTLOG: &str = "resource.eventlog";

/// The inventory that was put there.
pub(super) async fn inventory(handle: &Handle) -> Result<Option<ResourceSet>, Failure> {
    let Some(text) = lookup(handle, R).await? else { return Ok(None) };
    let set = ResourceSet::decode(&text).map_err(|error| invalid(R, error))?;
    Ok(Some(set))
}

pub(super) async fn events(handle: &Handle) -> Result<Vec<Event>, Failure> {
    let text = lookup(handle, EVENTLOG).await?.unwrap_or_default();
    eventlog::decode(&text).map_err(|error| invalid(EVENTLOG, error))
}

pub(super) fn put_inventory(set: &ResourceSet) -> Result<kvs::Op, Failure> {
    let text = set.encode().map_err(|error| invalid(R, error))?;
    Ok(put(R, 0, &text))
}

/// Append lines of events.
pub(super) fn append_events(lines: &str) -> kvs::Op {
    put(EVENTLOG, kvs::OP_APPEND, lines)
}

/// Put other events in place of all that are there.
pub(super) async fn rewrite_events(handle: &Handle, events: &[Event]) -> Result<(), Failure> {
    let text = eventlog::encode(events).map_err(|error| invalid(EVENTLOG, error))?;
    commit(handle, vec![put(EVENTLOG, 0, &text)], false).await
}

/// `sync`: answered when it is on the disk.
pub(super) async fn commit(handle: &Handle, ops: Vec<kvs::Op>, sync: bool) -> Result<(), Failure> {
    let flags = if sync { kvs::commit::SYNC } else { 0 };
    let request = kvs::CommitRequest { namespace: kvs::PRIMARY.to_owned(), flags, ops };
    match handle.rpc::<kvs::Commit>(&request).await {
        Ok(_) => Ok(()),
        // It is done, but the instance keeps nothing on a disk.
        Err(failure) if sync && failure.errno == Errno::ENOSYS => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn put(key: &str, flags: u32, text: &str) -> kvs::Op {
    kvs::Op { key: key.to_owned(), flags, dirent: Some(Treeobj::val(text.as_bytes())) }
}

async fn lookup(handle: &Handle, key: &str) -> Result<Option<String>, Failure> {
    let request = kvs::LookupRequest {
        key: key.to_owned(),
        namespace: Some(kvs::PRIMARY.to_owned()),
        flags: 0,
        rootdir: None,
        rootseq: None,
    };
    let value = match handle.rpc::<kvs::Lookup>(&request).await {
        Ok(response) => response.val,
        Err(failure) if failure.errno == Errno::ENOENT => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let Treeobj::Val(data) = value else { return Err(Errno::EPROTO.into()) };
    let bytes = data.decode().map_err(|error| invalid(key, error))?;
    String::from_utf8(bytes).map(Some).map_err(|error| invalid(key, error))
}

fn invalid(key: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Errno::EINVAL, format!("{key}: {error}"))
}
