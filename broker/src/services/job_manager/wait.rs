//! `wait`: the owner waits for jobs that were submitted as waitable, once for each.

use std::collections::HashMap;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::job_ingest::flags;
use flux_protocol::rpc::job_manager as rpc;
use flux_protocol::signal;

use super::job::{EndEvent, Job};
use super::{Context, JobManager};
use crate::call::{Call, Calls, Sender};

/// Any waitable job.
const ANY: i64 = -1;

/// Who waits, and what nobody has waited for yet.
#[derive(Debug, Default)]
pub struct Wait {
    calls: Calls<rpc::WaitResponse, i64>,
    /// Inactive jobs in the order of their end.
    zombies: Vec<JobId>,
    results: HashMap<JobId, rpc::WaitResponse>,
    /// Waitable jobs that are active.
    active: usize,
}

impl Wait {
    pub(super) fn disconnect(&mut self, sender: &Sender) {
        self.calls.disconnect(sender);
    }

    pub(super) fn job_new(&mut self, job: &Job) {
        if job.flags & flags::WAITABLE != 0 {
            self.active += 1;
        }
    }

    pub(super) fn job_inactive(&mut self, job: &Job) {
        if job.flags & flags::WAITABLE == 0 {
            return;
        }
        self.active = self.active.saturating_sub(1);
        let response = response(job);
        let number = i64::try_from(job.id.0).unwrap_or(ANY);
        let mut waiting = self.calls.take(|_, id| *id == number);
        if waiting.is_empty() {
            waiting = self.take_any();
        }
        match waiting.into_iter().next() {
            Some((call, _)) => call.reply(&response),
            None => {
                self.zombies.push(job.id);
                self.results.insert(job.id, response);
            }
        }
        if self.active == 0 && self.zombies.is_empty() {
            for (call, _) in self.calls.take(|_, id| *id == ANY) {
                call.fail(none_left());
            }
        }
    }

    /// The first who waits for any job.
    fn take_any(&mut self) -> Vec<(Call<rpc::WaitResponse>, i64)> {
        let mut taken = false;
        self.calls.take(|_, id| *id == ANY && !std::mem::replace(&mut taken, true))
    }

    /// Jobs that have ended, and that nobody has waited for yet.
    pub(super) fn zombies(&self) -> impl Iterator<Item = JobId> + '_ {
        self.zombies.iter().copied()
    }

    fn reap(&mut self, id: JobId) -> Option<rpc::WaitResponse> {
        self.zombies.retain(|zombie| *zombie != id);
        self.results.remove(&id)
    }
}

impl JobManager {
    pub(super) fn wait(
        &mut self,
        _: &Context,
        request: rpc::WaitRequest,
        call: Call<rpc::WaitResponse>,
    ) {
        if request.id == ANY {
            return self.wait_any(call);
        }
        let id = JobId(u64::try_from(request.id).unwrap_or(0));
        if let Some(response) = self.wait.reap(id) {
            return call.reply(&response);
        }
        // A job that is inactive may still be held by plugins that hear of it, and is told of then.
        let waitable = self.jobs.get(&id).is_some_and(|job| job.flags & flags::WAITABLE != 0);
        if !waitable || self.purge.has(id) {
            let text = "invalid job id, or job may be inactive and not waitable";
            return call.fail(Failure::new(Errno::ECHILD, text));
        }
        if self.wait.calls.iter().any(|(_, other)| *other == request.id) {
            let text = "job id already has a waiter";
            return call.fail(Failure::new(Errno::EINVAL, text));
        }
        self.wait.calls.insert(call, request.id);
    }

    fn wait_any(&mut self, call: Call<rpc::WaitResponse>) {
        let first = self.wait.zombies.first().copied();
        match first.and_then(|id| self.wait.reap(id)) {
            Some(response) => call.reply(&response),
            None if self.wait.active == 0 => call.fail(none_left()),
            None => self.wait.calls.insert(call, ANY),
        }
    }
}

fn none_left() -> Failure {
    Failure::new(Errno::ECHILD, "there are no more waitable jobs")
}

fn response(job: &Job) -> rpc::WaitResponse {
    let (success, errstr) = match &job.end_event {
        Some(EndEvent::Finish { status: 0 }) => (true, String::new()),
        Some(EndEvent::Finish { status }) => (false, describe(*status)),
        Some(EndEvent::Exception { kind, note }) if note.is_empty() => {
            (false, format!("Fatal exception type={kind}"))
        }
        Some(EndEvent::Exception { kind, note }) => {
            (false, format!("Fatal exception type={kind} {note}"))
        }
        None => (false, "job ended without a result".to_owned()),
    };
    rpc::WaitResponse { id: job.id, success, errstr }
}

/// A wait(2) status in words. The shell exits with 128 and the signal's number when a signal has
/// ended a task.
fn describe(status: i32) -> String {
    match (status & 0x7f, (status >> 8) & 0xff) {
        (0, code @ 129..) => format!("task(s) {}", signal::describe(code - 128)),
        (0, code) => format!("task(s) exited with exit code {code}"),
        (signal, _) => format!("job shell {}", signal::describe(signal)),
    }
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn a_signal_that_ended_a_task_is_named_whether_or_not_the_shell_survived_it() {
        assert_eq!(describe(3 << 8), "task(s) exited with exit code 3");
        assert_eq!(describe(143 << 8), "task(s) Terminated");
        assert_eq!(describe(9), "job shell Killed");
    }
}
