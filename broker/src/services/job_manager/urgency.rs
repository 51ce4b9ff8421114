//! `urgency`: what the user says about a job's importance.

use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::job_manager as rpc;
use serde::Serialize;

use super::job::{State, urgency};
use super::{Context, JobManager};
use crate::call::Sender;

/// Of the urgency event, in the order in which it is shown.
#[derive(Serialize)]
struct UrgencyContext {
    userid: u32,
    urgency: u32,
}

impl JobManager {
    pub(super) fn urgency(
        &mut self,
        context: &Context,
        request: rpc::UrgencyRequest,
        sender: &Sender,
    ) -> Result<rpc::UrgencyResponse, Failure> {
        let invalid = |text: &str| Failure::new(Errno::EINVAL, text);
        let wanted = u32::try_from(request.urgency).ok().filter(|u| *u <= urgency::EXPEDITE);
        let wanted = wanted.ok_or_else(|| invalid("urgency value is out of range"))?;
        let job = match self.jobs.get(&request.id) {
            None => return Err(invalid("unknown job")),
            Some(job) if job.state == State::Inactive => return Err(invalid("job is inactive")),
            Some(job) => job,
        };
        if !sender.cred.authorizes(Userid(job.userid)) {
            let text = "guests can only reprioritize their own jobs";
            return Err(Failure::new(Errno::EPERM, text));
        }
        if !sender.cred.is_owner() && wanted > job.urgency.max(urgency::DEFAULT) {
            let text = "guests can only adjust urgency <= default or their job's own";
            return Err(Failure::new(Errno::EPERM, text));
        }
        if job.has_resources {
            return Err(invalid("urgency cannot be changed once resources are allocated"));
        }
        let old_urgency = job.urgency;
        if wanted != old_urgency {
            let event = UrgencyContext { userid: sender.cred.userid.0, urgency: wanted };
            self.post_with(context, request.id, "urgency", &event);
        }
        Ok(rpc::UrgencyResponse { old_urgency })
    }
}
