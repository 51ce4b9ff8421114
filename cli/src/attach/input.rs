//! Standard input on its way to a job's tasks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flux_client::{Client, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::encode_json;
use flux_protocol::taskmap::Taskmap;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::task::AbortHandle;

use crate::failure::Failure;

const CHUNK: usize = 64 << 10;

/// Whether there is anything on standard input now; what is found out by reading some of it.
pub(super) fn is_given() -> bool {
    use std::os::fd::AsFd as _;
    let stdin = std::io::stdin();
    let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let is_ready = poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count > 0);
    is_ready && nix::unistd::read(&stdin, &mut [0]).is_ok_and(|count| count > 0)
}

/// Input stops when this is dropped.
#[derive(Debug)]
pub(super) struct Input {
    sender: Sender,
    /// The tasks that it is for, if not all; it can't start before it is known which there are.
    only: Option<Idset>,
    wanted: Option<Refused>,
    tasks_known: bool,
    reader: Option<AbortHandle>,
}

/// Told of input that was not taken.
struct Refused(Box<dyn FnOnce(RpcError) + Send>);

#[derive(Debug, Clone)]
struct Sender {
    flux: Client,
    topic: String,
    leader: Nodeid,
    ranks: String,
}

#[derive(Deserialize)]
struct ShellStart {
    taskmap: serde_json::Value,
}

impl Input {
    pub(super) fn new(
        flux: &Client,
        service: &str,
        leader: Nodeid,
        ranks: Option<&str>,
    ) -> Result<Input, Failure> {
        let only = match ranks.filter(|ranks| *ranks != "all") {
            None => None,
            Some(ranks) => Some(ranks.parse().map_err(|_| {
                Failure::new(format_args!("Invalid value '{ranks}' for --stdin-ranks"))
            })?),
        };
        let sender = Sender {
            flux: flux.clone(),
            topic: format!("{service}.stdin"),
            leader,
            ranks: ranks.unwrap_or("all").to_owned(),
        };
        Ok(Input { sender, only, wanted: None, tasks_known: false, reader: None })
    }

    /// Read standard input from now on, or from when the tasks are known.
    pub(super) fn start(&mut self, refused: impl FnOnce(RpcError) + Send + 'static) {
        self.wanted = Some(Refused(Box::new(refused)));
        self.read();
    }

    /// It is known which tasks there are; those that input is not for get the end of it.
    pub(super) fn tasks_start(&mut self, event: &Event) -> Result<(), Failure> {
        let Some(only) = &self.only else { return Ok(()) };
        let ShellStart { taskmap } = event.context_as().map_err(Failure::new)?;
        let map = Taskmap::decode_json(&taskmap)
            .map_err(|_| Failure::new("failed to process taskmap in shell.start event"))?;
        let total = map.total_ntasks().and_then(|total| u32::try_from(total).ok());
        let all = Idset::first_n(total.unwrap_or_default());
        let there = all.intersect(only);
        if there != *only {
            let (old, new) = (&self.sender.ranks, &there);
            crate::errln!("flux-job: warning: adjusting --stdin-ranks from {old} to {new}");
            self.sender.ranks = there.to_string();
        }
        let others = all.difference(&there);
        if !others.is_empty() {
            let closing = Sender { ranks: others.to_string(), ..self.sender.clone() };
            tokio::spawn(async move {
                // A job that has ended by now has no open input.
                let _ = closing.send(None).await;
            });
        }
        self.tasks_known = true;
        self.read();
        Ok(())
    }

    fn read(&mut self) {
        if self.only.is_some() && !self.tasks_known {
            return;
        }
        if let Some(refused) = self.wanted.take() {
            self.reader = Some(tokio::spawn(pass_on(self.sender.clone(), refused)).abort_handle());
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refused")
    }
}

/// Standard input to its end. That the end is not taken does not matter unless there was more.
async fn pass_on(sender: Sender, refused: Refused) {
    let mut stdin = tokio::io::stdin();
    let mut buf = vec![0; CHUNK];
    let mut any = false;
    loop {
        let data = match stdin.read(&mut buf).await {
            Ok(count) => buf.get(..count).filter(|data| !data.is_empty()),
            // Without a standard input there is nothing to pass on.
            Err(_) => None,
        };
        any |= data.is_some();
        match sender.send(data).await {
            Ok(()) if data.is_some() => {}
            Ok(()) => return,
            Err(error) if error.errno() == Errno::ENOSYS && !any => return,
            Err(error) => {
                refused.0(error);
                return;
            }
        }
    }
}

impl Sender {
    /// Nothing is the end.
    async fn send(&self, data: Option<&[u8]>) -> Result<(), RpcError> {
        let ranks = &self.ranks;
        let piece = match data.map(|data| (data, std::str::from_utf8(data))) {
            None => json!({"stream": "stdin", "rank": ranks, "eof": true}),
            Some((_, Ok(text))) => json!({"stream": "stdin", "rank": ranks, "data": text}),
            Some((data, Err(_))) => json!({
                "stream": "stdin", "rank": ranks,
                "data": STANDARD.encode(data), "encoding": "base64",
            }),
        };
        let payload = encode_json(&piece)?;
        let request = Request::new(self.topic.clone()).to(self.leader).payload(payload);
        self.flux.rpc_raw(request).await.map(drop)
    }
}
