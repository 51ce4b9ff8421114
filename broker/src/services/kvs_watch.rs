//! `kvs-watch`: lookups that go on as the value changes.
//!
//! Setroot events name the keys that changed, and only who watches one of those is woken; a
//! watcher with FULL wakes on every change, as the value may change through a link. Each watcher
//! looks up the roots that concern it one after another, in their order, so that its responses are
//! in order as well.

mod namespace;
mod watcher;

use std::collections::HashMap;

use bytes::Bytes;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::Message;
use flux_protocol::payload::{Empty, Payload};
use flux_protocol::rpc::kvs::lookup::{FULL, SENTINEL, STREAM, UNIQ, WATCH, WATCH_APPEND};
use flux_protocol::rpc::{kvs, kvs_watch as rpc};
use serde_json::{Map, Value, json};

use self::namespace::{Failed, Namespace};
use self::watcher::{Progress, Task, Watcher};
use crate::call::{Call, Sender};
use crate::context::Context;
use crate::methods::Methods;
use crate::service::Service;

#[derive(Debug, Default)]
pub struct KvsWatch {
    /// Those that are watched.
    namespaces: HashMap<String, Namespace>,
    /// Namespace and number of each watcher, by who sent its request and the matchtag.
    by_tag: HashMap<(Bytes, u32), (String, u64)>,
    /// The last number given to a watcher or namespace; unlike names, never used again.
    next: u64,
}

impl Service for KvsWatch {
    const NAME: &'static str = "kvs-watch";
    const SERVICES: &'static [&'static str] = &["kvs-watch"];

    async fn start(_: &Context<KvsWatch>, args: &[String]) -> Result<KvsWatch, Failure> {
        match args {
            [] => Ok(KvsWatch::default()),
            _ => Err(Failure::new(Errno::EINVAL, "kvs-watch takes no arguments")),
        }
    }

    fn methods() -> Methods<KvsWatch> {
        Methods::default()
            .serve::<rpc::Lookup>(KvsWatch::lookup)
            .serve::<rpc::Cancel>(KvsWatch::cancel)
    }

    fn event(&mut self, context: &Context<KvsWatch>, event: &Message) {
        let payload = event.payload.as_ref();
        let (name, failed) = match event.topic.rsplit_once('-') {
            Some((_, "setroot")) => {
                let Ok(event) = kvs::Setroot::decode(payload) else { return };
                let namespace = self.namespaces.get_mut(&event.namespace);
                let failed = namespace.map(|namespace| namespace.setroot(&event));
                (event.namespace, failed)
            }
            Some((_, "created")) => {
                let Ok(event) = kvs::NamespaceCreated::decode(payload) else { return };
                let namespace = self.namespaces.get_mut(&event.namespace);
                let failed = namespace.map(|namespace| namespace.created(&event));
                (event.namespace, failed)
            }
            Some((_, "removed")) => {
                let Ok(event) = kvs::NamespaceRequest::decode(payload) else { return };
                let namespace = self.namespaces.get_mut(&event.namespace);
                let failed = namespace.map(|namespace| {
                    let gone = |watcher| Failed { watcher, failure: Errno::ENOTSUP.into() };
                    namespace.drain().into_iter().map(gone).collect()
                });
                (event.namespace, failed)
            }
            _ => return,
        };
        self.fail_all(context, &name, failed.unwrap_or_default());
    }

    fn disconnect(&mut self, context: &Context<KvsWatch>, sender: &Sender) {
        let left: Vec<(Bytes, u32)> =
            self.by_tag.keys().filter(|(uuid, _)| *uuid == sender.uuid).cloned().collect();
        for tag in left {
            if let Some(watcher) = self.take(context, &tag, sender) {
                watcher.forget();
            }
        }
    }

    fn stats(&self, _: &Context<KvsWatch>) -> Option<Value> {
        let watchers: usize = self.namespaces.values().map(Namespace::len).sum();
        let namespaces: Map<String, Value> =
            self.namespaces.iter().map(|(name, ns)| (name.clone(), ns.stats())).collect();
        Some(json!({
            "watchers": watchers,
            "namespace-count": namespaces.len(),
            "namespaces": namespaces,
        }))
    }
}

