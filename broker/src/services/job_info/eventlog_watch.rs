//! `eventlog-watch`: the events of a log one by one, until the log is complete.
//!
//! The job's own eventlog ends with `clean`. Logs below `guest.` are in the job's own namespace
//! while it runs, and move to the primary one when it ends. Other logs are followed until the caller
//! ends it.

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::job_info as rpc;
use flux_protocol::rpc::job_info::watch as flags;
use flux_protocol::treeobj::Treeobj;

use super::{Context, JobInfo, Kind, authorize, kvs_read};
use crate::call::Call;
use crate::handle::Handle;

type Send = Box<dyn Fn(rpc::EventlogWatchResponse)>;

const GUEST: &str = "guest.";

impl JobInfo {
    pub(super) fn eventlog_watch(
        &mut self,
        context: &Context,
        request: rpc::EventlogWatchRequest,
        call: Call<rpc::EventlogWatchResponse>,
    ) {
        if request.flags & !i64::from(flags::WAITCREATE | flags::SENTINEL) != 0 {
            let text = "eventlog-watch request rejected with invalid flag";
            return call.fail(Failure::new(Errno::EPROTO, text));
        }
        let handle = context.handle().clone();
        let cred = call.cred();
        let kind = match request.path.starts_with(GUEST) {
            true => Kind::Guest,
            false => Kind::Main,
        };
        self.watches.open(
            context,
            call,
            kind,
            |info| &mut info.watches,
            |send| async move {
                let result = match authorize(&handle, cred, request.id).await {
                    Ok(()) => watch(&handle, &request, &send).await,
                    Err(failure) => Err(failure),
                };
                result.err().unwrap_or_else(|| Errno::ENODATA.into())
            },
        );
    }
}

async fn watch(
    handle: &Handle,
    request: &rpc::EventlogWatchRequest,
    send: &Send,
) -> Result<(), Failure> {
    let has = |flag: u32| request.flags & i64::from(flag) != 0;
    let mut log = Lines { sent: 0, sentinel: has(flags::SENTINEL), send };
    match request.path.strip_prefix(GUEST) {
        Some(path) => watch_guest(handle, request.id, path, has(flags::WAITCREATE), &mut log).await,
        None => {
            let key = format!("{}.{}", request.id.kvs(), request.path);
            // Of other logs nothing says when they end.
            let is_main = request.path == "eventlog";
            let is_end = |event: &Event| is_main && event.name == "clean";
            follow(handle, "primary", &key, has(flags::WAITCREATE), &mut log, is_end).await
        }
    }
}

/// What has been sent of a log, so that it can go on in another place.
struct Lines<'a> {
    /// Bytes of whole lines that were sent.
    sent: usize,
    sentinel: bool,
    send: &'a Send,
}

impl Lines<'_> {
    /// The whole log as far as it goes: send what is new.
    fn text(&mut self, text: &str) {
        let new = text.get(self.sent..).unwrap_or_default().to_owned();
        self.append(&new);
    }

    fn append(&mut self, text: &str) {
        for line in text.split_inclusive('\n') {
            self.sent += line.len();
            (self.send)(rpc::EventlogWatchResponse { event: line.to_owned() });
        }
        if std::mem::take(&mut self.sentinel) {
            (self.send)(rpc::EventlogWatchResponse { event: String::new() });
        }
    }
}

/// Follow a log until `is_end`.
async fn follow(
    handle: &Handle,
    namespace: &str,
    key: &str,
    wait_create: bool,
    log: &mut Lines<'_>,
    is_end: impl Fn(&Event) -> bool,
) -> Result<(), Failure> {
    let mut watch = kvs_read::follow(handle, namespace, key, wait_create)?;
    loop {
        let text = watch.next().await?;
        log.append(&text);
        let ended = text.lines().any(|line| Event::decode(line).is_ok_and(|event| is_end(&event)));
        if ended {
            return Ok(());
        }
    }
}

async fn watch_guest(
    handle: &Handle,
    id: JobId,
    path: &str,
    wait_create: bool,
    log: &mut Lines<'_>,
) -> Result<(), Failure> {
    let guest = format!("{}.guest", id.kvs());
    wait_for_guest(handle, id).await?;
    let namespace = match kvs_read::treeobj(handle, &guest).await {
        Ok(Treeobj::Symlink(link)) => link.namespace,
        Ok(_) => None,
        // It ended without a start: there never will be such a log.
        Err(failure) if failure.errno == Errno::ENOENT => return Ok(()),
        Err(failure) => return Err(failure),
    };
    if let Some(namespace) = namespace {
        let followed = follow(handle, &namespace, path, wait_create, log, |_| false).await;
        match followed {
            // The namespace is gone: the job has ended, and the log has moved.
            Err(failure) if is_gone(&failure) => {}
            other => return other,
        }
    }
    match kvs_read::primary(handle, &format!("{guest}.{path}")).await {
        Ok(text) => {
            log.text(&text);
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

fn is_gone(failure: &Failure) -> bool {
    matches!(failure.errno, Errno::ENOTSUP | Errno::ENODATA)
}

/// The job has a namespace from its start on; one that ends without a start never has.
async fn wait_for_guest(handle: &Handle, id: JobId) -> Result<(), Failure> {
    let key = format!("{}.eventlog", id.kvs());
    let ignore: Send = Box::new(|_| {});
    let mut log = Lines { sent: 0, sentinel: false, send: &ignore };
    let is_end = |event: &Event| matches!(event.name.as_str(), "start" | "clean");
    if kvs_read::treeobj(handle, &format!("{}.guest", id.kvs())).await.is_ok() {
        return Ok(());
    }
    follow(handle, "primary", &key, false, &mut log, is_end).await
}
