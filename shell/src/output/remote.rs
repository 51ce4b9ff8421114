//! Output on its way to the leader, with a bound on what is under way.

use flux_client::{Client, Request, RpcError};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{decode_json, encode_json};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::WriteRequest;
use super::config::Credits;
use crate::job::Job;
use crate::log::Log;

const COMPONENT: &str = "output.client";

#[derive(Debug)]
pub(crate) struct Remote {
    flux: Client,
    topic: String,
    getcredit: String,
    leader: Nodeid,
    shell_rank: i64,
    credits: Credits,
    left: i64,
    asking: bool,
    granted: tokio::sync::mpsc::UnboundedSender<Result<i64, RpcError>>,
    grants: tokio::sync::mpsc::UnboundedReceiver<Result<i64, RpcError>>,
}

/// Request and response of `write-getcredit`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Credit {
    pub(crate) credits: i64,
}

// === impl Remote ===

impl Remote {
    pub(super) fn new(flux: &Client, job: &Job, credits: Credits) -> Remote {
        let (granted, grants) = tokio::sync::mpsc::unbounded_channel();
        Remote {
            flux: flux.clone(),
            topic: format!("{}.write", job.service),
            getcredit: format!("{}.write-getcredit", job.service),
            leader: Nodeid(job.leader()),
            shell_rank: i64::try_from(job.shell_rank).unwrap_or(-1),
            credits,
            left: credits.high,
            asking: false,
            granted,
            grants,
        }
    }

    pub(super) fn send<T: Serialize>(&mut self, name: &str, context: &T, log: &Log) {
        if let Err(e) = self.try_send(name, context) {
            // An error to log an error has no other place to go.
            if name == "log" {
                crate::log::say(format_args!("can't send to the leader: {e}"));
            } else {
                log.error(COMPONENT, format_args!("can't send to the leader: {e}"));
            }
        }
        self.left -= 1;
        if self.left == 0 {
            log.debug(COMPONENT, "flow control stop");
        }
        if self.left <= self.credits.low && !self.asking {
            self.ask();
        }
    }

    pub(super) fn has_credit(&self) -> bool {
        self.left > 0
    }

    /// The next answer of the leader; to be given to [`Remote::granted`].
    pub(crate) async fn grant(&mut self) -> Result<i64, RpcError> {
        match self.grants.recv().await {
            Some(grant) => grant,
            // This holds a sender itself.
            None => std::future::pending().await,
        }
    }

    pub(crate) fn granted(&mut self, grant: Result<i64, RpcError>, log: &Log) {
        self.asking = false;
        if self.left <= 0 {
            log.debug(COMPONENT, "flow control start");
        }
        match grant {
            Ok(credits) => self.left += credits,
            Err(e) => {
                // Better too much on the way than tasks that hang.
                log.error(COMPONENT, format_args!("getcredit failed: {e}"));
                self.left += self.credits.high;
            }
        }
    }

    fn try_send<T: Serialize>(&self, name: &str, context: &T) -> Result<(), RpcError> {
        let context = to_raw_value(context).map_err(|e| RpcError::Payload(e.into()))?;
        let request = WriteRequest { name: name.to_owned(), shell_rank: self.shell_rank, context };
        let request =
            Request::new(self.topic.as_str()).to(self.leader).payload(encode_json(&request)?);
        self.flux.notify_raw(request)
    }

    fn ask(&mut self) {
        self.asking = true;
        let flux = self.flux.clone();
        let topic = self.getcredit.clone();
        let leader = self.leader;
        let credits = self.credits.high;
        let granted = self.granted.clone();
        tokio::spawn(async move {
            let ask = async {
                let payload = encode_json(&Credit { credits })?;
                let request = Request::new(topic.as_str()).to(leader).payload(payload);
                let response = flux.rpc_raw(request).await?;
                Ok(decode_json::<Credit>(response.payload.as_ref())?.credits)
            };
            let _ = granted.send(ask.await);
        });
    }
}
