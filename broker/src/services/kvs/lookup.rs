//! Looking up keys, on any rank.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::kvs_key;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::Raw;
use flux_protocol::rpc::kvs::lookup::{READDIR, READLINK, TREEOBJ};
use flux_protocol::rpc::{content, kvs as rpc};
use flux_protocol::treeobj::Treeobj;

use super::Kvs;
use super::dir::{Entry, encode_blobref};
use super::walk::{Outcome, Walk};
use crate::call::Call;
use crate::context::Context;

/// A lookup in progress.
#[derive(Debug)]
struct Lookup {
    call: Answer,
    cred: Credential,
    flags: u32,
    /// Whose current root it began at, unless the caller gave a root.
    namespace: Option<String>,
    rootref: Blobref,
    rootseq: i64,
    /// The root itself is looked up.
    is_root: bool,
    walk: Walk,
    /// It has waited; the namespace may have gone since.
    waited: bool,
}

#[derive(Debug)]
enum Answer {
    Plain(Call<rpc::LookupResponse>),
    /// With the root, and without an error when there is no such key.
    Plus(Call<rpc::LookupPlusResponse>),
}

/// What has to be fetched before a lookup can go on.
enum Wanted {
    Dir(Blobref),
    Value(Vec<Blobref>),
    Namespace(String),
}

enum Found {
    /// JSON of a tree object.
    Json(Vec<u8>),
    Absent,
    Not(Wanted),
}

// === impl Answer ===

impl Answer {
    fn cred(&self) -> Credential {
        match self {
            Answer::Plain(call) => call.cred(),
            Answer::Plus(call) => call.cred(),
        }
    }

    fn fail(self, failure: impl Into<Failure>) {
        match self {
            Answer::Plain(call) => call.fail(failure),
            Answer::Plus(call) => call.fail(failure),
        }
    }
}

// === impl Kvs ===

impl Kvs {
    pub(super) fn lookup(
        &mut self,
        context: &Context<Self>,
        request: rpc::LookupRequest,
        call: Call<rpc::LookupResponse>,
    ) {
        self.begin_lookup(context, request, Answer::Plain(call));
    }

    pub(super) fn lookup_plus(
        &mut self,
        context: &Context<Self>,
        request: rpc::LookupRequest,
        call: Call<rpc::LookupPlusResponse>,
    ) {
        self.begin_lookup(context, request, Answer::Plus(call));
    }

    fn begin_lookup(&mut self, context: &Context<Self>, request: rpc::LookupRequest, call: Answer) {
        if request.key.is_empty() {
            return call.fail(Errno::EINVAL);
        }
        if let Some(rootdir) = &request.rootdir {
            return match rootdir {
                Treeobj::Dirref(refs) => {
                    let rootref = refs.first().copied();
                    self.lookup_at(context, &request, call, rootref, request.rootseq.unwrap_or(0));
                }
                _ => call.fail(Errno::EINVAL),
            };
        }
        let Some(namespace) = request.namespace.clone() else {
            return call.fail(Errno::EPROTO);
        };
        let cred = call.cred();
        self.with_root(context, &namespace, cred, move |kvs, context, result| match result {
            Ok(()) => {
                let root = kvs.roots.get(request.namespace.as_deref().unwrap_or_default());
                let (rootref, seq) = root.map_or((None, 0), |root| (Some(root.rootref), root.seq));
                kvs.lookup_at(context, &request, call, rootref, seq);
            }
            Err(failure) => call.fail(failure),
        });
    }

    fn lookup_at(
        &mut self,
        context: &Context<Self>,
        request: &rpc::LookupRequest,
        call: Answer,
        rootref: Option<Blobref>,
        rootseq: i64,
    ) {
        let Some(rootref) = rootref else { return call.fail(Errno::ENOTSUP) };
        let by_namespace = request.rootdir.is_none();
        let lookup = Lookup {
            cred: call.cred(),
            call,
            flags: request.flags,
            namespace: request.namespace.clone().filter(|_| by_namespace),
            rootref,
            rootseq,
            is_root: kvs_key::names(&request.key).next().is_none(),
            walk: Walk::new(rootref, &request.key, request.flags),
            waited: false,
        };
        self.continue_lookup(context, lookup);
    }

