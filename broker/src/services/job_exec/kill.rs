//! Ending a job: a signal, then stronger ones until nothing of it runs.

use std::rc::Rc;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::encode_json;
use flux_protocol::rpc::{resource, rexec};
use serde_json::json;

use super::run::Run;
use super::{Context, JobExec};
use crate::log::Severity;

/// Waits between kills grow by this factor, up to the limit.
const BACKOFF: f64 = 2.0;
const MAX_WAIT: f64 = 300.0;

impl Run {
    /// Send a signal to the shells, which pass it on to the tasks; then see to it that they end.
    pub(super) fn kill(self: &Rc<Self>, context: &Context, signum: i32) {
        self.signal_shells(context, signum);
        let (run, after) = (self.clone(), context.clone());
        context.spawn(run.escalate(after), |_: &mut JobExec, ()| {});
    }

    fn signal_shells(&self, context: &Context, signum: i32) {
        let signum = self.signal_for_shell(context, signum);
        for (rank, pid) in self.shells().running() {
            let request = rexec::KillRequest { pid, label: None, signum };
            let handle = context.handle().clone();
            let (after, id) = (context.clone(), self.id());
            context.spawn(
                async move { handle.rpc_to::<rexec::Kill>(Nodeid(rank), &request).await },
                move |_: &mut JobExec, result| {
                    if let Err(failure) = result
                        && failure.errno != Errno::ESRCH
                    {
                        let text = format!("{}: kill rank {rank}: {failure}", id.f58());
                        after.log(Severity::Err, text);
                    }
                },
            );
        }
    }

    /// SIGKILL to the tasks, by way of the shells, then to the shells themselves, with growing
    /// waits; nodes where that is of no use are drained.
    async fn escalate(self: Rc<Self>, context: Context) {
        let settings = self.settings();
        let mut wait = settings.kill_timeout;
        for count in 0..settings.max_kill_count {
            tokio::time::sleep(Duration::from_secs_f64(wait)).await;
            if self.shells().unfinished().is_empty() {
                return;
            }
            if count == 0 {
                self.signal_tasks(&context, settings.kill_signal);
            } else {
                self.signal_shells(&context, libc::SIGKILL);
            }
            wait = (wait * BACKOFF).min(MAX_WAIT);
        }
        tokio::time::sleep(Duration::from_secs_f64(wait)).await;
        self.drain_nodes(&context).await;
    }

    fn signal_tasks(&self, context: &Context, signum: i32) {
        let Ok(payload) = encode_json(&json!({ "signum": signum })) else { return };
        let topic = format!("shell-{}.kill", self.id().0);
        if let Err(failure) = context.handle().publish(topic, payload) {
            context.log(Severity::Err, format!("{}: kill: {failure}", self.id().f58()));
        }
    }

    async fn drain_nodes(&self, context: &Context) {
        let ranks: Vec<String> = self.shells().unfinished().iter().map(u32::to_string).collect();
        if ranks.is_empty() {
            return;
        }
        let request = resource::DrainRequest {
            targets: ranks.join(","),
            reason: Some(format!("unkillable processes from job {}", self.id().f58())),
            mode: Some("update".to_owned()),
        };
        let drained = context.handle().rpc_to::<resource::Drain>(Nodeid(0), &request).await;
        if let Err(failure) = drained {
            context.log(Severity::Err, format!("{}: drain: {failure}", self.id().f58()));
        }
    }
}