impl KvsWatch {
    fn lookup(
        &mut self,
        context: &Context<Self>,
        request: rpc::LookupRequest,
        call: Call<kvs::LookupResponse>,
    ) {
        if let Err(failure) = check_flags(request.flags, call.is_streaming()) {
            return call.fail(failure);
        }
        let id = self.next_id();
        let name = request.namespace.clone();
        if !self.namespaces.contains_key(&name) {
            let id = self.next_id();
            self.namespaces.insert(name.clone(), Namespace::new(id));
            self.ask_root(context, &name, id);
        }
        let Some(namespace) = self.namespaces.get_mut(&name) else { return };
        let tag = (call.sender().uuid, call.matchtag().0);
        let (watcher, news) = Watcher::new(id, &request, call);
        let task = Task {
            handle: context.handle().clone(),
            answers: watcher.answers(),
            request,
            cred: watcher.cred(),
            news,
            progress: Progress::default(),
        };
        namespace.add(watcher);
        self.by_tag.insert(tag.clone(), (name.clone(), id));
        let then = context.clone();
        context.spawn(task.run(), move |service, ()| service.ended(&then, &tag, &name, id));
    }

    fn cancel(&mut self, context: &Context<Self>, request: rpc::CancelRequest, call: Call<Empty>) {
        let sender = call.sender();
        let tag = (sender.uuid.clone(), request.matchtag);
        if let Some(watcher) = self.take(context, &tag, &sender) {
            watcher.fail(&Errno::ENODATA.into());
        }
    }

    /// Remove the watcher with this tag, if the sender may.
    fn take(
        &mut self,
        context: &Context<Self>,
        tag: &(Bytes, u32),
        sender: &Sender,
    ) -> Option<Watcher> {
        let (name, id) = self.by_tag.get(tag)?.clone();
        let namespace = self.namespaces.get_mut(&name)?;
        if !namespace.get(id)?.sender().ended_by(sender) {
            return None;
        }
        let watcher = namespace.remove(id);
        self.by_tag.remove(tag);
        self.drop_unwatched(context, &name);
        watcher
    }

    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Follow a namespace's events, and ask for the root to begin with.
    fn ask_root(&self, context: &Context<Self>, name: &str, id: u64) {
        context.subscribe(&kvs::event_prefix(name));
        let request = kvs::GetrootRequest { namespace: name.to_owned(), flags: None };
        let handle = context.handle().clone();
        let ask = async move { handle.rpc::<kvs::Getroot>(&request).await };
        let (then, name) = (context.clone(), name.to_owned());
        context.spawn(ask, move |service, result| {
            let namespace = service.namespaces.get_mut(&name).filter(|ns| ns.id() == id);
            if let Some(failed) = namespace.map(|namespace| namespace.got_root(result)) {
                service.fail_all(&then, &name, failed);
            }
        });
    }

    fn fail_all(&mut self, context: &Context<Self>, name: &str, failed: Vec<Failed>) {
        for Failed { watcher, failure } in failed {
            self.by_tag.remove(&(watcher.sender().uuid.clone(), watcher.matchtag().0));
            watcher.fail(&failure);
        }
        self.drop_unwatched(context, name);
    }

    /// A watcher's task has come to its end.
    fn ended(&mut self, context: &Context<Self>, tag: &(Bytes, u32), name: &str, id: u64) {
        if self.by_tag.get(tag).is_some_and(|(_, other)| *other == id) {
            self.by_tag.remove(tag);
        }
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.remove(id);
        }
        self.drop_unwatched(context, name);
    }

    fn drop_unwatched(&mut self, context: &Context<Self>, name: &str) {
        if self.namespaces.get(name).is_some_and(|namespace| namespace.len() == 0) {
            self.namespaces.remove(name);
            context.unsubscribe(&kvs::event_prefix(name));
        }
    }
}

fn check_flags(flags: u32, streaming: bool) -> Result<(), Failure> {
    let has = |flag| flags & flag != 0;
    let refuse = |errno, text: &str| Err(Failure::new(errno, text));
    if has(WATCH) && !streaming {
        return refuse(Errno::EPROTO, "KVS watch request rejected without streaming RPC flag");
    }
    if has(STREAM) && !streaming {
        return refuse(Errno::EPROTO, "KVS stream request rejected without streaming RPC flag");
    }
    if has(WATCH) && has(STREAM) {
        return refuse(Errno::EINVAL, "Cannot KVS watch and stream at the same time");
    }
    if !has(WATCH) && has(FULL | UNIQ | WATCH_APPEND | SENTINEL) {
        return refuse(Errno::EINVAL, "Must set KVS watch flag with other watch flags");
    }
    if !has(WATCH_APPEND) && has(SENTINEL) {
        return refuse(Errno::EINVAL, "Must set KVS watch append flag with initial sentinel flag");
    }
    Ok(())
}