    fn continue_lookup(&mut self, context: &Context<Self>, mut lookup: Lookup) {
        let result = self.still_allowed(&lookup).and_then(|()| self.find(&mut lookup));
        match result {
            Ok(Found::Json(json)) => respond(lookup, Some(&json)),
            Ok(Found::Absent) => respond(lookup, None),
            Ok(Found::Not(wanted)) => self.fetch(context, lookup, wanted),
            Err(errno) => lookup.call.fail(errno),
        }
    }

    fn still_allowed(&self, lookup: &Lookup) -> Result<(), Errno> {
        match &lookup.namespace {
            Some(namespace) if lookup.waited => {
                self.roots.get(namespace).ok_or(Errno::ENOTSUP)?.check_user(lookup.cred)
            }
            _ => Ok(()),
        }
    }

    fn find(&mut self, lookup: &mut Lookup) -> Result<Found, Errno> {
        let Kvs { blobs, roots, .. } = self;
        let cred = lookup.cred;
        let namespaces = |name: &str| match roots.get(name) {
            Some(root) => root.check_user(cred).map(|()| Some(root.rootref)),
            None => Ok(None),
        };
        match lookup.walk.proceed(blobs, &namespaces)? {
            Outcome::Found(entry) => self.value(lookup, &entry),
            Outcome::Absent => Ok(Found::Absent),
            Outcome::Missing(blobref) => Ok(Found::Not(Wanted::Dir(blobref))),
            Outcome::Namespace(name) => Ok(Found::Not(Wanted::Namespace(name))),
        }
    }

    /// What is answered for an entry, or why it is not what the flags ask for.
    fn value(&mut self, lookup: &Lookup, entry: &Entry) -> Result<Found, Errno> {
        let wants = |flag| lookup.flags & flag != 0;
        let json = |entry: &Entry| {
            let mut json = Vec::new();
            entry.encode(&mut json);
            Ok(Found::Json(json))
        };
        if wants(TREEOBJ) {
            return json(entry);
        }
        match entry {
            Entry::Symlink(_) if wants(READDIR) => Err(Errno::ENOTDIR),
            Entry::Symlink(_) => json(entry),
            _ if wants(READLINK) && !lookup.is_root => Err(Errno::EINVAL),
            Entry::Dirref(_) | Entry::Open(_) if !wants(READDIR) => Err(Errno::EISDIR),
            Entry::Open(_) => json(entry),
            Entry::Dirref(blobref) => {
                let blame = if lookup.is_root { Errno::EINVAL } else { Errno::ENOTRECOVERABLE };
                match self.blobs.dir(blobref).map_err(|_| blame)? {
                    Some(dir) => {
                        let mut json = Vec::new();
                        dir.encode(&mut json);
                        Ok(Found::Json(json))
                    }
                    None => Ok(Found::Not(Wanted::Dir(*blobref))),
                }
            }
            Entry::Val(_) | Entry::Valref(_) if wants(READDIR) => Err(Errno::ENOTDIR),
            Entry::Val(_) => json(entry),
            Entry::Valref(refs) => {
                let parts: Option<Vec<Bytes>> = refs.iter().map(|r| self.blobs.raw(r)).collect();
                match parts {
                    Some(parts) => Ok(Found::Json(encode_val(&parts))),
                    None => Ok(Found::Not(Wanted::Value(refs.to_vec()))),
                }
            }
        }
    }

    fn fetch(&mut self, context: &Context<Self>, mut lookup: Lookup, wanted: Wanted) {
        lookup.waited = true;
        self.pending += 1;
        match wanted {
            Wanted::Namespace(name) => {
                let cred = lookup.cred;
                self.with_root(context, &name, cred, move |kvs, context, result| {
                    kvs.pending -= 1;
                    match result {
                        Ok(()) => kvs.continue_lookup(context, lookup),
                        Err(failure) => lookup.call.fail(failure),
                    }
                });
            }
            Wanted::Dir(blobref) => {
                self.faults += 1;
                let load = load_all(context, vec![(blobref, None)]);
                let then = context.clone();
                context.spawn(load, move |kvs, result| {
                    kvs.pending -= 1;
                    match result {
                        Ok(parts) => {
                            for data in parts {
                                kvs.blobs.insert_raw(blobref, data);
                            }
                            kvs.continue_lookup(&then, lookup);
                        }
                        Err(failure) => lookup.call.fail(failure.errno),
                    }
                });
            }
            Wanted::Value(refs) => self.fetch_value(context, lookup, refs),
        }
    }

