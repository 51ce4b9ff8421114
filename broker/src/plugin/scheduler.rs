//! The handle to a loaded scheduler.

use super::desk::{DeskRequest, ResourceStatus};
use super::fault::CallError;
use super::handle::Plugin;
use super::recorder::Step;
use super::request::Request;
use super::v1::types::{Change, Decision, Depth, Job, JobId, Refusal, ResourceSet};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;

/// A loaded scheduler. Clones talk to the same one.
#[derive(Debug, Clone)]
pub struct Scheduler {
    plugin: Plugin,
}

// === impl Scheduler ===

impl Scheduler {
    pub(super) fn new(plugin: Plugin) -> Self {
        Scheduler { plugin }
    }

    /// Name, statistics, query, configuration.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Tells of changes, in order. Answers come as
    /// [`SchedulerEvent`](super::SchedulerEvent)s.
    ///
    /// The first is `Resources`, then `Up`, then `Hello` with the jobs that run; then
    /// [`Scheduler::ready`]. `Feasibility` and `JobExpiration` have functions of their own.
    ///
    /// # Errors
    ///
    /// The plugin is gone.
    pub async fn tell(&self, changes: Vec<Change>) -> Result<(), CallError> {
        self.plugin.send(Request::Desk(DeskRequest::Changes(changes))).await
    }

    /// How many requests it wants to see at once (`job-manager.sched-ready`).
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn ready(&self) -> Result<Depth, CallError> {
        self.plugin.ask(|reply| Request::Desk(DeskRequest::Ready(reply))).await?
    }

    /// Whether a job could ever run. The inner error is the scheduler's text for the user.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn feasibility(
        &self,
        job: Job,
        jobspec: String,
    ) -> Result<Result<(), Refusal>, CallError> {
        let job = Box::new(job);
        self.plugin.ask(|reply| Request::Desk(DeskRequest::Feasibility(job, jobspec, reply))).await
    }

    /// Proposes another end for a running job; 0 for none.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn expiration(
        &self,
        id: JobId,
        expiration: f64,
    ) -> Result<Result<(), Refusal>, CallError> {
        self.plugin.ask(|reply| Request::Desk(DeskRequest::Expiration(id, expiration, reply))).await
    }

    /// Makes one call of a recording; the books have no part in it.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn replay(&self, step: Step) -> Result<Vec<Decision>, CallError> {
        let asked = |reply| Request::Desk(DeskRequest::Step(Box::new(step), reply));
        Ok(self.plugin.ask(asked).await??.decisions)
    }

    /// Enters resources in the books that were not there before: all there are, and the idset of
    /// the new ones that are up. A scheduler that runs is not told; one that takes over is.
    ///
    /// # Errors
    ///
    /// The plugin is gone, or the resources can't be read.
    pub async fn grow(&self, set: ResourceSet, up: String) -> Result<(), Failure> {
        let asked = self.plugin.ask(|reply| Request::Desk(DeskRequest::Grow(set, up, reply))).await;
        let entered = asked.map_err(|error| Failure::new(Errno::EIO, error.to_string()))?;
        entered.map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))
    }

    /// The books. Answered also while the plugin is down.
    ///
    /// # Errors
    ///
    /// The plugin is gone.
    pub async fn status(&self) -> Result<ResourceStatus, CallError> {
        self.plugin.ask(|reply| Request::Desk(DeskRequest::Status(reply))).await
    }
}
