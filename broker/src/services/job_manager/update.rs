//! `update`: change a job's jobspec, as far as plugins allow it key by key (RFC 21).

use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::job_manager as rpc;

use super::{Context, JobManager};
use crate::call::Call;

impl JobManager {
    pub(super) fn update(
        &mut self,
        context: &Context,
        request: rpc::UpdateRequest,
        call: Call<Empty>,
    ) {
        let job = match self.active_job(request.id) {
            Ok(job) => job,
            Err(failure) if failure.text.as_deref() == Some("job is inactive") => {
                return call.fail(Failure::new(Errno::EINVAL, "job is inactive"));
            }
            Err(failure) => return call.fail(failure),
        };
        if !call.cred().authorizes(Userid(job.userid)) {
            let text = "guests may only update their own jobs";
            return call.fail(Failure::new(Errno::EPERM, text));
        }
        if let Some(queue) = request.updates.get("attributes.system.queue")
            && !call.cred().is_owner()
            && let Err(text) = self.queues.check_user(job.userid, queue.as_str())
        {
            return call.fail(Failure::new(Errno::EPERM, text));
        }
        let id = request.id;
        let cred = call.cred();
        self.plugins_update(context, id, cred, request.updates, move |manager, context, result| {
            match result {
                Ok(updates) => manager.updated(context, id, &updates, call),
                Err(failure) => call.fail(failure),
            }
        });
    }

    /// Allowed: an event, and an answer when it is stored.
    fn updated(
        &mut self,
        context: &Context,
        id: flux_protocol::fluid::JobId,
        updates: &Object,
        call: Call<Empty>,
    ) {
        if self.active_job(id).is_err() {
            return call.fail(Failure::new(Errno::EINVAL, "job is inactive"));
        }
        let expiration = match self.moved_expiration(id, updates) {
            Ok(expiration) => expiration,
            Err(failure) => return call.fail(failure),
        };
        self.post_with(context, id, "jobspec-update", updates);
        if let Some(expiration) = expiration {
            self.move_expiration(context, id, expiration);
        }
        self.plugins_updated(context, id, updates);
        self.store.then(context, move |_, _, result| {
            call.finish(result.clone().map(|()| Empty));
        });
    }
}
