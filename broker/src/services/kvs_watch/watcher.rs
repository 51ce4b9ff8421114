//! One watcher: a task that looks up the roots it is told, and answers what changed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use flux_protocol::blobref::Blobref;
use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::kvs_key;
use flux_protocol::message::{Flags, Matchtag, Nodeid};
use flux_protocol::payload::Raw;
use flux_protocol::rpc::kvs::lookup::{
    FULL, SENTINEL, STREAM, TREEOBJ, UNIQ, WAITCREATE, WATCH, WATCH_APPEND,
};
use flux_protocol::rpc::kvs::{LookupPlus, LookupPlusResponse, LookupRequest, LookupResponse};
use flux_protocol::rpc::{content, kvs_watch as rpc};
use flux_protocol::treeobj::Treeobj;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::call::{Call, Sender};
use crate::handle::Handle;

/// What a watcher is told.
#[derive(Debug)]
pub(super) enum News {
    /// The namespace is known: look up its current root.
    Begin,
    /// The value may have changed with this root.
    Root { seq: i64, rootref: Rc<str> },
}

/// The service's end. Dropped, the task ends.
#[derive(Debug)]
pub(super) struct Watcher {
    id: u64,
    /// Normalized, as events name it.
    key: Rc<str>,
    flags: u32,
    sender: Sender,
    matchtag: Matchtag,
    answers: Rc<Answers>,
    news: UnboundedSender<News>,
}

/// The call, which either end may finish.
#[derive(Debug)]
pub(super) struct Answers {
    call: RefCell<Option<Call<LookupResponse>>>,
    responded: Cell<bool>,
}

// === impl Answers ===

impl Answers {
    fn send(&self, val: Treeobj) {
        if let Some(call) = &*self.call.borrow() {
            call.send(&LookupResponse { val });
            self.responded.set(true);
        }
    }

    /// The one answer of a request that is no stream.
    fn reply(&self, val: Treeobj) {
        if let Some(call) = self.call.take() {
            call.reply(&LookupResponse { val });
        }
    }

    fn send_sentinel(&self) {
        if let Some(call) = &*self.call.borrow() {
            call.send_raw(None);
        }
    }

    fn fail(&self, failure: impl Into<Failure>) {
        if let Some(call) = self.call.take() {
            call.fail(failure);
        }
    }

    fn is_finished(&self) -> bool {
        self.call.borrow().is_none()
    }
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn new(
        id: u64,
        request: &rpc::LookupRequest,
        call: Call<LookupResponse>,
    ) -> (Watcher, UnboundedReceiver<News>) {
        let (news, told) = unbounded_channel();
        let watcher = Watcher {
            id,
            key: kvs_key::normalize(&request.key).into(),
            flags: request.flags,
            sender: call.sender(),
            matchtag: call.matchtag(),
            answers: Rc::new(Answers {
                call: RefCell::new(Some(call)),
                responded: Cell::new(false),
            }),
            news,
        };
        (watcher, told)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn key(&self) -> Rc<str> {
        self.key.clone()
    }

    pub(super) fn sender(&self) -> &Sender {
        &self.sender
    }

    pub(super) fn matchtag(&self) -> Matchtag {
        self.matchtag
    }

    pub(super) fn cred(&self) -> Credential {
        self.sender.cred
    }

    pub(super) fn answers(&self) -> Rc<Answers> {
        self.answers.clone()
    }

    pub(super) fn is_full(&self) -> bool {
        self.flags & FULL != 0
    }

    pub(super) fn waits_for_creation(&self) -> bool {
        self.flags & WAITCREATE != 0 && !self.answers.responded.get()
    }

    pub(super) fn tell(&self, news: News) {
        // The task may have ended a moment ago.
        let _ = self.news.send(news);
    }

    /// Answer with an error, at once.
    pub(super) fn fail(self, failure: &Failure) {
        self.answers.fail(failure.clone());
    }

    /// Nobody is there to be answered.
    pub(super) fn forget(self) {
        if let Some(call) = self.answers.call.take() {
            call.into_request();
        }
    }
}

/// The task of a watcher.
pub(super) struct Task {
    pub(super) handle: Handle,
    pub(super) answers: Rc<Answers>,
    pub(super) request: rpc::LookupRequest,
    pub(super) cred: Credential,
    pub(super) news: UnboundedReceiver<News>,
    pub(super) progress: Progress,
}

/// What has been answered so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Older roots are no news.
    seq: i64,
    /// The value before, where only other ones are answered.
    previous: Option<Treeobj>,
    /// Number of blobs of an appended value.
    index: Option<usize>,
}

/// The lookup is over; what there was to answer has been answered.
struct Over;

// === impl Task ===

impl Task {
    pub(super) async fn run(mut self) {
        while let Some(news) = self.news.recv().await {
            let news = self.newest(news);
            if self.answers.is_finished() || self.look_up(news).await.is_err() {
                return;
            }
        }
    }

