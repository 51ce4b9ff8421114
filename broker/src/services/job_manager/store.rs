//! Eventlogs in the KVS.
//!
//! One commit is under way at a time; what is appended meanwhile goes into the next, and what
//! nobody waits for gathers until a moment after the last one. So a single job waits for nobody,
//! and a flood of jobs shares commits: each of them writes the directory of all these jobs anew.
//!
//! When a commit does not get onto the disk, the KVS may have it all the same, and then it is on
//! the disk with the next one that gets there. A KVS that has no room for it does not take it: then
//! it is tried again, with what has come meanwhile behind it. Until then no job is taken.

use std::time::{Duration, Instant};

use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::kvs;
use flux_protocol::treeobj::Treeobj;

use super::{Context, JobManager};
use crate::log::Severity;

/// How long after a commit that failed the next one is tried, if nothing happens before.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// From the start of a commit to that of the next, if nobody waits for it.
const GATHER_TIME: Duration = Duration::from_millis(2);

/// Runs when what was appended before it is durable, or has failed.
type After = Box<dyn FnOnce(&mut JobManager, &Context, &Result<(), Failure>)>;

/// Changes that are not committed yet.
#[derive(Default)]
pub struct Store {
    batch: Batch,
    committing: bool,
    /// When the last commit began.
    last_commit: Option<Instant>,
    /// One is to begin at its time.
    gathering: bool,
    commits: u64,
    /// Somebody said where the state is to be: every commit is on the disk before it is answered,
    /// so that a crash takes back nothing that somebody may have seen. It is so also where the
    /// state is below a place like /tmp, and goes with the instance: when that place is full, who
    /// submits hears of it.
    durable: bool,
    /// Why the last commit failed.
    trouble: Option<Failure>,
}

#[derive(Default)]
struct Batch {
    ops: Vec<kvs::Op>,
    /// Where in `ops` the last append to an eventlog is, with its text, so that several events of
    /// a job make one operation.
    last: Option<(JobId, String)>,
    after: Vec<After>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("ops", &self.batch.ops.len()).finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn new(context: &Context) -> Store {
        let attrs = context.broker().attrs();
        let durable = attrs.kept_statedir().is_some() || attrs.is_given("statedir");
        Store { durable, ..Store::default() }
    }

    /// Number of commits so far.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Nothing can be stored at present, for this reason.
    pub(super) fn trouble(&self) -> Option<&Failure> {
        self.trouble.as_ref()
    }

    /// Append an event to a job's eventlog.
    pub(super) fn append(&mut self, context: &Context, id: JobId, event: &Event) {
        let line = match event.encode() {
            Ok(line) => line,
            Err(error) => {
                context.log(Severity::Err, format!("{} event of {id}: {error}", event.name));
                return;
            }
        };
        match &mut self.batch.last {
            Some((last, text)) if *last == id => text.push_str(&line),
            _ => {
                self.batch.flush_last();
                self.batch.last = Some((id, line));
            }
        }
        self.commit_later(context);
    }

    /// Put a value below a job's directory.
    pub(super) fn put(&mut self, context: &Context, id: JobId, key: &str, text: &str) {
        self.push(
            context,
            kvs::Op {
                key: format!("{}.{key}", id.kvs()),
                flags: 0,
                dirent: Some(Treeobj::val(text.as_bytes())),
            },
        );
    }

    /// Any other change.
    pub(super) fn push(&mut self, context: &Context, op: kvs::Op) {
        self.batch.flush_last();
        self.batch.ops.push(op);
        self.commit_later(context);
    }

    /// Run `after` when everything up to now is committed.
    pub(super) fn then(
        &mut self,
        context: &Context,
        after: impl FnOnce(&mut JobManager, &Context, &Result<(), Failure>) + 'static,
    ) {
        self.batch.after.push(Box::new(after));
        self.commit_later(context);
    }

    /// Run `after` with the next try, for what has heard of a failure.
    pub(super) fn then_next_time(
        &mut self,
        after: impl FnOnce(&mut JobManager, &Context, &Result<(), Failure>) + 'static,
    ) {
        self.batch.after.push(Box::new(after));
    }

    /// In a later turn, so that what the same turn appends is in the same commit.
    fn commit_later(&mut self, context: &Context) {
        if self.committing {
            return;
        }
        let left = self
            .last_commit
            .map_or(Duration::ZERO, |began| GATHER_TIME.saturating_sub(began.elapsed()));
        if left.is_zero() || !self.batch.after.is_empty() {
            self.committing = true;
            let after = context.clone();
            context.later(move |manager: &mut JobManager| manager.store.commit(&after));
        } else if !self.gathering {
            self.gathering = true;
            let after = context.clone();
            context.spawn(tokio::time::sleep(left), move |manager: &mut JobManager, ()| {
                manager.store.gathering = false;
                if !manager.store.batch.is_empty() {
                    manager.store.commit_later(&after);
                }
            });
        }
    }

