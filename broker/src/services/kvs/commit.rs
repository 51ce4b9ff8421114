//! Transactions: from the request to the new root (rank 0), or to rank 0.
//!
//! Each batch writes the directories on the way to its keys anew, so fewer batches are less work.
//! Those that nobody waits for (LAZY) start none: they are in the next, in the order in which all
//! came, or in one of their own a moment later.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::kvs_key;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::{Empty, Payload, Raw, Raws};
use flux_protocol::rpc::kvs::commit::{LAZY, NO_MERGE, SYNC};
use flux_protocol::rpc::{content, kvs as rpc};
use flux_protocol::treeobj::Treeobj;

use super::Kvs;
use super::draft::{Changed, Draft, Problem};
use super::root::{Held, Root};
use crate::call::Call;
use crate::context::Context;
use crate::log::Severity;

/// Transactions that become one root.
const BATCH_MAX: usize = 4096;
/// For how long transactions that nobody waits for linger.
const LINGER_TIME: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Transaction {
    name: String,
    ops: Vec<rpc::Op>,
    flags: u32,
    /// Who is to be answered here; others learn of it from the event.
    call: Option<Call<rpc::Rootref>>,
}

/// Transactions that are being applied together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) transactions: Vec<Transaction>,
    draft: Option<Draft>,
    /// What comes next: an operation of a transaction.
    at: (usize, usize),
}

// === impl Transaction ===

impl Transaction {
    fn is_lazy(&self) -> bool {
        self.flags & (LAZY | SYNC) == LAZY
    }

    pub(super) fn fail(self, failure: &Failure) -> Option<String> {
        match self.call {
            Some(call) => {
                call.fail(failure.clone());
                None
            }
            None => Some(self.name),
        }
    }
}

// === impl Kvs: requests ===

impl Kvs {
    pub(super) fn commit(
        &mut self,
        context: &Context<Self>,
        request: rpc::CommitRequest,
        call: Call<rpc::Rootref>,
    ) {
        if !call.cred().is_owner()
            && let Err(failure) = authorize_guest(&request.ops)
        {
            return call.fail(failure);
        }
        let (namespace, cred) = (request.namespace.clone(), call.cred());
        self.with_root(context, &namespace, cred, move |kvs, context, result| match result {
            Ok(()) => kvs.commit_here(context, request, call),
            Err(failure) => call.fail(failure),
        });
    }

    fn commit_here(
        &mut self,
        context: &Context<Self>,
        request: rpc::CommitRequest,
        call: Call<rpc::Rootref>,
    ) {
        let rpc::CommitRequest { namespace, flags, ops } = request;
        let name = format!("transaction_req.{}.{}", self.rank, self.next_transaction);
        self.next_transaction += 1;
        if self.rank == 0 {
            let transaction = Transaction { name, ops, flags, call: Some(call) };
            return self.enqueue(context, &namespace, transaction);
        }
        let relay = rpc::RelaycommitRequest {
            ops,
            name: name.clone(),
            namespace: namespace.clone(),
            flags,
        };
        let sent = context.handle().notify::<rpc::Relaycommit>(Nodeid(0), Flags::default(), &relay);
        match (sent, self.roots.get_mut(&namespace)) {
            (Ok(()), Some(root)) => drop(root.relayed.insert(name, call)),
            (Ok(()), None) => call.fail(Errno::ENOTSUP),
            (Err(failure), _) => call.fail(failure),
        }
    }

    /// From another rank, which learns of the result by an event.
    pub(super) fn relaycommit(
        &mut self,
        context: &Context<Self>,
        request: rpc::RelaycommitRequest,
        call: Call<Empty>,
    ) {
        let rpc::RelaycommitRequest { ops, name, namespace, flags } = request;
        if self.rank != 0 {
            return call.fail(Errno::EINVAL);
        }
        let transaction = Transaction { name, ops, flags, call: None };
        self.enqueue(context, &namespace, transaction);
    }
}

