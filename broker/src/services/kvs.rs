//! `kvs`: the key value store (RFC 11).
//!
//! A namespace is a tree of directories, each a blob in the content store, and the blobref of its
//! root says all there is to say about its state. Rank 0 applies transactions, gives the new root a
//! sequence number and tells it in an event; every rank looks up for itself.
//!
//! ```text
//! kvs.commit -> queue of the namespace -> batch: Draft (copies of the directories on the way)
//!            -> blobs to content -> new root -> answers, setroot event -> next batch
//! ```
//!
//! Transactions that wait together become one new root. Those that ask for SYNC are answered when
//! a checkpoint of that root, or of a later one, is on the disk; one checkpoint serves all that
//! waited for it.

mod blobs;
mod checkpoint;
mod commit;
mod dir;
mod draft;
mod lookup;
mod namespace;
mod relay;
mod root;
mod stats;
mod walk;

use std::collections::HashMap;

use flux_protocol::blobref::HashType;
use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::Message;
use flux_protocol::rpc::kvs as rpc;
use serde_json::Value;

use self::blobs::Blobs;
use self::checkpoint::Checkpoints;
use self::relay::Asking;
use self::root::Root;
use crate::call::Sender;
use crate::config::Config;
use crate::context::Context;
use crate::methods::Methods;
use crate::service::Service;
use crate::tstat::Tstat;

#[derive(Debug)]
pub struct Kvs {
    rank: u32,
    hash: HashType,
    owner: Userid,
    blobs: Blobs,
    /// Namespaces: all of them on rank 0, those that were asked for elsewhere.
    roots: HashMap<String, Root>,
    next_root: u64,
    /// Above rank 0: namespaces that the broker above is being asked for.
    asking: HashMap<String, Asking>,
    checkpoints: Checkpoints,
    /// Transactions that wait together become one root.
    merge: bool,
    /// Of the next transaction; part of its name.
    next_transaction: u64,
    /// Blobs that had to be loaded.
    faults: u64,
    /// Lookups that wait for something.
    pending: usize,
    commit_ops: Tstat,
}

impl Service for Kvs {
    const NAME: &'static str = "kvs";
    const SERVICES: &'static [&'static str] = &["kvs"];
    const RELOAD_REFUSAL: &'static str = "error unpacking config-reload request";

    async fn start(context: &Context<Kvs>, args: &[String]) -> Result<Kvs, Failure> {
        let attrs = context.broker().attrs();
        let hash = attrs.get("content.hash").unwrap_or_default();
        let hash = hash
            .parse()
            .map_err(|error| Failure::new(Errno::EINVAL, format!("content.hash: {error}")))?;
        let mut kvs = Kvs {
            rank: context.rank(),
            hash,
            owner: context.broker().owner(),
            blobs: Blobs::default(),
            roots: HashMap::new(),
            next_root: 0,
            asking: HashMap::new(),
            checkpoints: Checkpoints::from_config(&context.config())?,
            merge: true,
            next_transaction: 0,
            faults: 0,
            pending: 0,
            commit_ops: Tstat::default(),
        };
        let mut initial = None;
        for arg in args {
            match arg.split_once('=') {
                Some(("transaction-merge", value)) => kvs.merge = value != "0",
                Some(("initial-rootref", rootref)) => {
                    let bad = |_| Failure::new(Errno::EINVAL, format!("{arg}: not a blobref"));
                    initial = Some(rootref.parse().map_err(bad)?);
                }
                _ => {
                    let text = format!("Unknown option `{arg}'");
                    return Err(Failure::new(Errno::EINVAL, text));
                }
            }
        }
        if kvs.rank == 0 {
            kvs.start_primary(context, initial).await?;
        }
        Ok(kvs)
    }

    fn methods() -> Methods<Kvs> {
        Methods::default()
            .serve::<rpc::Lookup>(Kvs::lookup)
            .serve::<rpc::LookupPlus>(Kvs::lookup_plus)
            .serve::<rpc::Commit>(Kvs::commit)
            .serve::<rpc::Relaycommit>(Kvs::relaycommit)
            .serve::<rpc::Getroot>(Kvs::getroot)
            .serve::<rpc::WaitVersion>(Kvs::wait_version)
            .reply::<rpc::NamespaceCreate>(Kvs::namespace_create)
            .reply::<rpc::NamespaceRemove>(Kvs::namespace_remove)
            .reply::<rpc::NamespaceList>(Kvs::namespace_list)
            .serve::<rpc::SetrootPause>(Kvs::setroot_pause)
            .serve::<rpc::SetrootUnpause>(Kvs::setroot_unpause)
    }

    fn event(&mut self, context: &Context<Kvs>, event: &Message) {
        self.namespace_event(context, event);
    }

    fn disconnect(&mut self, _: &Context<Kvs>, sender: &Sender) {
        for root in self.roots.values_mut() {
            root.versions.disconnect(sender);
        }
    }

    fn configure(&mut self, context: &Context<Kvs>, config: &Config) -> Result<(), Failure> {
        self.set_checkpoint_period(context, Checkpoints::period_of(config)?);
        Ok(())
    }

    fn stats(&self, _: &Context<Kvs>) -> Option<Value> {
        Some(self.statistics())
    }

    fn clear_stats(&mut self) {
        self.faults = 0;
        self.commit_ops = Tstat::default();
    }

    async fn stop(self, context: &Context<Kvs>) {
        self.last_checkpoint(context).await;
    }
}
