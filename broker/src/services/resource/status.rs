//! `resource.status` and `resource.sched-status`: what users are shown.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::r::{ResourceSet, Resources};
use flux_protocol::rpc::{job_manager, resource as rpc};
use serde_json::Value;

use super::state::Change;
use super::{Context, Resource};
use crate::call::{Call, Calls, Sender};

/// Texts that are asked for much more often than they change.
#[derive(Debug, Default)]
pub struct Status {
    r: Option<Value>,
    all: Option<Value>,
    down: Option<Value>,
    /// They wait for the job manager's answer; one question serves all.
    waiting: Calls<rpc::SchedStatusResponse, ()>,
    is_asking: bool,
}

impl Status {
    /// Forget what is not so any more.
    pub(super) fn forget(&mut self, change: &Change) {
        match change {
            Change::Define | Change::Update { .. } => self.r = None,
            _ => {}
        }
        // Lost ranks, too, may have gone for good.
        self.all = None;
        self.down = None;
    }

    pub(super) fn forget_all(&mut self) {
        self.forget(&Change::Define);
    }

    pub(super) fn disconnect(&mut self, sender: &Sender) {
        self.waiting.disconnect(sender);
    }
}

impl Resource {
    pub(super) fn status(
        &mut self,
        context: &Context,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::StatusResponse, Failure> {
        only_on_rank_0(context)?;
        let r = match &self.status.r {
            Some(r) => r.clone(),
            None => {
                let inventory = self.state.inventory.as_ref().ok_or_else(not_ready)?;
                self.status.r.insert(to_value(&inventory.without_scheduling())?).clone()
            }
        };
        let drain = self.state.drain.groups().into_iter().map(|group| {
            let info = rpc::DrainInfo { timestamp: group.timestamp, reason: group.reason };
            (group.ranks.to_string(), info)
        });
        Ok(rpc::StatusResponse {
            r,
            drain: drain.collect(),
            online: self.state.up.to_string(),
            offline: self.state.offline().to_string(),
            exclude: self.state.exclude.to_string(),
            torpid: self.state.torpid.to_string(),
        })
    }

    pub(super) fn sched_status(
        &mut self,
        context: &Context,
        _: Empty,
        call: Call<rpc::SchedStatusResponse>,
    ) {
        if let Err(failure) = only_on_rank_0(context) {
            return call.fail(failure);
        }
        self.status.waiting.insert(call, ());
        if std::mem::replace(&mut self.status.is_asking, true) {
            return;
        }
        let handle = context.handle().clone();
        context.spawn(
            async move {
                let answer = handle.rpc_to::<job_manager::ResourceStatus>(Nodeid(0), &Empty).await;
                match answer {
                    Ok(response) => Ok(Some(response.allocated)),
                    // It is loaded later than we are.
                    Err(failure) if failure.errno == Errno::ENOSYS => Ok(None),
                    Err(failure) => Err(Failure::new(
                        Errno::EINVAL,
                        format!("job-manager.resource-status request failed: {failure}"),
                    )),
                }
            },
            |resource: &mut Resource, allocated| {
                resource.status.is_asking = false;
                let response = allocated.and_then(|allocated| resource.sched_view(allocated));
                for (call, ()) in resource.status.waiting.take(|_, ()| true) {
                    call.finish(response.clone());
                }
            },
        );
    }

    /// The answer, given R of what jobs have.
    fn sched_view(
        &mut self,
        allocated: Option<Value>,
    ) -> Result<rpc::SchedStatusResponse, Failure> {
        let inventory = self.state.inventory.as_ref().ok_or_else(not_ready)?;
        let hidden = self.state.exclude.union(&self.state.gone());
        let set = || {
            let mut set = inventory.without_scheduling();
            set.remove_ranks(&hidden);
            set
        };
        let all = match &self.status.all {
            Some(all) => all.clone(),
            None => self.status.all.insert(to_value(&set())?).clone(),
        };
        let down = match &self.status.down {
            Some(down) => down.clone(),
            None => {
                let set = set();
                let ranks = set.ranks();
                let down = ranks.difference(&self.state.available(&ranks));
                self.status.down.insert(to_value(&set.copy_ranks(&down))?).clone()
            }
        };
        let allocated = match allocated {
            Some(value) if !value.is_null() => with_properties(&value, &inventory.set)?,
            _ => nothing()?,
        };
        Ok(rpc::SchedStatusResponse { all, down, allocated: to_value(&allocated)? })
    }
}

/// Allocations name no properties, yet listings by property want them.
fn with_properties(allocated: &Value, all: &ResourceSet) -> Result<ResourceSet, Failure> {
    let mut set = ResourceSet::decode(&allocated.to_string()).map_err(|error| {
        Failure::new(Errno::EINVAL, format!("error preparing response: {error}"))
    })?;
    let ranks = set.ranks();
    for (name, with_property) in all.properties() {
        let with_property = with_property.intersect(&ranks);
        if !with_property.is_empty() {
            // The ranks are in the set, and the name is one of the inventory's.
            let _ = set.set_property(name, &with_property);
        }
    }
    Ok(set)
}

/// The empty set, with an empty list of nodes.
fn nothing() -> Result<ResourceSet, Failure> {
    ResourceSet::uniform(&Idset::new(), Resources::default(), &Hostlist::new())
        .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))
}

fn only_on_rank_0(context: &Context) -> Result<(), Failure> {
    match context.rank() {
        0 => Ok(()),
        _ => Err(Failure::new(Errno::EPROTO, "this RPC only works on rank 0")),
    }
}

fn not_ready() -> Failure {
    let text = format!("error preparing response: {}", Errno::ENOENT);
    Failure::new(Errno::ENOENT, text)
}

fn to_value(set: &ResourceSet) -> Result<Value, Failure> {
    serde_json::to_value(set).map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))
}
