//! Namespaces: creation, removal, their roots, and waiting for versions.

use flux_protocol::blobref::Blobref;
use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::kvs as rpc;

use super::Kvs;
use super::commit::publish;
use super::root::{Held, Root};
use crate::call::{Call, Sender};
use crate::context::Context;

impl Kvs {
    pub(super) fn add_root(
        &mut self,
        name: &str,
        owner: Userid,
        flags: u32,
        seq: i64,
        rootref: Blobref,
    ) -> &mut Root {
        let id = self.next_root;
        self.next_root += 1;
        let root = Root::new(id, name, owner, flags, seq, rootref);
        self.roots.entry(name.to_owned()).insert_entry(root).into_mut()
    }

    pub(super) fn getroot(
        &mut self,
        context: &Context<Self>,
        request: rpc::GetrootRequest,
        call: Call<rpc::GetrootResponse>,
    ) {
        let (name, cred) = (request.namespace, call.cred());
        self.with_root(context, &name.clone(), cred, move |kvs, _, result| {
            match (result, kvs.roots.get(&name)) {
                (Ok(()), Some(root)) => call.reply(&rpc::GetrootResponse {
                    owner: root.owner.0,
                    rootseq: root.seq,
                    rootref: root.rootref.to_string(),
                    flags: root.flags,
                    namespace: name,
                }),
                (Ok(()), None) => call.fail(Errno::ENOTSUP),
                (Err(failure), _) => call.fail(failure),
            }
        });
    }

    pub(super) fn wait_version(
        &mut self,
        context: &Context<Self>,
        request: rpc::WaitVersionRequest,
        call: Call<rpc::Rootref>,
    ) {
        let (name, cred) = (request.namespace, call.cred());
        self.with_root(context, &name.clone(), cred, move |kvs, _, result| {
            match (result, kvs.roots.get_mut(&name)) {
                (Ok(()), Some(root)) if root.seq >= request.rootseq => call.reply(&root.current()),
                (Ok(()), Some(root)) => root.versions.insert(call, request.rootseq),
                (Ok(()), None) => call.fail(Errno::ENOTSUP),
                (Err(failure), _) => call.fail(failure),
            }
        });
    }

    pub(super) fn namespace_create(
        &mut self,
        context: &Context<Self>,
        request: rpc::NamespaceCreateRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        self.only_rank_0()?;
        if self.roots.contains_key(&request.namespace) {
            return Err(Errno::EEXIST.into());
        }
        let rootref: Blobref = request.rootref.parse().map_err(|_| Errno::EINVAL)?;
        let owner = match u32::try_from(request.owner).map(Userid) {
            Ok(Userid::UNKNOWN) => self.owner,
            Ok(owner) => owner,
            Err(_) if request.owner == -1 => self.owner,
            Err(_) => return Err(Errno::EINVAL.into()),
        };
        let event = rpc::NamespaceCreated {
            namespace: request.namespace.clone(),
            rootseq: 0,
            rootref: request.rootref,
            owner: owner.0,
        };
        self.add_root(&request.namespace, owner, request.flags, 0, rootref);
        publish(context, &request.namespace, "created", &event);
        Ok(Empty)
    }

    pub(super) fn namespace_remove(
        &mut self,
        context: &Context<Self>,
        request: rpc::NamespaceRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        self.only_rank_0()?;
        if request.namespace.eq_ignore_ascii_case(rpc::PRIMARY) {
            return Err(Errno::ENOTSUP.into());
        }
        if self.roots.contains_key(&request.namespace) {
            self.drop_root(context, &request.namespace);
            publish(context, &request.namespace, "removed", &request);
        }
        Ok(Empty)
    }

    /// Forget a namespace. What still waits in it fails.
    pub(super) fn drop_root(&mut self, context: &Context<Self>, name: &str) {
        let Some(mut root) = self.roots.remove(name) else { return };
        let gone = Failure::from(Errno::ENOTSUP);
        let batch = root.batch.take().map(|batch| batch.transactions).unwrap_or_default();
        let transactions = batch.into_iter().chain(root.queue.drain(..)).collect();
        self.fail_transactions(context, name, transactions, &gone);
        for (call, _) in root.versions.take(|_, _| true) {
            call.fail(gone.clone());
        }
        for (_, call) in root.relayed.drain() {
            call.fail(gone.clone());
        }
        for held in root.paused.into_iter().flatten() {
            if let Held::Answer(call, rootref) = held {
                call.reply(&rootref);
            }
        }
    }

    pub(super) fn namespace_list(
        &mut self,
        _: &Context<Self>,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::NamespaceListResponse, Failure> {
        let mut roots: Vec<&Root> = self.roots.values().collect();
        roots.sort_by_key(|root| root.id);
        let namespace = |root: &Root| rpc::Namespace {
            namespace: root.name.clone(),
            owner: root.owner.0,
            flags: root.flags,
        };
        Ok(rpc::NamespaceListResponse { namespaces: roots.into_iter().map(namespace).collect() })
    }

    pub(super) fn setroot_pause(
        &mut self,
        context: &Context<Self>,
        request: rpc::NamespaceRequest,
        call: Call<Empty>,
    ) {
        let (name, cred) = (request.namespace, call.cred());
        self.with_root(context, &name.clone(), cred, move |kvs, _, result| {
            if let Some(root) = kvs.roots.get_mut(&name) {
                root.paused.get_or_insert_default();
            }
            call.finish(result.map(|()| Empty));
        });
    }

    pub(super) fn setroot_unpause(
        &mut self,
        context: &Context<Self>,
        request: rpc::NamespaceRequest,
        call: Call<Empty>,
    ) {
        let (name, cred) = (request.namespace, call.cred());
        self.with_root(context, &name.clone(), cred, move |kvs, context, result| {
            let held = kvs.roots.get_mut(&name).and_then(|root| root.paused.take());
            for held in held.into_iter().flatten() {
                match held {
                    Held::Answer(call, rootref) => call.reply(&rootref),
                    Held::Event(event) => kvs.setroot(context, event),
                }
            }
            call.finish(result.map(|()| Empty));
        });
    }

    fn only_rank_0(&self) -> Result<(), Failure> {
        if self.rank == 0 {
            return Ok(());
        }
        Err(Failure::new(Errno::EINVAL, "namespaces are created and removed on rank 0"))
    }
}
