//! A namespace that is watched: its root, and who watches which key.

use std::collections::HashMap;
use std::rc::Rc;

use flux_protocol::credential::{Credential, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::kvs;
use serde_json::{Value, json};

use super::watcher::{News, Watcher};

#[derive(Debug)]
pub(super) struct Namespace {
    id: u64,
    root: Root,
    watchers: HashMap<u64, Watcher>,
    by_key: HashMap<Rc<str>, Vec<u64>>,
    /// They wake on every change.
    full: Vec<u64>,
}

#[derive(Debug)]
enum Root {
    /// It has been asked for.
    Asked,
    /// There is no such namespace yet.
    Absent,
    Known {
        seq: i64,
        rootref: Rc<str>,
        owner: Userid,
    },
}

// === impl Root ===

impl Root {
    /// May somebody watch? Without text, as the real service answers.
    fn check(&self, cred: Credential) -> Result<(), Errno> {
        match self {
            Root::Known { owner, .. } if !cred.authorizes(*owner) => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }
}

// === impl Namespace ===

impl Namespace {
    pub(super) fn new(id: u64) -> Namespace {
        Namespace {
            id,
            root: Root::Asked,
            watchers: HashMap::new(),
            by_key: HashMap::new(),
            full: Vec::new(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn len(&self) -> usize {
        self.watchers.len()
    }

    pub(super) fn stats(&self) -> Value {
        let (owner, seq, rootref) = match &self.root {
            Root::Known { seq, rootref, owner } => (i64::from(owner.0), *seq, &**rootref),
            Root::Asked | Root::Absent => (-1, -1, "(null)"),
        };
        json!({"owner": owner, "rootseq": seq, "rootref": rootref, "watchers": self.len()})
    }

    /// Add a watcher, which begins when the root is known.
    pub(super) fn add(&mut self, watcher: Watcher) {
        match &self.root {
            Root::Absent if !watcher.waits_for_creation() => {
                return watcher.fail(&Errno::ENOTSUP.into());
            }
            root @ Root::Known { .. } => {
                if let Err(errno) = root.check(watcher.cred()) {
                    return watcher.fail(&errno.into());
                }
                watcher.tell(News::Begin);
            }
            Root::Asked | Root::Absent => {}
        }
        if watcher.is_full() {
            self.full.push(watcher.id());
        } else {
            self.by_key.entry(watcher.key()).or_default().push(watcher.id());
        }
        self.watchers.insert(watcher.id(), watcher);
    }

    pub(super) fn get(&self, id: u64) -> Option<&Watcher> {
        self.watchers.get(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Watcher> {
        let watcher = self.watchers.remove(&id)?;
        self.full.retain(|other| *other != id);
        if let Some(ids) = self.by_key.get_mut(&watcher.key()) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_key.remove(&watcher.key());
            }
        }
        Some(watcher)
    }

    pub(super) fn drain(&mut self) -> Vec<Watcher> {
        self.full.clear();
        self.by_key.clear();
        self.watchers.drain().map(|(_, watcher)| watcher).collect()
    }

    /// The answer of `kvs.getroot`, unless events told more meanwhile. Returns the watchers that
    /// fail with it.
    pub(super) fn got_root(
        &mut self,
        result: Result<kvs::GetrootResponse, Failure>,
    ) -> Vec<Failed> {
        if !matches!(self.root, Root::Asked) {
            return Vec::new();
        }
        match result {
            Ok(root) => self.begin(root.rootseq, root.rootref, Userid(root.owner)),
            Err(failure) => {
                let absent = failure.errno == Errno::ENOTSUP;
                self.root = Root::Absent;
                let failure = Failure::from(failure.errno);
                let failed = self.watchers.values().filter(|w| !(absent && w.waits_for_creation()));
                let ids: Vec<u64> = failed.map(Watcher::id).collect();
                self.take_failed(ids, &failure)
            }
        }
    }

    pub(super) fn created(&mut self, event: &kvs::NamespaceCreated) -> Vec<Failed> {
        match self.root {
            Root::Known { .. } => Vec::new(),
            _ => self.begin(event.rootseq, event.rootref.clone(), Userid(event.owner)),
        }
    }

    pub(super) fn setroot(&mut self, event: &kvs::Setroot) -> Vec<Failed> {
        let rootref: Rc<str> = event.rootref.as_str().into();
        match &mut self.root {
            Root::Known { seq, .. } if event.rootseq <= *seq => return Vec::new(),
            Root::Known { seq, rootref: known, .. } => {
                *seq = event.rootseq;
                *known = rootref.clone();
            }
            _ => return self.begin(event.rootseq, event.rootref.clone(), Userid(event.owner)),
        }
        let tell = |id: &u64| {
            if let Some(watcher) = self.watchers.get(id) {
                watcher.tell(News::Root { seq: event.rootseq, rootref: rootref.clone() });
            }
        };
        self.full.iter().for_each(tell);
        if event.keys.len() <= self.by_key.len() {
            event
                .keys
                .keys()
                .filter_map(|key| self.by_key.get(key.as_str()))
                .flatten()
                .for_each(tell);
        } else {
            let changed = self.by_key.iter().filter(|(key, _)| event.keys.contains_key(&***key));
            changed.flat_map(|(_, ids)| ids).for_each(tell);
        }
        Vec::new()
    }

    /// The root is known: let those begin who may.
    fn begin(&mut self, seq: i64, rootref: String, owner: Userid) -> Vec<Failed> {
        self.root = Root::Known { seq, rootref: rootref.into(), owner };
        let mut refused = Vec::new();
        for watcher in self.watchers.values() {
            match self.root.check(watcher.cred()) {
                Ok(()) => watcher.tell(News::Begin),
                Err(_) => refused.push(watcher.id()),
            }
        }
        self.take_failed(refused, &Errno::EPERM.into())
    }

    fn take_failed(&mut self, ids: Vec<u64>, failure: &Failure) -> Vec<Failed> {
        ids.into_iter()
            .filter_map(|id| self.remove(id))
            .map(|watcher| Failed { watcher, failure: failure.clone() })
            .collect()
    }
}

/// A watcher that is no longer in its namespace, and what it is to be answered.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) watcher: Watcher,
    pub(super) failure: Failure,
}