fn authorize_guest(ops: &[rpc::Op]) -> Result<(), Failure> {
    for op in ops {
        let kind = match &op.dirent {
            None | Some(Treeobj::Val(_)) => continue,
            Some(Treeobj::Dir(entries)) if entries.is_empty() => continue,
            Some(Treeobj::Dir(_)) => "non-empty dir",
            Some(object) => object.type_name(),
        };
        let text = format!("guests may not commit {kind} objects");
        return Err(Failure::new(Errno::EPERM, text));
    }
    Ok(())
}

// === impl Kvs: applying, on rank 0 ===

impl Kvs {
    fn enqueue(&mut self, context: &Context<Self>, namespace: &str, transaction: Transaction) {
        self.commit_ops.push(transaction.ops.len() as f64);
        let refusal = match self.roots.get(namespace) {
            None => Some(Errno::ENOTSUP),
            // A checkpoint holds one root.
            Some(_) if transaction.flags & SYNC != 0 && namespace != rpc::PRIMARY => {
                Some(Errno::EINVAL)
            }
            Some(_) => None,
        };
        if let Some(errno) = refusal {
            return self.fail_transactions(context, namespace, vec![transaction], &errno.into());
        }
        if let Some(root) = self.roots.get_mut(namespace) {
            root.queue.push_back(transaction);
            schedule(context, root);
        }
    }

    /// Begin with the next batch, unless there is one already.
    fn next_batch(&mut self, context: &Context<Self>, namespace: &str, id: u64) {
        let merge = self.merge;
        let Some(root) = self.root_mut(namespace, id) else { return };
        root.scheduled = false;
        if root.batch.is_some() || root.queue.is_empty() {
            return;
        }
        let alone = |t: &Transaction| !merge || t.flags & NO_MERGE != 0;
        let first_alone = root.queue.front().is_some_and(alone);
        let count = if first_alone {
            1
        } else {
            root.queue.iter().take(BATCH_MAX).take_while(|t| !alone(t)).count()
        };
        let transactions = root.queue.drain(..count).collect();
        root.batch = Some(Batch { transactions, draft: None, at: (0, 0) });
        self.continue_batch(context, namespace, id);
    }

    /// Go on with the batch until it is applied or a blob is missing.
    fn continue_batch(&mut self, context: &Context<Self>, namespace: &str, id: u64) {
        let Some(mut batch) = self.root_mut(namespace, id).and_then(|root| root.batch.take())
        else {
            return;
        };
        let result = self.apply(namespace, &mut batch);
        match result {
            Ok(()) => self.store(context, namespace, id, batch),
            Err(Problem::Missing(blobref)) => {
                self.put_back(namespace, id, batch);
                self.load_for_batch(context, namespace, id, blobref);
            }
            Err(Problem::Failed(errno)) => {
                self.fall_back(context, namespace, id, batch, errno.into())
            }
        }
    }

    fn apply(&mut self, namespace: &str, batch: &mut Batch) -> Result<(), Problem> {
        let Some(root) = self.roots.get(namespace) else { return Err(Errno::ENOTSUP.into()) };
        let blobs = &mut self.blobs;
        if batch.transactions.iter().all(|t| t.ops.is_empty()) {
            return Ok(());
        }
        if batch.draft.is_none() {
            let dir = match &root.pinned {
                Some(dir) => dir.clone(),
                None => blobs
                    .dir(&root.rootref)
                    .map_err(|_| Errno::ENOTRECOVERABLE)?
                    .ok_or(Problem::Missing(root.rootref))?,
            };
            batch.draft = Some(Draft::new(namespace, self.hash, (*dir).clone()));
        }
        let Some(draft) = &mut batch.draft else { return Ok(()) };
        while let Some(transaction) = batch.transactions.get(batch.at.0) {
            while let Some(op) = transaction.ops.get(batch.at.1) {
                draft.apply(op, blobs)?;
                batch.at.1 += 1;
            }
            batch.at = (batch.at.0 + 1, 0);
        }
        Ok(())
    }

