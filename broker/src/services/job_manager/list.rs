//! `list`, `getattr`, `getinfo`: what the job manager knows by itself.

use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::job_manager as rpc;
use serde_json::Value;
use serde_json::value::RawValue;

use super::job::Job;
use super::{Context, JobManager};
use crate::call::Sender;

impl JobManager {
    /// Active jobs: those with resources last, the others by priority.
    pub(super) fn list(
        &mut self,
        _: &Context,
        request: rpc::ListRequest,
        _: &Sender,
    ) -> Result<rpc::ListResponse, Failure> {
        let limit = match usize::try_from(request.max_entries) {
            Ok(0) => usize::MAX,
            Ok(limit) => limit,
            Err(_) => return Err(Errno::EPROTO.into()),
        };
        let mut jobs: Vec<&Job> = self.active_jobs().collect();
        jobs.sort_by_key(|job| {
            (job.has_resources, std::cmp::Reverse(job.queue_priority()), job.id)
        });
        // Jobs that have ended and that somebody is still to ask for come last, and all of them.
        let zombies = self.wait.zombies().filter_map(|id| self.jobs.get(&id));
        let jobs = jobs
            .into_iter()
            .take(limit)
            .chain(zombies)
            .map(|job| rpc::ListedJob {
                id: job.id,
                userid: job.userid,
                urgency: job.urgency,
                priority: job.priority.map_or(-1, i64::from),
                t_submit: job.t_submit,
                state: job.state.bit(),
                annotations: job.annotations.clone(),
            })
            .collect();
        Ok(rpc::ListResponse { jobs })
    }

    pub(super) fn getattr(
        &mut self,
        _: &Context,
        request: rpc::GetattrRequest,
        sender: &Sender,
    ) -> Result<Object, Failure> {
        let job =
            self.jobs.get(&request.id).ok_or_else(|| Failure::new(Errno::EINVAL, "unknown job"))?;
        if !sender.cred.authorizes(Userid(job.userid)) {
            return Err(Errno::EPERM.into());
        }
        let mut object = Object::new();
        for name in request.attrs {
            let value = match name.as_str() {
                "jobspec" => parse(Some(&*job.jobspec)),
                "R" => parse(job.r.as_deref()),
                "userid" => Ok(job.userid.into()),
                "urgency" => Ok(job.urgency.into()),
                "priority" => Ok(job.queue_priority().into()),
                "t_submit" => Ok(job.t_submit.into()),
                "state" => Ok(job.state.bit().into()),
                _ => Err(Errno::ENOENT.into()),
            };
            object.insert(name, value?);
        }
        Ok(object)
    }

    pub(super) fn getinfo(
        &mut self,
        _: &Context,
        _: Empty,
        sender: &Sender,
    ) -> Result<rpc::GetinfoResponse, Failure> {
        // The id of the last job tells when and where somebody submitted.
        if self.access.hides_jobs_from(sender.cred) {
            return Err(Errno::EPERM.into());
        }
        Ok(rpc::GetinfoResponse { max_jobid: self.max_jobid.0 })
    }
}

fn parse(raw: Option<&RawValue>) -> Result<Value, Failure> {
    let raw = raw.ok_or(Errno::ENOENT)?;
    serde_json::from_str(raw.get()).map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))
}
