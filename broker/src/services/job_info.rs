//! `job-info`: what is kept about jobs in the KVS, for those who may see it.
//!
//! The owner sees all; a guest what belongs to his own jobs. A job's eventlog says whose it is.

mod eventlog_watch;
mod kvs_read;
mod lookup;
mod update;

use flux_protocol::credential::{Credential, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::Who;
use flux_protocol::rpc::job_info as rpc;
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::call::{Call, Calls, Sender};
use crate::handle::Handle;
use crate::methods::Methods;
use crate::service::Service;

pub(crate) type Context = crate::context::Context<JobInfo>;

/// The service; one on each rank.
#[derive(Debug, Default)]
pub struct JobInfo {
    lookups: u64,
    watches: Watches<rpc::EventlogWatchResponse>,
    updates: Watches<Object>,
}

/// Open streams, each with the task that feeds it by the sequence number here.
#[derive(Debug)]
struct Watches<R> {
    open: Calls<R, Watch>,
    next: u64,
}

#[derive(Debug)]
struct Watch {
    number: u64,
    kind: Kind,
    task: JoinHandle<()>,
}

/// Where what is watched is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Main,
    /// In the job's own namespace, while it runs.
    Guest,
}

/// What the task of a stream has to say.
enum Feed<R> {
    Item(R),
    End(Failure),
}

impl<R> Default for Watches<R> {
    fn default() -> Self {
        Watches { open: Calls::default(), next: 0 }
    }
}

impl Service for JobInfo {
    const NAME: &'static str = "job-info";
    const SERVICES: &'static [&'static str] = &["job-info"];
    const STATS: Who = Who::Owner;

    async fn start(_: &Context, _: &[String]) -> Result<JobInfo, Failure> {
        Ok(JobInfo::default())
    }

    fn methods() -> Methods<JobInfo> {
        Methods::default()
            .serve::<rpc::Lookup>(JobInfo::lookup)
            .serve::<rpc::EventlogWatch>(JobInfo::eventlog_watch)
            .reply::<rpc::EventlogWatchCancel>(JobInfo::eventlog_watch_cancel)
            .serve::<rpc::UpdateLookup>(JobInfo::update_lookup)
            .serve::<rpc::UpdateWatch>(JobInfo::update_watch)
            .reply::<rpc::UpdateWatchCancel>(JobInfo::update_watch_cancel)
    }

    fn disconnect(&mut self, _: &Context, sender: &Sender) {
        for watch in self.watches.open.disconnect(sender) {
            watch.task.abort();
        }
        for watch in self.updates.open.disconnect(sender) {
            watch.task.abort();
        }
    }

    fn stats(&self, _: &Context) -> Option<serde_json::Value> {
        Some(serde_json::json!({
            "lookups": self.lookups,
            "watchers": self.watches.open.len(),
            "guest_watchers": self.watches.count(Kind::Guest),
            "update_lookups": 0,
            "update_watchers": self.updates.open.len(),
        }))
    }
}

impl JobInfo {
    fn eventlog_watch_cancel(
        &mut self,
        _: &Context,
        request: rpc::CancelRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        self.watches.cancel(sender, request.matchtag);
        Ok(Empty)
    }

    fn update_watch_cancel(
        &mut self,
        _: &Context,
        request: rpc::CancelRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        self.updates.cancel(sender, request.matchtag);
        Ok(Empty)
    }
}

impl<R: flux_protocol::payload::Payload + 'static> Watches<R> {
    /// Keep the call, and run `feed` with a function that sends into the stream.
    fn open<F: Future<Output = Failure> + 'static>(
        &mut self,
        context: &Context,
        call: Call<R>,
        kind: Kind,
        select: fn(&mut JobInfo) -> &mut Watches<R>,
        feed: impl FnOnce(Box<dyn Fn(R)>) -> F,
    ) {
        self.next += 1;
        let number = self.next;
        let items = context.clone();
        let send = Box::new(move |item: R| {
            items.later(move |info: &mut JobInfo| select(info).feed(number, Feed::Item(item)));
        });
        let task = context.spawn(feed(send), move |info: &mut JobInfo, failure| {
            select(info).feed(number, Feed::End(failure));
        });
        self.open.insert(call, Watch { number, kind, task });
    }

    fn count(&self, kind: Kind) -> usize {
        self.open.iter().filter(|(_, watch)| watch.kind == kind).count()
    }

    fn feed(&mut self, number: u64, feed: Feed<R>) {
        match feed {
            Feed::Item(item) => {
                for (call, watch) in self.open.iter() {
                    if watch.number == number {
                        call.send(&item);
                    }
                }
            }
            Feed::End(failure) => {
                for (call, _) in self.open.take(|_, watch| watch.number == number) {
                    call.fail(failure.clone());
                }
            }
        }
    }

    fn cancel(&mut self, sender: &Sender, matchtag: u32) {
        if let Some((call, watch)) = self.open.cancel(sender, matchtag) {
            watch.task.abort();
            call.end();
        }
    }
}

/// ENOENT: no such job. EPERM: it is someone else's.
async fn authorize(handle: &Handle, cred: Credential, id: JobId) -> Result<(), Failure> {
    if cred.is_owner() {
        return Ok(());
    }
    #[derive(Deserialize)]
    struct Submit {
        userid: u32,
    }
    let text = kvs_read::primary(handle, &format!("{}.eventlog", id.kvs())).await?;
    let submit = eventlog::events(&text)
        .next()
        .and_then(Result::ok)
        .and_then(|event| event.context_as::<Submit>().ok())
        .ok_or(Errno::EPROTO)?;
    match cred.authorizes(Userid(submit.userid)) {
        true => Ok(()),
        false => Err(Errno::EPERM.into()),
    }
}
