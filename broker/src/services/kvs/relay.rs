//! Namespaces on other ranks than 0: asked for above when first used, kept up to date by events.

use flux_protocol::blobref::Blobref;
use flux_protocol::credential::{Credential, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::Message;
use flux_protocol::payload::Payload;
use flux_protocol::rpc::kvs as rpc;

use super::Kvs;
use super::root::Held;
use crate::context::Context;

type Then = Box<dyn FnOnce(&mut Kvs, &Context<Kvs>, Result<(), Failure>)>;

/// A namespace whose root was asked for.
#[derive(Default)]
pub(super) struct Asking {
    then: Vec<(Credential, Then)>,
    /// The newest root that events told meanwhile.
    newest: Option<rpc::Setroot>,
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").field("newest", &self.newest).finish_non_exhaustive()
    }
}

impl Kvs {
    /// Go on when the namespace is known here: at once, unless the broker above has to be asked.
    ///
    /// ENOTSUP: there is no such namespace. EPERM: `cred` may not use it.
    pub(super) fn with_root(
        &mut self,
        context: &Context<Self>,
        namespace: &str,
        cred: Credential,
        then: impl FnOnce(&mut Kvs, &Context<Kvs>, Result<(), Failure>) + 'static,
    ) {
        match self.roots.get(namespace) {
            Some(root) => {
                let result = root.check_user(cred).map_err(Failure::from);
                then(self, context, result);
            }
            None if self.rank == 0 => then(self, context, Err(Errno::ENOTSUP.into())),
            None => self.ask(context, namespace, cred, Box::new(then)),
        }
    }

    fn ask(&mut self, context: &Context<Self>, namespace: &str, cred: Credential, then: Then) {
        if let Some(asking) = self.asking.get_mut(namespace) {
            asking.then.push((cred, then));
            return;
        }
        let asking = Asking { then: vec![(cred, then)], newest: None };
        self.asking.insert(namespace.to_owned(), asking);
        context.subscribe(&rpc::event_prefix(namespace));
        let handle = context.handle().clone();
        let request = rpc::GetrootRequest { namespace: namespace.to_owned(), flags: None };
        let ask = async move { handle.rpc_upstream::<rpc::Getroot>(&request).await };
        let (then, namespace) = (context.clone(), namespace.to_owned());
        context.spawn(ask, move |kvs, result| kvs.answered(&then, &namespace, result));
    }

    fn answered(
        &mut self,
        context: &Context<Self>,
        namespace: &str,
        result: Result<rpc::GetrootResponse, Failure>,
    ) {
        let Some(Asking { then, newest }) = self.asking.remove(namespace) else { return };
        let known = result.and_then(|response| {
            let rootref: Blobref = response.rootref.parse().map_err(|_| Errno::EPROTO)?;
            Ok((response, rootref))
        });
        let failure = match known {
            Ok((response, rootref)) => {
                let owner = Userid(response.owner);
                self.add_root(namespace, owner, response.flags, response.rootseq, rootref);
                if let Some(event) = newest {
                    self.setroot(context, event);
                }
                None
            }
            Err(failure) => {
                context.unsubscribe(&rpc::event_prefix(namespace));
                Some(failure)
            }
        };
        for (cred, then) in then {
            let result = match (&failure, self.roots.get(namespace)) {
                (Some(failure), _) => Err(failure.clone()),
                (None, Some(root)) => root.check_user(cred).map_err(Failure::from),
                (None, None) => Err(Errno::ENOTSUP.into()),
            };
            then(self, context, result);
        }
    }

    /// An event of a namespace; only ranks that follow others subscribe to them.
    pub(super) fn namespace_event(&mut self, context: &Context<Self>, event: &Message) {
        let payload = event.payload.as_ref();
        let Some((_, what)) = event.topic.rsplit_once('-') else { return };
        match what {
            "setroot" => {
                if let Ok(event) = rpc::Setroot::decode(payload) {
                    self.hold_or_set(context, event);
                }
            }
            "error" => {
                if let Ok(event) = rpc::CommitError::decode(payload)
                    && let Some(root) = self.roots.get_mut(&event.namespace)
                {
                    let failure = Failure::from(Errno(event.errnum));
                    for call in event.names.iter().filter_map(|name| root.relayed.remove(name)) {
                        call.fail(failure.clone());
                    }
                }
            }
            "removed" => {
                if let Ok(event) = rpc::NamespaceRequest::decode(payload)
                    && self.roots.contains_key(&event.namespace)
                {
                    self.drop_root(context, &event.namespace);
                    context.unsubscribe(&rpc::event_prefix(&event.namespace));
                }
            }
            _ => {}
        }
    }

    fn hold_or_set(&mut self, context: &Context<Self>, event: rpc::Setroot) {
        let root = self.roots.get_mut(&event.namespace);
        if let Some(held) = root.and_then(|root| root.paused.as_mut()) {
            held.push(Held::Event(event));
        } else {
            self.setroot(context, event);
        }
    }

    pub(super) fn setroot(&mut self, context: &Context<Self>, event: rpc::Setroot) {
        let Some(root) = self.roots.get_mut(&event.namespace) else {
            if let Some(asking) = self.asking.get_mut(&event.namespace) {
                asking.newest = Some(event);
            }
            return;
        };
        let Ok(rootref) = event.rootref.parse() else {
            let text = format!("{}: bad blobref in a setroot event", event.namespace);
            return context.log(crate::log::Severity::Err, text);
        };
        if event.rootseq > root.seq {
            root.set(event.rootseq, rootref);
        }
        let current = rpc::Rootref { rootref: event.rootref, rootseq: event.rootseq };
        for call in event.names.iter().filter_map(|name| root.relayed.remove(name)) {
            call.reply(&current);
        }
    }
}
