//! The key value store (RFC 11): lookups, watches and transactions.

use flux_protocol::message::Nodeid;
use flux_protocol::payload::PayloadError;
use flux_protocol::rpc::kvs::{self, LookupResponse, Op, Rootref};
use flux_protocol::rpc::kvs_watch;
use flux_protocol::treeobj::Treeobj;

use crate::client::Client;
use crate::error::RpcError;
use crate::pending::{Pending, Stream};

/// What keys are relative to.
#[derive(Debug, Clone, Copy)]
pub enum Root<'a> {
    /// The current root of a namespace.
    Namespace(&'a str),
    /// The tree object of a directory: that root for good.
    Snapshot(&'a Treeobj),
}

/// Changes that take effect all at once or not at all.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    ops: Vec<Op>,
}

/// Look up a key; `flags` are bits of [`kvs::lookup`] other than those for watching.
pub async fn lookup(
    flux: &Client,
    root: Root<'_>,
    key: &str,
    flags: u32,
) -> Result<Treeobj, RpcError> {
    Ok(start_lookup(flux, root, key, flags)?.await?.val)
}

/// [`lookup`] whose response is awaited later.
pub fn start_lookup(
    flux: &Client,
    root: Root<'_>,
    key: &str,
    flags: u32,
) -> Result<Pending<LookupResponse>, RpcError> {
    let (namespace, rootdir) = match root {
        Root::Namespace(namespace) => (Some(namespace.to_owned()), None),
        Root::Snapshot(treeobj) => (None, Some(treeobj.clone())),
    };
    let request =
        kvs::LookupRequest { key: key.to_owned(), namespace, flags, rootdir, rootseq: None };
    flux.start::<kvs::Lookup>(Nodeid::ANY, &request)
}

/// The bytes of the value under a key. EISDIR: it is a directory.
pub async fn get(flux: &Client, root: Root<'_>, key: &str) -> Result<Vec<u8>, RpcError> {
    value(&lookup(flux, root, key, 0).await?)
}

/// Follow a key as it changes; `flags` are bits of [`kvs::lookup`], WATCH or STREAM among them.
///
/// Cancel with [`kvs_watch::Cancel`].
pub fn watch(
    flux: &Client,
    namespace: &str,
    key: &str,
    flags: u32,
) -> Result<Stream<LookupResponse>, RpcError> {
    flux.stream::<kvs_watch::Lookup>(Nodeid::ANY, &watch_request(namespace, key, flags))
}

/// The value under a key, which may have to be waited for.
pub async fn wait_create(
    flux: &Client,
    namespace: &str,
    key: &str,
    flags: u32,
) -> Result<Treeobj, RpcError> {
    let request = watch_request(namespace, key, flags | kvs::lookup::WAITCREATE);
    Ok(flux.rpc::<kvs_watch::Lookup>(Nodeid::ANY, &request).await?.val)
}

/// The bytes of a `val` object, as lookups without TREEOBJ return it.
pub fn value(treeobj: &Treeobj) -> Result<Vec<u8>, RpcError> {
    let bad = |text: String| RpcError::Payload(PayloadError::Json(serde::de::Error::custom(text)));
    match treeobj {
        Treeobj::Val(data) => data.decode().map_err(|e| bad(e.to_string())),
        other => Err(bad(format!("expected a val object, not a {}", other.type_name()))),
    }
}

fn watch_request(namespace: &str, key: &str, flags: u32) -> kvs_watch::LookupRequest {
    kvs_watch::LookupRequest { key: key.to_owned(), namespace: namespace.to_owned(), flags }
}

// === impl Transaction ===

impl Transaction {
    pub fn new() -> Transaction {
        Transaction::default()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub fn put(&mut self, key: &str, value: &[u8]) -> &mut Transaction {
        self.op(key, 0, Some(Treeobj::val(value)))
    }

    pub fn append(&mut self, key: &str, value: &[u8]) -> &mut Transaction {
        self.op(key, kvs::OP_APPEND, Some(Treeobj::val(value)))
    }

    pub fn put_treeobj(&mut self, key: &str, treeobj: Treeobj) -> &mut Transaction {
        self.op(key, 0, Some(treeobj))
    }

    pub fn mkdir(&mut self, key: &str) -> &mut Transaction {
        self.op(key, 0, Some(Treeobj::empty_dir()))
    }

    pub fn unlink(&mut self, key: &str) -> &mut Transaction {
        self.op(key, 0, None)
    }

    /// `namespace` is that of the target, where it is another one than the link's.
    pub fn symlink(
        &mut self,
        key: &str,
        namespace: Option<&str>,
        target: &str,
    ) -> &mut Transaction {
        self.op(key, 0, Some(Treeobj::symlink(namespace, target)))
    }

    /// `flags` are bits of [`kvs::commit`].
    pub async fn commit(
        &self,
        flux: &Client,
        namespace: &str,
        flags: u32,
    ) -> Result<Rootref, RpcError> {
        let request =
            kvs::CommitRequest { namespace: namespace.to_owned(), flags, ops: self.ops.clone() };
        flux.rpc::<kvs::Commit>(Nodeid::ANY, &request).await
    }

    fn op(&mut self, key: &str, flags: u32, dirent: Option<Treeobj>) -> &mut Transaction {
        self.ops.push(Op { key: key.to_owned(), flags, dirent });
        self
    }
}