    fn load_for_batch(
        &mut self,
        context: &Context<Self>,
        namespace: &str,
        id: u64,
        blobref: Blobref,
    ) {
        self.faults += 1;
        let handle = context.handle().clone();
        let digest = Raw(blobref.digest().to_vec().into());
        let load = async move { handle.rpc::<content::Load>(&digest).await };
        let (then, namespace) = (context.clone(), namespace.to_owned());
        context.spawn(load, move |kvs, result| match result {
            Ok(Raw(data)) => {
                kvs.blobs.insert_raw(blobref, data);
                kvs.continue_batch(&then, &namespace, id);
            }
            Err(failure) => {
                let batch = kvs.root_mut(&namespace, id).and_then(|root| root.batch.take());
                if let Some(batch) = batch {
                    kvs.fall_back(&then, &namespace, id, batch, failure);
                }
            }
        });
    }

    /// Store the blobs of the changed tree, and take over its root when that has been done.
    fn store(&mut self, context: &Context<Self>, namespace: &str, id: u64, mut batch: Batch) {
        let Some(draft) = batch.draft.take() else {
            return self.finish_batch(context, namespace, id, batch, None);
        };
        let changed = draft.finish(&mut self.blobs);
        let handle = context.handle().clone();
        let (refs, blobs): (Vec<_>, Vec<_>) = changed.made.iter().cloned().unzip();
        if let Some(root) = self.root_mut(namespace, id) {
            root.noop_stores += changed.noops;
            root.batch = Some(batch);
        }
        let wait = async move {
            let digests = handle.rpc::<content::StoreMany>(&Raws(blobs)).await?.0;
            let same = |(blobref, digest): (&Blobref, &Bytes)| blobref.digest() == &digest[..];
            if digests.len() != refs.len() || !refs.iter().zip(&digests).all(same) {
                let text = "blobs were stored as others";
                return Err(Failure::new(Errno::EIO, text));
            }
            Ok(())
        };
        let (then, namespace) = (context.clone(), namespace.to_owned());
        context.spawn(wait, move |kvs, result: Result<(), Failure>| {
            let batch = kvs.root_mut(&namespace, id).and_then(|root| root.batch.take());
            match (batch, result) {
                (Some(batch), Ok(())) => {
                    kvs.finish_batch(&then, &namespace, id, batch, Some(changed));
                }
                (Some(batch), Err(failure)) => {
                    kvs.fall_back(&then, &namespace, id, batch, failure);
                }
                (None, _) => {}
            }
        });
    }

    fn finish_batch(
        &mut self,
        context: &Context<Self>,
        namespace: &str,
        id: u64,
        batch: Batch,
        changed: Option<Changed>,
    ) {
        let Some(root) = self.root_mut(namespace, id) else { return };
        let rootref = changed.as_ref().map_or(root.rootref, |changed| changed.rootref);
        if let Some(changed) = changed {
            root.pinned = Some(changed.root);
        }
        root.set(root.seq + 1, rootref);
        let current = root.current();
        let keys = changed_keys(&batch.transactions);
        let count = batch.transactions.iter().filter(|t| !t.ops.is_empty()).count();
        let (mut names, mut synced) = (Vec::new(), Vec::new());
        for transaction in batch.transactions {
            if transaction.flags & SYNC != 0 {
                synced.push((transaction, current.clone()));
                continue;
            }
            names.push(transaction.name);
            match (transaction.call, &mut root.paused) {
                (None, _) => {}
                (Some(call), Some(held)) => held.push(Held::Answer(call, current.clone())),
                (Some(call), None) => call.reply(&current),
            }
        }
        publish_setroot(context, root, names, keys);
        schedule(context, root);
        if count > 1 {
            let text = format!("aggregated {count} transactions");
            context.log(Severity::Debug, text);
        }
        if !synced.is_empty() {
            let synced = synced
                .into_iter()
                .map(|(Transaction { name, call, .. }, rootref)| (name, call, rootref));
            self.checkpoint_for(context, synced.collect());
        }
    }

