//! `update`: change a job's jobspec, as far as plugins allow it key by key (RFC 21).

use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::{job_exec, job_manager as rpc, sched};
use serde_json::{Value, json};

use super::job::State;
use super::{Context, JobManager};
use crate::call::Call;
use crate::log::Severity;

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
                Ok(updates) => manager.updated(context, id, updates, call),
                Err(failure) => call.fail(failure),
            }
        });
    }

    /// Allowed by the plugins. Who holds the resources of a job that runs has a say in when it ends.
    fn updated(&mut self, context: &Context, id: JobId, updates: Object, call: Call<Empty>) {
        let expiration = match self.moved_expiration(id, &updates) {
            Ok(expiration) => expiration,
            Err(failure) => return call.fail(failure),
        };
        let bypass = self.jobs.get(&id).is_some_and(|job| job.alloc_bypass);
        let Some(expiration) = expiration.filter(|_| !bypass) else {
            return self.allowed(context, id, &updates, call);
        };
        let request = sched::ExpirationRequest { id, expiration };
        let (handle, after) = (context.handle().clone(), context.clone());
        context.spawn(
            async move { handle.rpc::<sched::Expiration>(&request).await },
            move |manager: &mut JobManager, result: Result<Empty, Failure>| match result {
                // Without a scheduler nobody objects.
                Err(refusal) if refusal.errno != Errno::ENOSYS => {
                    let text = format!("scheduler refused expiration update: {refusal}");
                    call.fail(Failure::new(refusal.errno, text));
                }
                _ => manager.allowed(&after, id, &updates, call),
            },
        );
    }

    /// Allowed: an event, and an answer when it is stored.
    fn allowed(&mut self, context: &Context, id: JobId, updates: &Object, call: Call<Empty>) {
        if self.active_job(id).is_err() {
            return call.fail(Failure::new(Errno::EINVAL, "job is inactive"));
        }
        if let Err(failure) = self.update_jobspec(context, id, updates) {
            return call.fail(failure);
        }
        self.plugins_updated(context, id, updates);
        self.store.then(context, move |_, _, result| {
            call.finish(result.clone().map(|()| Empty));
        });
    }

    /// Write an update down. EINVAL: a job that runs would have ended already.
    pub(super) fn update_jobspec(
        &mut self,
        context: &Context,
        id: JobId,
        updates: &Object,
    ) -> Result<(), Failure> {
        let expiration = self.moved_expiration(id, updates)?;
        self.post_with(context, id, "jobspec-update", updates);
        if let Some(expiration) = expiration {
            self.move_expiration(context, id, expiration);
        }
        Ok(())
    }

    /// When a job that runs is to end by another duration: Unix time, 0 for never; nothing where
    /// that is not what changes. EINVAL: it would have ended already.
    fn moved_expiration(&self, id: JobId, updates: &Object) -> Result<Option<f64>, Failure> {
        let duration = updates.get("attributes.system.duration").and_then(Value::as_f64);
        let (Some(duration), Some(job)) = (duration, self.jobs.get(&id)) else { return Ok(None) };
        let Some(r) = job.r.as_ref().filter(|_| job.state == State::Run) else { return Ok(None) };
        if duration <= 0.0 {
            return Ok(Some(0.0));
        }
        let start = serde_json::from_str::<Value>(r.get())
            .ok()
            .and_then(|r| r.pointer("/execution/starttime")?.as_f64())
            .unwrap_or(0.0);
        let expiration = start + duration;
        if expiration <= crate::time::unix_seconds(std::time::SystemTime::now()) {
            let text = "requested duration places job expiration in the past";
            return Err(Failure::new(Errno::EINVAL, text));
        }
        Ok(Some(expiration))
    }

    /// A job that runs ends at another time: write it down and tell who ends it.
    fn move_expiration(&mut self, context: &Context, id: JobId, expiration: f64) {
        self.post_with(context, id, "resource-update", &json!({ "expiration": expiration }));
        let request = job_exec::ExpirationRequest { id, expiration };
        let (handle, after) = (context.handle().clone(), context.clone());
        context.spawn(
            async move { handle.rpc::<job_exec::Expiration>(&request).await },
            move |_: &mut JobManager, result: Result<Empty, Failure>| {
                if let Err(failure) = result {
                    let text = format!("{}: expiration: {failure}", id.f58());
                    after.log(Severity::Err, text);
                }
            },
        );
    }
}
