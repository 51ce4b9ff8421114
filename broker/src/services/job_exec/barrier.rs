//! The barrier in which the shells of a job wait for each other.
//!
//! A shell asks with the no-response flag and matchtag 0, and blocks until an answer comes all
//! the same: the answer has that flag cleared.

use std::cell::{Cell, RefCell};

use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::idset::Idset;
use flux_protocol::message::{Flags, Message, text_payload};
use flux_protocol::payload::decode_json;
use flux_protocol::rpc::job_exec::BarrierRequest;

use tokio::sync::Notify;

use super::{Context, JobExec};
use crate::router::Router;

/// Shells that have entered.
#[derive(Debug)]
pub(super) struct Barrier {
    size: usize,
    /// Ranks whose shells have not come to the first barrier.
    missing: RefCell<Idset>,
    begun: Notify,
    entered: RefCell<Vec<Message>>,
    failed: Cell<bool>,
    exited: Cell<usize>,
}

impl Barrier {
    pub(super) fn new(ranks: Idset) -> Barrier {
        Barrier {
            size: usize::try_from(ranks.count()).unwrap_or(usize::MAX),
            missing: RefCell::new(ranks),
            begun: Notify::new(),
            entered: RefCell::default(),
            failed: Cell::new(false),
            exited: Cell::new(0),
        }
    }

    /// The first shell has come.
    pub(super) async fn begun(&self) {
        self.begun.notified().await;
    }

    /// Where a shell has not come to the first barrier, if that is still waited for.
    pub(super) fn missing(&self) -> Idset {
        match self.failed.get() {
            true => Idset::new(),
            false => self.missing.borrow().clone(),
        }
    }

    fn enter(&self, router: &Router, rank: i64, request: Message) {
        if self.failed.get() {
            return answer(router, &request, Some((Errno::EIO, "barrier failed")));
        }
        if let Ok(rank) = u32::try_from(rank) {
            self.missing.borrow_mut().remove(rank);
        }
        self.begun.notify_one();
        self.entered.borrow_mut().push(request);
        if self.entered.borrow().len() >= self.size {
            for request in self.entered.take() {
                answer(router, &request, None);
            }
        }
    }

    /// Nobody will come any more.
    pub(super) fn fail(&self, context: &Context) {
        self.failed.set(true);
        for request in self.entered.take() {
            answer(context.router(), &request, Some((Errno::EIO, "barrier failed")));
        }
    }

    /// A shell has ended: those that have entered wait for it in vain.
    pub(super) fn shell_exited(&self, context: &Context) {
        self.exited.set(self.exited.get() + 1);
        if self.is_broken() {
            self.fail(context);
        }
    }

    fn is_broken(&self) -> bool {
        self.exited.get() > 0 && !self.entered.borrow().is_empty()
    }
}

impl JobExec {
    pub(super) fn shell_barrier(&mut self, context: &Context, message: Message) {
        let router = context.router();
        let Ok(request) = decode_json::<BarrierRequest>(message.payload.as_ref()) else {
            return answer(router, &message, Some((Errno::EPROTO, "malformed request")));
        };
        let Some(run) = self.jobs.get(&request.id) else {
            return answer(router, &message, Some((Errno::ENOENT, "job not found")));
        };
        if !message.cred.authorizes(Userid(run.userid())) {
            return answer(router, &message, Some((Errno::EPERM, "not the job's owner")));
        }
        run.barrier.enter(router, request.rank, message);
        if run.barrier.is_broken() {
            // Another shell has ended without coming here.
            run.barrier.fail(context);
        }
    }
}

fn answer(router: &Router, request: &Message, error: Option<(Errno, &str)>) {
    let mut request = request.clone();
    request.flags.clear(Flags::NORESPONSE);
    match error {
        None => router.respond(&request, 0, None),
        Some((errno, text)) => router.respond(&request, errno.0, Some(text_payload(text))),
    }
}