    /// Of an appended value, only what it is in the end matters.
    fn newest(&mut self, mut news: News) -> News {
        if self.wants(WATCH_APPEND) && matches!(news, News::Root { .. }) {
            while let Ok(newer) = self.news.try_recv() {
                news = newer;
            }
        }
        news
    }

    fn wants(&self, flags: u32) -> bool {
        self.request.flags & flags != 0
    }

    async fn look_up(&mut self, news: News) -> Result<(), Over> {
        let initial = matches!(news, News::Begin);
        if let News::Root { seq, .. } = &news
            && *seq <= self.progress.seq
        {
            return Ok(());
        }
        let lookup = self.lookup_request(news);
        let found = self.handle.rpc_as::<LookupPlus>(self.cred, &lookup).await;
        let LookupPlusResponse { val, errno, rootseq, .. } = match found {
            Ok(found) => found,
            Err(failure) => return self.fail(failure.errno),
        };
        self.progress.seq = self.progress.seq.max(rootseq);
        match val {
            None if initial && self.wants(WAITCREATE) => {
                self.sentinel();
                Ok(())
            }
            None => self.fail(Errno(errno.unwrap_or(Errno::ENOENT.0))),
            Some(val) => self.found(val, initial).await,
        }
    }

    fn lookup_request(&self, news: News) -> LookupRequest {
        let mut flags = self.request.flags;
        if self.wants(WATCH_APPEND | STREAM) {
            flags |= TREEOBJ;
        }
        let key = self.request.key.clone();
        let namespace = self.request.namespace.clone();
        match news {
            News::Begin => LookupRequest {
                key,
                namespace: Some(namespace),
                flags,
                rootdir: None,
                rootseq: None,
            },
            News::Root { seq, rootref } => {
                let rootdir = rootref.parse::<Blobref>().ok().map(Treeobj::dirref);
                LookupRequest { key, namespace: None, flags, rootdir, rootseq: Some(seq) }
            }
        }
    }

    async fn found(&mut self, val: Treeobj, initial: bool) -> Result<(), Over> {
        if self.wants(WATCH_APPEND | STREAM) {
            self.appended(val).await?;
            if initial {
                self.sentinel();
            }
            return if self.wants(STREAM) { self.fail(Errno::ENODATA) } else { Ok(()) };
        }
        if !self.wants(WATCH) {
            self.answers.reply(val);
            return Err(Over);
        }
        if self.wants(FULL | UNIQ) {
            if self.progress.previous.as_ref() == Some(&val) {
                return Ok(());
            }
            self.progress.previous = Some(val.clone());
        }
        self.answers.send(val);
        Ok(())
    }

    /// Answer what a value has more than before.
    async fn appended(&mut self, val: Treeobj) -> Result<(), Over> {
        match (val, self.progress.index) {
            (val @ Treeobj::Val(_), None) => {
                self.progress.index = Some(1);
                self.answers.send(val);
                Ok(())
            }
            (Treeobj::Valref(refs), index) => {
                let from = index.unwrap_or(0);
                if refs.len() < from {
                    let text = "key watched with WATCH_APPEND shortened";
                    return self.fail(Failure::new(Errno::EINVAL, text));
                }
                self.progress.index = Some(refs.len());
                self.send_blobs(refs.get(from..).unwrap_or_default()).await
            }
            (_, Some(_)) => {
                let text = "value of key watched with WATCH_APPEND overwritten";
                self.fail(Failure::new(Errno::EINVAL, text))
            }
            (other, None) => {
                let how = if self.wants(WATCH_APPEND) {
                    "cannot be watched with WATCH_APPEND"
                } else {
                    "cannot be streamed"
                };
                let errno = match other {
                    Treeobj::Dir(_) | Treeobj::Dirref(_) => Errno::EISDIR,
                    _ => Errno::EINVAL,
                };
                self.fail(Failure::new(errno, format!("{} {how}", other.type_name())))
            }
        }
    }

    /// All are on their way at once, and are answered in order.
    async fn send_blobs(&mut self, refs: &[Blobref]) -> Result<(), Over> {
        let sent: Result<Vec<_>, Failure> = refs
            .iter()
            .map(|blobref| {
                let digest = Raw(blobref.digest().to_vec().into());
                self.handle.send::<content::Load>(Nodeid::ANY, Flags::default(), &digest)
            })
            .collect();
        let sent = match sent {
            Ok(sent) => sent,
            Err(failure) => return self.fail(failure),
        };
        for mut response in sent {
            match response.next().await {
                Ok(Raw(data)) => self.answers.send(Treeobj::val(&data)),
                Err(failure) => {
                    let text = "failed to load content data";
                    return self.fail(Failure::new(failure.errno, text));
                }
            }
        }
        Ok(())
    }

    fn sentinel(&self) {
        if self.wants(SENTINEL) {
            self.answers.send_sentinel();
        }
    }

    fn fail(&self, failure: impl Into<Failure>) -> Result<(), Over> {
        self.answers.fail(failure);
        Err(Over)
    }
}