    fn fetch_value(&mut self, context: &Context<Self>, lookup: Lookup, refs: Vec<Blobref>) {
        let parts: Vec<(Blobref, Option<Bytes>)> =
            refs.iter().map(|blobref| (*blobref, self.blobs.raw(blobref))).collect();
        self.faults += parts.iter().filter(|(_, here)| here.is_none()).count() as u64;
        context.spawn(load_all(context, parts), move |kvs, result| {
            kvs.pending -= 1;
            let parts = match result {
                Ok(parts) => parts,
                Err(failure) => return lookup.call.fail(failure.errno),
            };
            if let Err(errno) = kvs.still_allowed(&lookup) {
                return lookup.call.fail(errno);
            }
            let json = encode_val(&parts);
            for (blobref, data) in refs.into_iter().zip(parts) {
                kvs.blobs.insert_raw(blobref, data);
            }
            respond(lookup, Some(&json));
        });
    }
}

/// The blobs, of which some are here already; all requests are on their way at once.
fn load_all(
    context: &Context<Kvs>,
    parts: Vec<(Blobref, Option<Bytes>)>,
) -> impl Future<Output = Result<Vec<Bytes>, Failure>> + 'static {
    let handle = context.handle().clone();
    let sent: Result<Vec<_>, Failure> = parts
        .into_iter()
        .map(|(blobref, here)| match here {
            Some(data) => Ok((Some(data), None)),
            None => {
                let digest = Raw(blobref.digest().to_vec().into());
                let sent = handle.send::<content::Load>(Nodeid::ANY, Flags::default(), &digest)?;
                Ok((None, Some(sent)))
            }
        })
        .collect();
    async move {
        let mut parts = Vec::new();
        for (here, sent) in sent? {
            match (here, sent) {
                (Some(data), _) => parts.push(data),
                (None, Some(mut response)) => parts.push(response.next().await?.0),
                (None, None) => {}
            }
        }
        Ok(parts)
    }
}

fn encode_val(parts: &[Bytes]) -> Vec<u8> {
    let joined;
    let data: &[u8] = match parts {
        [only] => only,
        parts => {
            joined = parts.concat();
            &joined
        }
    };
    let mut json = Vec::with_capacity(data.len() / 3 * 4 + 48);
    json.extend_from_slice(b"{\"data\":\"");
    json.extend_from_slice(STANDARD.encode(data).as_bytes());
    json.extend_from_slice(b"\",\"type\":\"val\",\"ver\":1}");
    json
}

/// Answer with what was found, if anything.
fn respond(lookup: Lookup, object: Option<&[u8]>) {
    let mut payload = Vec::with_capacity(object.map_or(0, <[u8]>::len) + 128);
    payload.push(b'{');
    if let Some(object) = object {
        payload.extend_from_slice(b"\"val\":");
        payload.extend_from_slice(object);
    }
    match (lookup.call, object) {
        (Answer::Plain(call), None) => call.fail(Errno::ENOENT),
        (Answer::Plain(call), Some(_)) => {
            payload.extend_from_slice(b"}\0");
            call.reply_raw(Some(payload.into()));
        }
        (Answer::Plus(call), object) => {
            if object.is_none() {
                payload.extend_from_slice(format!("\"errno\":{}", Errno::ENOENT.0).as_bytes());
            }
            payload.extend_from_slice(format!(",\"rootseq\":{}", lookup.rootseq).as_bytes());
            payload.extend_from_slice(b",\"rootref\":\"");
            encode_blobref(&lookup.rootref, &mut payload);
            payload.extend_from_slice(b"\"}\0");
            call.reply_raw(Some(payload.into()));
        }
    }
}