    fn commit(&mut self, context: &Context) {
        let Batch { ops, after, .. } = self.take();
        let handle = context.handle().clone();
        // The commit that failed is on the disk once another one is, an empty one too.
        let sync = self.durable && (!ops.is_empty() || self.trouble.is_some());
        self.commits += 1;
        self.last_commit = Some(Instant::now());
        let again = context.clone();
        context.spawn(
            async move {
                // Two requests, which the KVS serves together: so it is known which one failed.
                let commit = commit_request(ops, false);
                let taken = async {
                    match commit.ops.is_empty() {
                        true => Ok(()),
                        false => handle.rpc::<kvs::Commit>(&commit).await.map(|_| ()),
                    }
                };
                let synced = async {
                    match sync {
                        true => {
                            let request = commit_request(Vec::new(), true);
                            handle.rpc::<kvs::Commit>(&request).await.map(|_| ())
                        }
                        false => Ok(()),
                    }
                };
                let (taken, synced) = tokio::join!(taken, synced);
                match taken {
                    Ok(()) => (Vec::new(), synced),
                    Err(failure) if is_hopeless(&failure) => (Vec::new(), Err(failure)),
                    Err(failure) => (commit.ops, Err(failure)),
                }
            },
            move |manager: &mut JobManager, (left, result): (Vec<kvs::Op>, Result<(), Failure>)| {
                manager.store.committing = false;
                manager.store.batch.ops.splice(0..0, left);
                manager.store.heed(&again, &result);
                for after in after {
                    after(manager, &again, &result);
                }
                // After a failure, the next try is at its time.
                if !manager.store.batch.is_empty() && result.is_ok() {
                    manager.store.commit_later(&again);
                }
            },
        );
    }

    /// Say once that nothing can be stored, and once that it can be again.
    fn heed(&mut self, context: &Context, result: &Result<(), Failure>) {
        match result {
            Ok(()) if self.trouble.take().is_some() => {
                context.log(Severity::Notice, "events are stored again, jobs are taken again");
            }
            Ok(()) => {}
            Err(failure) => {
                if self.trouble.is_none() {
                    let text = format!("could not store events, no job is taken: {failure}");
                    context.log(Severity::Err, text);
                }
                self.trouble = Some(failure.clone());
                let again = context.clone();
                context.spawn(tokio::time::sleep(RETRY_DELAY), move |manager, ()| {
                    let manager: &mut JobManager = manager;
                    if manager.store.trouble.is_some() {
                        manager.store.commit_later(&again);
                    }
                });
            }
        }
    }

    fn take(&mut self) -> Batch {
        self.batch.flush_last();
        std::mem::take(&mut self.batch)
    }

    /// Commit what is left, and wait.
    pub(super) async fn finish(&mut self, context: &Context) {
        let Batch { ops, .. } = self.take();
        if ops.is_empty() {
            return;
        }
        let request = commit_request(ops, true);
        if let Err(failure) = context.handle().rpc::<kvs::Commit>(&request).await {
            context.log(Severity::Err, format!("could not store the last events: {failure}"));
        }
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.last.is_none() && self.after.is_empty()
    }

    fn flush_last(&mut self) {
        if let Some((id, text)) = self.last.take() {
            self.ops.push(kvs::Op {
                key: format!("{}.eventlog", id.kvs()),
                flags: kvs::OP_APPEND,
                dirent: Some(Treeobj::val(text.as_bytes())),
            });
        }
    }
}

/// The KVS will never take it, whatever room there is.
fn is_hopeless(failure: &Failure) -> bool {
    use flux_protocol::errno::Errno;
    let never = [
        Errno::EINVAL,
        Errno::ENOTDIR,
        Errno::EISDIR,
        Errno::ENOENT,
        Errno::EPERM,
        Errno::EPROTO,
        Errno::EFBIG,
        Errno::ENOTSUP,
    ];
    never.contains(&failure.errno)
}

fn commit_request(ops: Vec<kvs::Op>, sync: bool) -> kvs::CommitRequest {
    let flags = if sync { kvs::commit::SYNC } else { 0 };
    kvs::CommitRequest { namespace: kvs::PRIMARY.to_owned(), flags, ops }
}
