//! The namespace of a job in the KVS, from its creation until it moves to the primary one.

use std::time::{Duration, SystemTime};

use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::kvs::{self, commit::LAZY};
use flux_protocol::treeobj::Treeobj;
use serde_json::{Value, json};

use super::Context;
use crate::handle::Handle;
use crate::log::Severity;

/// After a commit for which there was no room.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A namespace that exists.
#[derive(Debug)]
pub(super) struct Guest {
    id: JobId,
    namespace: String,
}

/// `job-ID`, with the id in decimal.
pub(super) fn namespace(id: JobId) -> String {
    format!("job-{}", id.0)
}

impl Guest {
    /// Make the namespace.
    pub(super) async fn create(
        context: &Context,
        id: JobId,
        userid: u32,
    ) -> Result<Guest, Failure> {
        let guest = Guest { id, namespace: namespace(id) };
        let handle = context.handle();
        let rootref = empty_root(context)?;
        let create = kvs::NamespaceCreateRequest {
            namespace: guest.namespace.clone(),
            rootref: rootref.to_string(),
            owner: i64::from(userid),
            flags: 0,
        };
        match handle.rpc::<kvs::NamespaceCreate>(&create).await {
            Ok(_) => {}
            // A restart found one that the former instance had made.
            Err(failure) if failure.errno == Errno::EEXIST => {}
            Err(failure) => return Err(failure),
        }
        Ok(guest)
    }

    /// Begin the job's `exec.eventlog`, and make `guest` in the job's directory a link to the
    /// namespace. Nobody need wait for either: what is told of the job from the first poll on is
    /// in the KVS after them.
    pub(super) async fn open(&self, context: &Context) -> Result<(), Failure> {
        let handle = context.handle();
        let link = Treeobj::symlink(Some(&self.namespace), ".");
        let events = vec![event_op("init", None)?, event_op("starting", None)?];
        let log = commit(handle, &self.namespace, 0, events);
        let primary = commit(handle, kvs::PRIMARY, LAZY, vec![self.op(Some(link))]);
        let (log, primary) = tokio::join!(log, primary);
        log.and(primary)
    }

    fn op(&self, dirent: Option<Treeobj>) -> kvs::Op {
        kvs::Op { key: format!("{}.guest", self.id.kvs()), flags: 0, dirent }
    }

    /// [`commit`], when there is room for it: what a job has done is not known elsewhere. Who
    /// finds the disk full says so, once for all jobs.
    async fn commit_in_the_end(
        &self,
        handle: &Handle,
        namespace: &str,
        flags: u32,
        ops: Vec<kvs::Op>,
    ) -> Result<(), Failure> {
        loop {
            match commit(handle, namespace, flags, ops.clone()).await {
                Err(failure) if failure.errno == Errno::ENOSPC => {
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                other => return other,
            }
        }
    }

    /// End the job's `exec.eventlog`. `leader` is what the first shell ended with, if there was one.
    pub(super) async fn close(&self, context: &Context, leader: Option<i32>, status: Option<i32>) {
        let result = async {
            let mut events = Vec::new();
            if let Some(leader) = leader {
                let exit = json!({ "rank": 0, "wait_status": leader });
                events.push(event_op("shell-exit", Some(&exit))?);
            }
            if let Some(status) = status {
                events.push(event_op("complete", Some(&json!({ "status": status })))?);
            }
            events.push(event_op("done", None)?);
            self.commit_in_the_end(context.handle(), &self.namespace, 0, events).await
        };
        if let Err(failure) = result.await {
            let text = format!("{}: exec.eventlog: {failure}", self.id.f58());
            context.log(Severity::Err, text);
        }
    }

    /// Move what is in the namespace into the job's directory. `tell` may say that the job is over
    /// as soon as the move is on its way: the KVS takes what follows from that after it, and until
    /// then the link leads to the namespace.
    pub(super) async fn link(&self, context: &Context, tell: impl FnOnce()) -> Result<(), Failure> {
        let root = self.root(context).await;
        let handle = context.handle();
        let linked = async {
            let link = vec![self.op(Some(Treeobj::dirref(root?)))];
            self.commit_in_the_end(handle, kvs::PRIMARY, LAZY, link).await
        };
        let (linked, ()) = tokio::join!(biased; linked, async { tell() });
        linked
    }

    async fn root(&self, context: &Context) -> Result<Blobref, Failure> {
        let request = kvs::GetrootRequest { namespace: self.namespace.clone(), flags: None };
        let root = context.handle().rpc::<kvs::Getroot>(&request).await?;
        let invalid = |_| Failure::new(Errno::EINVAL, "rootref of the namespace");
        root.rootref.parse().map_err(invalid)
    }

    pub(super) async fn remove(&self, context: &Context) {
        let request = kvs::NamespaceRequest { namespace: self.namespace.clone() };
        if let Err(failure) = context.handle().rpc::<kvs::NamespaceRemove>(&request).await {
            let text = format!("{}: namespace-remove: {failure}", self.id.f58());
            context.log(Severity::Err, text);
        }
    }
}

/// `flags` are of [`kvs::commit`].
pub(super) async fn commit(
    handle: &Handle,
    namespace: &str,
    flags: u32,
    ops: Vec<kvs::Op>,
) -> Result<(), Failure> {
    let namespace = namespace.to_owned();
    handle.rpc::<kvs::Commit>(&kvs::CommitRequest { namespace, flags, ops }).await?;
    Ok(())
}

/// The blobref of an empty directory, which every store knows.
fn empty_root(context: &Context) -> Result<Blobref, Failure> {
    let hash = match context.broker().attrs().get("content.hash").as_deref() {
        Some("sha256") => HashType::Sha256,
        _ => HashType::Sha1,
    };
    let text = Treeobj::empty_dir()
        .encode()
        .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
    Ok(hash.hash(text.as_bytes()))
}

/// An append to `exec.eventlog`.
pub(super) fn event_op(name: &str, with: Option<&Value>) -> Result<kvs::Op, Failure> {
    Ok(kvs::Op {
        key: "exec.eventlog".to_owned(),
        flags: kvs::OP_APPEND,
        dirent: Some(Treeobj::val(event_line(name, with)?.as_bytes())),
    })
}

pub(super) fn event_line(name: &str, with: Option<&Value>) -> Result<String, Failure> {
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let mut event = Event::new(crate::time::unix_seconds(SystemTime::now()), name);
    if let Some(with) = with {
        event = event.with_context(with).map_err(|error| invalid(error.to_string()))?;
    }
    event.encode().map_err(|error| invalid(error.to_string()))
}
