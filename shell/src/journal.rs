//! Eventlogs of the job in its guest namespace of the KVS.
//!
//! Events of all logs go into one transaction that is committed when the most impatient of them
//! has waited long enough, so that a short job costs a single commit.

use std::collections::BTreeMap;
use std::time::Duration;

use flux_client::{Client, RpcError};
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

pub(crate) struct Journal {
    flux: Client,
    namespace: String,
    /// Text to append to each log.
    pending: BTreeMap<&'static str, String>,
    pending_bytes: usize,
    deadline: Option<Instant>,
    /// Bytes of commits that are not yet answered.
    in_flight: usize,
    commits: usize,
    done: mpsc::UnboundedSender<Committed>,
    answers: mpsc::UnboundedReceiver<Committed>,
}

/// The answer to a commit.
#[derive(Debug)]
pub(crate) struct Committed {
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
        if self.pending.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.pending_bytes);
        let ops = std::mem::take(&mut self.pending).into_iter().map(|(key, text)| kvs::Op {
            key: key.to_owned(),
            flags: kvs::OP_APPEND,
            dirent: Some(Treeobj::val(text.as_bytes())),
        });
        let request =
            kvs::CommitRequest { namespace: self.namespace.clone(), flags: 0, ops: ops.collect() };
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
            let _ = done.send(Committed { bytes, result });
        });
    }

    /// Commit what is pending, and wait until all commits are answered.
    pub(crate) async fn sync(&mut self) {
        self.flush();
        while self.commits > 0 {
            let committed = self.answer().await;
            self.committed(committed);
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
        self.in_flight -= committed.bytes;
        if let Err(e) = committed.result {
            crate::log::say(format_args!("failed to commit to the job's eventlogs: {e}"));
        }
    }

    /// When [`Journal::flush`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.commits == 0 && self.pending.is_empty()
    }

    /// Whether the KVS keeps up.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight < IN_FLIGHT_HIGH
    }
}