    /// A batch that fails is tried again with its transactions one by one, so that only those
    /// fail that must.
    fn fall_back(
        &mut self,
        context: &Context<Self>,
        namespace: &str,
        id: u64,
        batch: Batch,
        failure: Failure,
    ) {
        let mut transactions = batch.transactions;
        if transactions.len() == 1 {
            self.fail_transactions(context, namespace, transactions, &failure);
        } else if let Some(root) = self.root_mut(namespace, id) {
            for mut transaction in transactions.drain(..).rev() {
                transaction.flags |= NO_MERGE;
                root.queue.push_front(transaction);
            }
        }
        if let Some(root) = self.root_mut(namespace, id) {
            schedule(context, root);
        }
    }

    pub(super) fn fail_transactions(
        &self,
        context: &Context<Self>,
        namespace: &str,
        transactions: Vec<Transaction>,
        failure: &Failure,
    ) {
        let names: Vec<String> =
            transactions.into_iter().filter_map(|transaction| transaction.fail(failure)).collect();
        publish_error(context, namespace, names, failure);
    }

    fn put_back(&mut self, namespace: &str, id: u64, batch: Batch) {
        if let Some(root) = self.root_mut(namespace, id) {
            root.batch = Some(batch);
        }
    }

    /// The namespace, unless it has been removed since.
    pub(super) fn root_mut(&mut self, namespace: &str, id: u64) -> Option<&mut Root> {
        self.roots.get_mut(namespace).filter(|root| root.id == id)
    }
}

/// Apply what is queued in a later turn, so that what is about to come can join.
fn schedule(context: &Context<Kvs>, root: &mut Root) {
    if root.scheduled || root.batch.is_some() || root.queue.is_empty() {
        return;
    }
    if root.queue.iter().all(Transaction::is_lazy) {
        return linger(context, root);
    }
    root.scheduled = true;
    let (then, namespace, id) = (context.clone(), root.name.clone(), root.id);
    context.later(move |kvs: &mut Kvs| kvs.next_batch(&then, &namespace, id));
}

fn linger(context: &Context<Kvs>, root: &mut Root) {
    if std::mem::replace(&mut root.lingering, true) {
        return;
    }
    let (then, namespace, id) = (context.clone(), root.name.clone(), root.id);
    context.spawn(tokio::time::sleep(LINGER_TIME), move |kvs: &mut Kvs, ()| {
        if let Some(root) = kvs.root_mut(&namespace, id) {
            root.lingering = false;
        }
        kvs.next_batch(&then, &namespace, id);
    });
}

fn changed_keys(transactions: &[Transaction]) -> BTreeMap<String, ()> {
    let ops = transactions.iter().flat_map(|transaction| &transaction.ops);
    ops.map(|op| (kvs_key::normalize(&op.key), ())).collect()
}

/// Tell everybody the root of a namespace.
pub(super) fn publish_setroot(
    context: &Context<Kvs>,
    root: &Root,
    names: Vec<String>,
    keys: BTreeMap<String, ()>,
) {
    let current = root.current();
    let event = rpc::Setroot {
        namespace: root.name.clone(),
        rootseq: current.rootseq,
        rootref: current.rootref,
        names,
        keys,
        owner: root.owner.0,
    };
    publish(context, &root.name, "setroot", &event);
}

/// Tell other ranks that transactions failed.
pub(super) fn publish_error(
    context: &Context<Kvs>,
    namespace: &str,
    names: Vec<String>,
    failure: &Failure,
) {
    if !names.is_empty() {
        let namespace_owned = namespace.to_owned();
        let event = rpc::CommitError { namespace: namespace_owned, names, errnum: failure.errno.0 };
        publish(context, namespace, "error", &event);
    }
}

pub(super) fn publish(context: &Context<Kvs>, namespace: &str, what: &str, event: &impl Payload) {
    let topic = format!("{}-{what}", rpc::event_prefix(namespace));
    let published = event
        .encode()
        .map_err(Failure::from)
        .and_then(|payload| context.handle().publish_flags(topic, Flags::PRIVATE, payload));
    crate::service::log_failure(context, "publishing an event", published);
}
