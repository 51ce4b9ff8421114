//! Eventlogs of the job in its guest namespace of the KVS.
//!
//! Events of all logs go into one transaction that is committed when the most impatient of them
//! has waited long enough, so that a short job costs a single commit.
//!
//! When there is no room for a transaction it is tried again, with those that came after it and in
//! their order, until there is; meanwhile no more output than usual is taken from the tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::kvs;
use flux_protocol::treeobj::Treeobj;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock;

/// The logs that a shell writes, by their keys.
pub(crate) const OUTPUT: &str = "output";
pub(crate) const INPUT: &str = "input";
pub(crate) const EXEC: &str = "exec.eventlog";

/// A transaction is committed when it has come to this size, however young it is.
const BATCH_BYTES: usize = 512 << 10;
/// Bytes on their way to the KVS from which on no more output is taken from the tasks.
const IN_FLIGHT_HIGH: usize = 8 << 20;
/// How long after a commit for which there was no room the next one is tried.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What is to be appended, by the key of the log.
type Texts = BTreeMap<&'static str, String>;

pub(crate) struct Journal {
    flux: Client,
    namespace: String,
    /// Text to append to each log.
    pending: Texts,
    pending_bytes: usize,
    deadline: Option<Instant>,
    /// Bytes of commits that are not yet answered, or that have failed while others are not.
    in_flight: usize,
    commits: usize,
    /// Number of the next commit.
    next: u64,
    /// Commits for which there was no room, by number, until all that were sent are answered.
    failed: BTreeMap<u64, Texts>,
    /// After such commits, when the next one may be sent.
    retry_at: Option<Instant>,
    done: mpsc::UnboundedSender<Committed>,
    answers: mpsc::UnboundedReceiver<Committed>,
}

/// The answer to a commit.
#[derive(Debug)]
pub(crate) struct Committed {
    number: u64,
    texts: Texts,
    bytes: usize,
    result: Result<(), RpcError>,
}

// === impl Journal ===

impl Journal {
    pub(crate) fn new(flux: Client, namespace: &str) -> Journal {
        let (done, answers) = mpsc::unbounded_channel();
        Journal {
            flux,
            namespace: namespace.to_owned(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            deadline: None,
            in_flight: 0,
            commits: 0,
            next: 0,
            failed: BTreeMap::new(),
            retry_at: None,
            done,
            answers,
        }
    }

    /// Append an event to a log; it may wait for others as long as `patience`.
    pub(crate) fn append<T: Serialize + ?Sized>(
        &mut self,
        log: &'static str,
        name: &str,
        context: &T,
        patience: Duration,
    ) {
        self.append_at(clock::now(), log, name, context, patience);
    }

    /// [`Journal::append`] for an event that happened at `timestamp`.
    pub(crate) fn append_at<T: Serialize + ?Sized>(
        &mut self,
        timestamp: f64,
        log: &'static str,
        name: &str,
        context: &T,
        patience: Duration,
    ) {
        let event = Event::new(timestamp, name).with_context(context);
        match event.and_then(|event| event.encode()) {
            Ok(line) => {
                self.pending_bytes += line.len();
                self.pending.entry(log).or_default().push_str(&line);
                let latest = Instant::now() + patience;
                self.deadline = Some(self.deadline.map_or(latest, |deadline| deadline.min(latest)));
            }
            // Contexts are the shell's own structs, or objects that were JSON before.
            Err(e) => crate::log::say(format_args!("{name} event: {e}")),
        }
        if self.pending_bytes >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Commit what is pending, and don't wait.
    pub(crate) fn flush(&mut self) {
        self.deadline = None;
        if self.pending.is_empty() || !self.failed.is_empty() {
            return;
        }
        if let Some(at) = self.retry_at.filter(|at| Instant::now() < *at) {
            self.deadline = Some(at);
            return;
        }
        self.retry_at = None;
        let bytes = std::mem::take(&mut self.pending_bytes);
        let texts = std::mem::take(&mut self.pending);
        let ops = texts.iter().map(|(key, text)| kvs::Op {
            key: (*key).to_owned(),
            flags: kvs::OP_APPEND,
            dirent: Some(Treeobj::val(text.as_bytes())),
        });
        let request =
            kvs::CommitRequest { namespace: self.namespace.clone(), flags: 0, ops: ops.collect() };
        let number = self.next;
        self.next += 1;
        let pending = self.flux.start::<kvs::Commit>(Nodeid::ANY, &request);
        self.in_flight += bytes;
        self.commits += 1;
        let done = self.done.clone();
        tokio::spawn(async move {
            let result = match pending {
                Ok(pending) => pending.await.map(drop),
                Err(e) => Err(e),
            };
            // Nobody listens any more when the shell ends.
            let _ = done.send(Committed { number, texts, bytes, result });
        });
    }

    /// Commit what is pending, and wait until there has been room for all of it.
    pub(crate) async fn sync(&mut self) {
        loop {
            if let Some(at) = self.retry_at {
                tokio::time::sleep_until(at).await;
            }
            self.flush();
            while self.commits > 0 {
                let committed = self.answer().await;
                self.committed(committed);
            }
            if self.is_idle() {
                return;
            }
        }
    }

    /// The next answer to a commit; to be given to [`Journal::committed`].
    pub(crate) async fn answer(&mut self) -> Committed {
        match self.answers.recv().await {
            Some(committed) => committed,
            // This holds a sender itself.
            None => std::future::pending().await,
        }
    }

    pub(crate) fn committed(&mut self, committed: Committed) {
        self.commits -= 1;
        match committed.result {
            Err(RpcError::Refused { errno: Errno::ENOSPC, .. }) => {
                self.failed.insert(committed.number, committed.texts);
            }
            result => {
                self.in_flight -= committed.bytes;
                if let Err(e) = result {
                    crate::log::say(format_args!("failed to commit to the job's eventlogs: {e}"));
                }
            }
        }
        if self.commits == 0 && !self.failed.is_empty() {
            self.put_back();
        }
    }

    /// What has failed is to be committed again, before what has come since.
    fn put_back(&mut self) {
        let later = std::mem::take(&mut self.pending);
        for texts in std::mem::take(&mut self.failed).into_values().chain([later]) {
            for (key, text) in texts {
                self.pending.entry(key).or_default().push_str(&text);
            }
        }
        self.pending_bytes += std::mem::take(&mut self.in_flight);
        let at = Instant::now() + RETRY_DELAY;
        (self.retry_at, self.deadline) = (Some(at), Some(at));
    }

    /// When [`Journal::flush`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.commits == 0 && self.pending.is_empty() && self.failed.is_empty()
    }

    /// Whether the KVS keeps up.
    pub(crate) fn has_room(&self) -> bool {
        let held = if self.retry_at.is_some() { self.pending_bytes } else { 0 };
        self.in_flight + held < IN_FLIGHT_HIGH
    }
}
