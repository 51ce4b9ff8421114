//! Events in their order: each becomes true once it, and all before it, are in the KVS.
//!
//! ```text
//! post -> queue -> one commit for all that wait -> apply -> answer, acquire, journal
//! ```
//!
//! Events that are not kept in the KVS wait only for those before them.

use std::collections::VecDeque;
use std::time::SystemTime;

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::kvs;

use super::state::Change;
use super::{Context, Resource, store};
use crate::call::Call;
use crate::handle::Handle;
use crate::log::Severity;
use crate::time;

/// Events that are not true yet.
#[derive(Debug, Default)]
pub struct Posts {
    queue: VecDeque<Post>,
    /// How many of them are in the commit that is under way, if one is.
    committing: Option<usize>,
}

/// The first posts, as they go to the KVS.
struct Commit {
    count: usize,
    ops: Result<(Vec<kvs::Op>, bool), Failure>,
}

#[derive(Debug)]
struct Post {
    change: Change,
    event: Event,
    /// Answered when the event is true.
    call: Option<Call<Empty>>,
}

impl Posts {
    /// Of a service that starts: what a commit's end would be told to does not run yet, so that one
    /// of nothing is under way until [`Resource::commit_first_posts`].
    pub(super) fn at_start() -> Posts {
        Posts { queue: VecDeque::new(), committing: Some(0) }
    }

    /// Changes that are to come, in their order.
    pub(super) fn changes(&self) -> impl Iterator<Item = &Change> {
        self.queue.iter().map(|post| &post.change)
    }
}

impl Resource {
    /// Let something happen; `call` is answered when it has.
    pub(super) fn post(&mut self, context: &Context, change: Change, call: Option<Call<Empty>>) {
        let now = time::unix_seconds(SystemTime::now());
        match change.event(&self.state, now) {
            Ok(event) => {
                self.requested_drain.apply(&change);
                self.posts.queue.push_back(Post { change, event, call });
                self.commit_posts(context);
            }
            Err(error) => {
                let failure = Failure::new(Errno::EINVAL, error.to_string());
                context.log(Severity::Err, format!("could not post an event: {failure}"));
                if let Some(call) = call {
                    call.fail(failure);
                }
            }
        }
    }

    /// All that was posted while the service started; whoever has loaded it finds it to be true.
    pub(super) async fn commit_first_posts(&mut self, context: &Context) {
        self.posts.committing = None;
        while let Some(Commit { count, ops }) = self.next_commit(context) {
            let result = commit(context.handle(), ops).await;
            self.posts_committed(context, count, result);
        }
    }

    fn commit_posts(&mut self, context: &Context) {
        let Some(Commit { count, ops }) = self.next_commit(context) else { return };
        let (handle, after) = (context.handle().clone(), context.clone());
        context.spawn(
            async move { commit(&handle, ops).await },
            move |resource: &mut Resource, result| {
                resource.posts_committed(&after, count, result);
                resource.commit_posts(&after);
            },
        );
    }

    /// What is to be committed, if no commit is under way; this one is from here on. Posts that are
    /// not kept and wait for no other become true.
    fn next_commit(&mut self, context: &Context) -> Option<Commit> {
        if self.posts.committing.is_some() {
            return None;
        }
        let Some(last_kept) = self.posts.queue.iter().rposition(|post| post.change.is_kept())
        else {
            let posts = std::mem::take(&mut self.posts.queue);
            posts.into_iter().for_each(|post| self.become_true(context, post));
            return None;
        };
        let count = last_kept + 1;
        self.posts.committing = Some(count);
        Some(Commit { count, ops: self.ops_of(count) })
    }

    /// The transaction for the first posts, and whether it must be on the disk.
    fn ops_of(&self, count: usize) -> Result<(Vec<kvs::Op>, bool), Failure> {
        let posts = || self.posts.queue.iter().take(count).filter(|post| post.change.is_kept());
        let mut ops = Vec::new();
        let is_inventory =
            |post: &Post| matches!(post.change, Change::Define | Change::Update { .. });
        if posts().any(is_inventory)
            && let Some(inventory) = &self.state.inventory
        {
            ops.push(store::put_inventory(&inventory.set)?);
        }
        let lines: Result<String, _> = posts().map(|post| post.event.encode()).collect();
        let lines = lines.map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
        ops.push(store::append_events(&lines));
        Ok((ops, posts().any(|post| post.change.is_synced())))
    }

    fn posts_committed(&mut self, context: &Context, count: usize, result: Result<(), Failure>) {
        self.posts.committing = None;
        let rest = self.posts.queue.split_off(count.min(self.posts.queue.len()));
        let posts = std::mem::replace(&mut self.posts.queue, rest);
        if let Err(failure) = &result {
            context.log(Severity::Err, format!("committing to resource.eventlog: {failure}"));
        }
        for post in posts {
            match &result {
                Err(failure) if post.change.is_kept() => {
                    if let Some(call) = post.call {
                        call.fail(failure.clone());
                    }
                }
                _ => self.become_true(context, post),
            }
        }
        if result.is_err() {
            // What was requested is what is so, and what is still to come.
            self.requested_drain = self.state.drain.clone();
            for change in self.posts.changes() {
                self.requested_drain.apply(change);
            }
        }
    }

    fn become_true(&mut self, context: &Context, post: Post) {
        let Post { change, event, call } = post;
        self.state.apply(&change);
        if let Some(call) = call {
            call.reply(&Empty);
        }
        self.status.forget(&change);
        self.tell_scheduler(context, &change);
        let r = matches!(change, Change::Define).then(|| self.inventory_value()).flatten();
        self.journal.push(event, r);
        self.answer_waitup();
    }

    /// Wait until all that was posted is in the KVS, or has failed; for the end of the service.
    pub(super) async fn finish_posts(&mut self, context: &Context) {
        // A commit that is under way was sent already.
        let sent = self.posts.committing.unwrap_or_default();
        self.posts.queue.drain(..sent.min(self.posts.queue.len()));
        let ops = self.ops_of(self.posts.queue.len());
        let result = match self.posts.queue.iter().any(|post| post.change.is_kept()) {
            true => commit(context.handle(), ops).await,
            false => ops.map(|_| ()),
        };
        for post in std::mem::take(&mut self.posts.queue) {
            match (&result, post.call) {
                (Ok(()), Some(call)) => call.reply(&Empty),
                (Err(failure), Some(call)) => call.fail(failure.clone()),
                (_, None) => {}
            }
        }
    }
}

async fn commit(
    handle: &Handle,
    ops: Result<(Vec<kvs::Op>, bool), Failure>,
) -> Result<(), Failure> {
    let (ops, sync) = ops?;
    store::commit(handle, ops, sync).await
}
