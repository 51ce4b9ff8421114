//! Requests to `UID-shell-ID`: from users, from the execution system, and from other shells.

use flux_client::{RawPending, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::message::{Message, Nodeid};
use flux_protocol::payload::{decode_json, encode_json};
use flux_protocol::proctable::{Packed, Proctable, Row};
use flux_protocol::rpc::rexec::Io;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

use super::Shell;
use super::run::TasksComplete;
use crate::fatal::Fatal;
use crate::input::Refusal;
use crate::output::{Credit, WriteRequest};
use crate::task;

/// How long other shells may take to answer.
const GATHER_LIMIT: Duration = Duration::from_secs(5);

/// The execution system tells of something that has happened to the job.
#[derive(Deserialize)]
struct ExceptionRequest {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "severity")]
    _severity: i64,
    shell_rank: i64,
    #[serde(default)]
    message: String,
}

/// An error response.
type Refused = (Errno, &'static str);

impl Shell {
    pub(super) fn request(&mut self, request: &Message) -> Result<(), Fatal> {
        let userid = flux_protocol::credential::Userid(self.job.userid);
        if !request.cred.authorizes(userid) {
            self.refuse(request, (Errno::EPERM, ""));
            return Ok(());
        }
        let service = self.job.service.len() + 1;
        let method = request.topic.as_str().get(service..).unwrap_or_default().to_owned();
        let result = match method.as_str() {
            "stdin" => return self.stdin_request(request),
            "exception" => return self.exception_request(request),
            "doom" => return self.doom_request(request),
            "write" => self.write_request(request),
            "write-getcredit" => self.credit_request(request),
            "tasks-complete" => self.complete_request(request),
            "pmi-exchange" => {
                match &mut self.pmi {
                    Some(pmi) => pmi.request(request),
                    None => self.refuse(request, (Errno::ENOSYS, "")),
                }
                Ok(())
            }
            "disconnect" => Ok(()),
            "proctable" => {
                self.proctable_request(request);
                Ok(())
            }
            method => match method.split_once('.') {
                Some(("terminus", method)) => {
                    self.terminus.request(request, method, self.job.userid);
                    Ok(())
                }
                Some(("rexec", method)) => {
                    self.rexec.request(request, method);
                    Ok(())
                }
                _ => Err((Errno::ENOSYS, "")),
            },
        };
        if let Err(refused) = result {
            self.refuse(request, refused);
        }
        Ok(())
    }

    pub(super) fn respond(&self, request: &Message, payload: Option<bytes::Bytes>) {
        if let Err(e) = self.flux.respond(request, payload) {
            self.log.error(None, format_args!("error responding to {}: {e}", request.topic));
        }
    }

    pub(super) fn refuse(&self, request: &Message, (errno, text): Refused) {
        if let Err(e) = self.flux.refuse(request, errno, text) {
            self.log.error(None, format_args!("error responding to {}: {e}", request.topic));
        }
    }

    fn stdin_request(&mut self, request: &Message) -> Result<(), Fatal> {
        if !self.job.is_leader() {
            self.refuse(request, (Errno::ENOSYS, ""));
            return Ok(());
        }
        let io: Io = match decode(request) {
            Ok(io) => io,
            Err(refused) => {
                self.refuse(request, refused);
                return Ok(());
            }
        };
        match self.input.record(&io, &mut self.journal) {
            Ok(target) => {
                self.deliver(&target, &io);
                self.respond(request, None);
                Ok(())
            }
            Err(Refusal::Errno(errno)) => {
                self.refuse(request, (errno, ""));
                Ok(())
            }
            Err(Refusal::Fatal(fatal)) => Err(fatal),
        }
    }

    fn exception_request(&mut self, request: &Message) -> Result<(), Fatal> {
        let exception: ExceptionRequest = match decode(request) {
            Ok(exception) if self.job.is_leader() => exception,
            Ok(_) => {
                self.refuse(request, (Errno::ENOSYS, ""));
                return Ok(());
            }
            Err(refused) => {
                self.refuse(request, refused);
                return Ok(());
            }
        };
        if !exception.message.is_empty() {
            self.log.warn("exception", &exception.message);
        }
        self.respond(request, None);
        if exception.kind == "lost-shell"
            && let Ok(shell_rank) = u32::try_from(exception.shell_rank)
        {
            self.doom.shell_lost(&self.job, shell_rank)?;
            self.shell_complete(shell_rank);
        }
        Ok(())
    }

    fn doom_request(&mut self, request: &Message) -> Result<(), Fatal> {
        match decode::<task::Info>(request) {
            Ok(info) if self.job.is_leader() => {
                self.doom.first_exited(&self.job, &info, &mut self.journal)
            }
            Ok(_) => Ok(()),
            Err((_, text)) => {
                let text = format!("error parsing first task exit notification: {text}");
                self.log.error("task-exit", text);
                Ok(())
            }
        }
    }

    /// The leader answers for all shells, others for themselves.
    fn proctable_request(&mut self, request: &Message) {
        let mut table = Proctable::default();
        for task in &self.tasks {
            table.push(Row {
                task: i64::from(task.id.rank),
                host: self.job.hostname.clone(),
                executable: task.program.clone(),
                pid: i64::from(task.pid),
                broker_rank: i64::from(self.job.broker_rank),
            });
        }
        if !self.job.is_leader() || self.job.size() == 1 {
            self.respond(request, encode_json(&table.pack()).unwrap_or_default());
            return;
        }
        let topic = format!("{}.proctable", self.job.service);
        let others: Vec<_> = self
            .job
            .layout
            .nodes
            .iter()
            .skip(1)
            .map(|node| {
                let ask = Request::new(topic.as_str()).to(Nodeid(node.broker_rank));
                self.flux.start_raw(ask.payload(encode_json(&json!({})).unwrap_or_default()))
            })
            .collect();
        self.gathering += 1;
        let (flux, gathered, request) = (self.flux.clone(), self.gathered.clone(), request.clone());
        tokio::spawn(async move {
            let whole = tokio::time::timeout(GATHER_LIMIT, gather(table, others)).await;
            // Who asked has gone if that fails. A shell that does not answer has ended.
            let _ = match whole {
                Ok(Some(packed)) => {
                    flux.respond(&request, encode_json(&packed).unwrap_or_default())
                }
                _ => flux.refuse(&request, Errno::ECANCELED, ""),
            };
            let _ = gathered.send(());
        });
    }

    fn write_request(&mut self, request: &Message) -> Result<(), Refused> {
        let write: WriteRequest = decode(request)?;
        if let Err(e) = self.output.write_remote(&write, &mut self.journal) {
            let rank = write.shell_rank;
            self.log.error(
                "output.service",
                format_args!("error recording write data for rank {rank}: {e}"),
            );
        }
        Ok(())
    }

    fn credit_request(&mut self, request: &Message) -> Result<(), Refused> {
        let credit: Credit = decode(request)?;
        self.respond(request, encode_json(&credit).unwrap_or_default());
        Ok(())
    }

    fn complete_request(&mut self, request: &Message) -> Result<(), Refused> {
        let complete: TasksComplete = decode(request)?;
        let shell_rank = u32::try_from(complete.shell_rank).map_err(|_| (Errno::EPROTO, ""))?;
        self.shell_complete(shell_rank);
        Ok(())
    }
}

async fn gather(mut table: Proctable, others: Vec<Result<RawPending, RpcError>>) -> Option<Packed> {
    for other in others {
        let part = other.ok()?.await.ok()?;
        let part: Packed = decode_json(part.payload.as_ref()).ok()?;
        if !table.merge(&part) {
            return None;
        }
    }
    Some(table.pack())
}

fn decode<T: serde::de::DeserializeOwned>(request: &Message) -> Result<T, Refused> {
    decode_json(request.payload.as_ref()).map_err(|e| (e.errno(), ""))
}
