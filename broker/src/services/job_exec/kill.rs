//! Ending a job: a signal, then stronger ones until nothing of it runs.

use std::rc::Rc;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::encode_json;
use flux_protocol::rpc::{resource, rexec};
use serde_json::json;

use super::run::Run;
use super::settings::Settings;
use super::{Context, JobExec};
use crate::log::Severity;

/// Waits between kills grow by this factor, up to the limit.
const BACKOFF: f64 = 2.0;
const MAX_WAIT: f64 = 300.0;

/// How long to wait before each signal, and after the last one.
fn waits(first: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(first), |wait| Some((wait * BACKOFF).min(MAX_WAIT)))
}

impl Settings {
    /// Seconds from the signal that ends a job to its nodes' being drained.
    pub(super) fn patience(&self) -> f64 {
        let counted = || waits(self.kill_timeout).take(self.max_kill_count as usize + 1).sum();
        self.max_kill_timeout.unwrap_or_else(counted)
    }
}

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
    /// waits; nodes where that is of no use are drained, and what runs there is given up, so that
    /// the other nodes get other jobs.
    async fn escalate(self: Rc<Self>, context: Context) {
        let patience = self.settings().max_kill_timeout.map(seconds);
        match patience {
            None => self.kill_on(&context, self.settings().max_kill_count).await,
            Some(patience) => {
                let killing = self.kill_on(&context, u32::MAX);
                let _ = tokio::time::timeout(patience, killing).await;
            }
        }
        if !self.shells().unfinished().is_empty() && self.drain_nodes(&context).await {
            self.give_up();
        }
    }

    /// Until nothing of the job is left, or so many signals have not helped.
    async fn kill_on(&self, context: &Context, max_count: u32) {
        let settings = self.settings();
        for (count, wait) in (0..=max_count).zip(waits(settings.kill_timeout)) {
            tokio::time::sleep(seconds(wait)).await;
            if count == max_count || self.shells().unfinished().is_empty() {
                return;
            }
            if count == 0 {
                self.signal_tasks(context, settings.kill_signal);
            } else {
                self.signal_shells(context, libc::SIGKILL);
            }
        }
    }

    fn signal_tasks(&self, context: &Context, signum: i32) {
        let Ok(payload) = encode_json(&json!({ "signum": signum })) else { return };
        let topic = format!("shell-{}.kill", self.id().0);
        if let Err(failure) = context.handle().publish(topic, payload) {
            context.log(Severity::Err, format!("{}: kill: {failure}", self.id().f58()));
        }
    }

    /// Whether it was done: else the nodes would get jobs while they still run this one.
    async fn drain_nodes(&self, context: &Context) -> bool {
        let reason = format!("unkillable user processes for job {}", self.id().f58());
        let ranks = self.shells().unfinished().into_iter().collect();
        self.drain(context, &ranks, reason).await
    }

    pub(super) async fn drain(&self, context: &Context, ranks: &Idset, reason: String) -> bool {
        let request = resource::DrainRequest {
            targets: ranks.to_string(),
            reason: Some(reason),
            mode: Some("update".to_owned()),
        };
        let drained = context.handle().rpc_to::<resource::Drain>(Nodeid(0), &request).await;
        if let Err(failure) = &drained {
            context.log(Severity::Err, format!("{}: drain: {failure}", self.id().f58()));
        }
        drained.is_ok()
    }
}

/// Infinite ones are as long as can be.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
