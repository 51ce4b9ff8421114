//! `log`: lines come in, `flux dmesg` reads them.
//!
//! A reader has a place in the circular buffer, not a queue of its own: one that is slow costs
//! nothing, and misses lines when the buffer has gone round meanwhile.

use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid, text_payload};
use flux_protocol::payload::{Empty, Raw, Text};
use flux_protocol::rpc::log as rpc;
use flux_protocol::stdlog::{Line, Severity};

use crate::call::{Call, Calls, Sender};
use crate::context::Context;
use crate::log;
use crate::methods::Methods;
use crate::service::Service;

/// Unsent bytes at which a reader is left alone for a while.
const BACKLOG_MAX: usize = 1 << 20;
const RETRY: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub struct Log {
    readers: Calls<Text, Reader>,
    /// Something will call [`Log::feed`] again.
    waiting: bool,
}

/// A `log.dmesg` request.
#[derive(Debug)]
struct Reader {
    /// Number of the line that is sent next.
    next: u64,
    /// Where the stream ends; nothing when it follows.
    until: Option<u64>,
}

impl Service for Log {
    const NAME: &'static str = "log";
    const SERVICES: &'static [&'static str] = &["log"];
    const IS_MODULE: bool = false;

    async fn start(context: &Context<Log>, _: &[String]) -> Result<Log, Failure> {
        if context.rank() > 0 {
            forward(context);
        }
        Ok(Log::default())
    }

    fn methods() -> Methods<Log> {
        Methods::default()
            .reply::<rpc::Append>(Log::append)
            .reply::<rpc::Clear>(Log::clear)
            .serve::<rpc::Dmesg>(Log::dmesg)
            .notify::<rpc::Cancel>(Log::cancel)
            .disconnect::<rpc::Disconnect>()
            .reply::<rpc::Stats>(Log::message_counts)
            .reply::<rpc::Setattr>(Log::setattr)
    }

    fn disconnect(&mut self, _: &Context<Log>, sender: &Sender) {
        self.readers.disconnect(sender);
    }

    async fn stop(mut self, _: &Context<Log>) {
        for (call, _) in self.readers.take(|_, _| true) {
            call.end();
        }
    }
}

/// Send this broker's lines on, towards rank 0.
fn forward(context: &Context<Log>) {
    let handle = context.handle().clone();
    let rank = Nodeid(context.rank());
    context.broker().log().set_forward(move |line| {
        let sent = handle.try_notify_raw("log.append", rank, Flags::UPSTREAM, Some(line));
        sent.is_ok()
    });
}

impl Log {
    fn append(
        &mut self,
        context: &Context<Log>,
        request: Raw,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        context.broker().log().append_line(&String::from_utf8_lossy(&request.0));
        Ok(Empty)
    }

    fn clear(&mut self, context: &Context<Log>, _: Empty, _: &Sender) -> Result<Empty, Failure> {
        context.broker().log().clear();
        Ok(Empty)
    }

    fn dmesg(&mut self, context: &Context<Log>, request: rpc::DmesgRequest, call: Call<Text>) {
        let end = context.broker().log().next_number();
        let reader = Reader {
            next: if request.nobacklog { end } else { 0 },
            until: (!request.follow).then_some(end),
        };
        self.readers.insert(call, reader);
        self.feed(context);
    }

    fn cancel(&mut self, _: &Context<Log>, request: rpc::CancelRequest, sender: &Sender) {
        if let Some((reader, _)) = self.readers.cancel(sender, request.matchtag) {
            reader.end();
        }
    }

    fn message_counts(
        &mut self,
        context: &Context<Log>,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::StatsResponse, Failure> {
        let log = context.broker().log();
        let counts = log.counts();
        Ok(rpc::StatsResponse {
            ring_used: log.ring_len() as u64,
            count: counts.kept,
            local: counts.local,
            remote: counts.remote,
        })
    }

    fn setattr(
        &mut self,
        context: &Context<Log>,
        request: rpc::SetattrRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        if request.name != "log-stderr-level" {
            return Err(Failure::new(Errno::EINVAL, "unknown log attribute"));
        }
        log::check_level(&request.name, &request.value)?;
        let attrs = context.broker().attrs();
        attrs.set(&request.name, &request.value, false)?;
        context.broker().log().attrs_changed(attrs);
        Ok(Empty)
    }

    /// Send readers what they have not got yet, as far as they take it.
    fn feed(&mut self, context: &Context<Log>) {
        let mut stalled = false;
        let ended = self.readers.take(|call, reader| {
            stalled |= !reader.feed(context, call);
            reader.until.is_some_and(|until| reader.next >= until)
        });
        for (call, _) in ended {
            call.end();
        }
        if !self.waiting && !self.readers.is_empty() {
            self.wait(context, stalled);
        }
    }

    fn wait(&mut self, context: &Context<Log>, stalled: bool) {
        self.waiting = true;
        let broker = context.broker().clone();
        let seen = broker.log().next_number();
        let again = context.clone();
        context.spawn(
            async move {
                match stalled {
                    true => tokio::time::sleep(RETRY).await,
                    false => broker.log().reaches(seen + 1).await,
                }
            },
            move |log: &mut Log, ()| {
                log.waiting = false;
                log.feed(&again);
            },
        );
    }
}

impl Reader {
    /// False when the client has not read what it was sent before.
    fn feed(&mut self, context: &Context<Log>, call: &Call<Text>) -> bool {
        let log = context.broker().log();
        let uuid = call.sender().uuid;
        while self.until.is_none_or(|until| self.next < until) {
            let Some((number, line)) = log.line_at(self.next) else {
                // The buffer was cleared.
                self.next = self.next.max(self.until.unwrap_or(0));
                return true;
            };
            if context.router().backlog(&uuid) > BACKLOG_MAX {
                return false;
            }
            // At its beginning the buffer may have gone round: that is no loss.
            let lost = if self.next > 0 { number - self.next } else { 0 };
            if lost > 0 {
                call.send_raw(Some(text_payload(&lost_lines(context.rank(), lost))));
            }
            if self.until.is_none_or(|until| number < until) {
                call.send_raw(Some(line));
            }
            self.next = number + 1;
        }
        true
    }
}

/// A line for the reader alone.
fn lost_lines(rank: u32, lost: u64) -> String {
    Line {
        severity: Severity::Warning,
        timestamp: &crate::time::utc_micros(std::time::SystemTime::now()),
        hostname: &rank.to_string(),
        appname: "log",
        procid: &std::process::id().to_string(),
        text: &format!("{lost} lines were lost to this reader, which is too slow"),
    }
    .to_string()
}
