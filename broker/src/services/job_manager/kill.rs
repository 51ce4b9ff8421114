//! Signals to running jobs: `kill` and `killall`.

use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::{Empty, encode_json};
use flux_protocol::rpc::job_manager as rpc;
use serde_json::json;

use super::job::State;
use super::{Context, JobManager};
use crate::call::Sender;

impl JobManager {
    pub(super) fn kill(
        &mut self,
        context: &Context,
        request: rpc::KillRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        let invalid = |text: &str| Failure::new(Errno::EINVAL, text);
        check_signal(request.signum)?;
        let job = match self.jobs.get(&request.id) {
            None => return Err(invalid("unknown job id")),
            Some(job) if job.state == State::Inactive => return Err(invalid("job is inactive")),
            Some(job) => job,
        };
        if !sender.cred.authorizes(Userid(job.userid)) {
            let text = "guests may only send signals to their own jobs";
            return Err(Failure::new(Errno::EPERM, text));
        }
        if job.state != State::Run {
            return Err(invalid("job is not running"));
        }
        self.send_signal(context, request.id, request.signum)?;
        Ok(Empty)
    }

    pub(super) fn kill_all(
        &mut self,
        context: &Context,
        request: rpc::KillAllRequest,
        sender: &Sender,
    ) -> Result<rpc::CountErrors, Failure> {
        check_signal(request.signum)?;
        if !sender.cred.authorizes(Userid(request.userid)) {
            let text = "guests can only kill their own jobs";
            return Err(Failure::new(Errno::EPERM, text));
        }
        let matched: Vec<JobId> = self
            .active_jobs()
            .filter(|job| job.state == State::Run)
            .filter(|job| request.userid == rpc::ANY_USER || job.userid == request.userid)
            .map(|job| job.id)
            .collect();
        let mut errors = 0;
        if !request.dry_run {
            for id in &matched {
                errors += u64::from(self.send_signal(context, *id, request.signum).is_err());
            }
        }
        Ok(rpc::CountErrors { count: matched.len() as u64, errors })
    }

    /// The job's shells have subscribed to this event.
    fn send_signal(&self, context: &Context, id: JobId, signum: i64) -> Result<(), Failure> {
        let payload = encode_json(&json!({ "signum": signum }))?;
        context.handle().publish(format!("shell-{}.kill", id.0), payload)
    }
}

/// Linux has signals 1 to 64.
fn check_signal(signum: i64) -> Result<(), Failure> {
    match signum {
        1..=64 => Ok(()),
        _ => Err(Failure::new(Errno::EINVAL, "Invalid signal number")),
    }
}
