//! Reading values and growing logs from the KVS.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::rpc::{kvs, kvs_watch};
use flux_protocol::treeobj::Treeobj;

use crate::handle::{Handle, Responses};

/// The text of a key in the primary namespace.
pub(super) async fn primary(handle: &Handle, key: &str) -> Result<String, Failure> {
    send_primary(handle, key)?.next().await.and_then(|response| text(response.val))
}

/// Ask for a key in the primary namespace.
pub(super) fn send_primary(handle: &Handle, key: &str) -> Result<Responses<kvs::Lookup>, Failure> {
    send(handle, key, 0)
}

/// The tree object at a key in the primary namespace.
pub(super) async fn treeobj(handle: &Handle, key: &str) -> Result<Treeobj, Failure> {
    Ok(send(handle, key, kvs::lookup::TREEOBJ)?.next().await?.val)
}

fn send(handle: &Handle, key: &str, flags: u32) -> Result<Responses<kvs::Lookup>, Failure> {
    let request = kvs::LookupRequest {
        key: key.to_owned(),
        namespace: Some(kvs::PRIMARY.to_owned()),
        flags,
        rootdir: None,
        rootseq: None,
    };
    handle.send::<kvs::Lookup>(Nodeid::ANY, Flags::default(), &request)
}

/// A value that is followed, until this is dropped.
pub(super) struct Following {
    handle: Handle,
    responses: Responses<kvs_watch::Lookup>,
}

/// Follow a value that is appended to.
pub(super) fn follow(
    handle: &Handle,
    namespace: &str,
    key: &str,
    wait_create: bool,
) -> Result<Following, Failure> {
    let create = if wait_create { kvs::lookup::WAITCREATE } else { 0 };
    let request = kvs_watch::LookupRequest {
        key: key.to_owned(),
        namespace: namespace.to_owned(),
        flags: kvs::lookup::WATCH | kvs::lookup::WATCH_APPEND | create,
    };
    let responses = handle.stream::<kvs_watch::Lookup>(Nodeid::ANY, &request)?;
    Ok(Following { handle: handle.clone(), responses })
}

impl Following {
    /// What is new.
    pub(super) async fn next(&mut self) -> Result<String, Failure> {
        self.responses.next().await.and_then(|response| text(response.val))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let request = kvs_watch::CancelRequest { matchtag: self.responses.matchtag().0 };
        // A service that is gone has ended the stream by itself.
        let _ = self.handle.notify::<kvs_watch::Cancel>(Nodeid::ANY, Flags::default(), &request);
    }
}

/// The text of a value.
pub(super) fn text(value: Treeobj) -> Result<String, Failure> {
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let Treeobj::Val(data) = value else { return Err(Errno::EISDIR.into()) };
    let bytes = data.decode().map_err(|error| invalid(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| invalid(error.to_string()))
}
