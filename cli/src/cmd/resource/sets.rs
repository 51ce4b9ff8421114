//! What is so of which nodes: the sum of what the resource service, the scheduler and the job
//! manager know.

use std::collections::BTreeMap;
use std::rc::Rc;

use flux_client::{Client, Request};
use flux_protocol::idset::Idset;
use flux_protocol::payload::{Empty, Payload};
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::resource as rpc;
use serde_json::Value;

use super::{LEADER, error};
use crate::failure::Failure;

/// Sets of ranks.
#[derive(Debug, Clone, Default)]
pub(super) struct Sets {
    pub(super) resources: ResourceSet,
    pub(super) all: Idset,
    pub(super) online: Idset,
    pub(super) offline: Idset,
    pub(super) exclude: Idset,
    pub(super) torpid: Idset,
    pub(super) allocated: Idset,
    pub(super) housekeeping: Idset,
    /// Drained with nothing running.
    pub(super) drained: Idset,
    /// Drained while something still runs.
    pub(super) draining: Idset,
    /// By rank.
    pub(super) info: BTreeMap<u32, Rc<rpc::DrainInfo>>,
}

impl Sets {
    pub(super) async fn get(flux: &Client) -> Result<Sets, Failure> {
        // Sent together: each takes its time at rank 0.
        let status = flux.start::<rpc::Status>(LEADER, &Empty)?;
        let sched = flux.start::<rpc::SchedStatus>(LEADER, &Empty)?;
        let stats = flux.start_raw(Request::new("job-manager.stats-get").to(LEADER))?;
        let status = status.await.map_err(error)?;
        // Without a scheduler nothing is allocated, and without a job manager nothing cleaned.
        let allocated = match sched.await {
            Ok(sched) => decode(&sched.allocated)?.ranks(),
            Err(_) => Idset::new(),
        };
        let housekeeping = match stats.await {
            Ok(message) => Value::decode(message.payload.as_ref()).map(|v| in_housekeeping(&v)),
            Err(_) => Ok(Idset::new()),
        };
        Sets::new(&status, allocated, housekeeping.unwrap_or_default())
    }

    pub(super) fn new(
        status: &rpc::StatusResponse,
        allocated: Idset,
        housekeeping: Idset,
    ) -> Result<Sets, Failure> {
        let resources = decode(&status.r)?;
        let ids = |text: &str| Idset::decode(text).map_err(error);
        let mut drained = Idset::new();
        let mut info = BTreeMap::new();
        for (ranks, entry) in &status.drain {
            let (ranks, entry) = (ids(ranks)?, Rc::new(entry.clone()));
            info.extend(ranks.iter().map(|rank| (rank, entry.clone())));
            drained.union_with(&ranks);
        }
        let draining = drained.intersect(&allocated);
        drained.subtract(&draining);
        Ok(Sets {
            all: resources.ranks(),
            resources,
            online: ids(&status.online)?,
            offline: ids(&status.offline)?,
            exclude: ids(&status.exclude)?,
            torpid: ids(&status.torpid)?,
            allocated,
            housekeeping,
            drained,
            draining,
            info,
        })
    }

    /// Only these ranks.
    pub(super) fn keep(&mut self, ranks: &Idset) {
        for set in [
            &mut self.all,
            &mut self.online,
            &mut self.offline,
            &mut self.exclude,
            &mut self.torpid,
            &mut self.allocated,
            &mut self.housekeeping,
            &mut self.drained,
            &mut self.draining,
        ] {
            *set = set.intersect(ranks);
        }
    }

    /// Neither excluded nor drained nor torpid, whether online or not.
    pub(super) fn avail(&self) -> Idset {
        let mut ranks = self.all.clone();
        for set in [&self.exclude, &self.drained, &self.draining, &self.torpid] {
            ranks.subtract(set);
        }
        ranks
    }

    pub(super) fn hosts(&self, ranks: &Idset) -> String {
        self.resources.copy_ranks(ranks).nodelist().to_string()
    }
}

/// R, or null where there is none.
pub(super) fn decode(r: &Value) -> Result<ResourceSet, Failure> {
    match r {
        Value::Null => Ok(ResourceSet::new()),
        r => ResourceSet::decode(&r.to_string()).map_err(error),
    }
}

fn in_housekeeping(stats: &Value) -> Idset {
    let mut ranks = Idset::new();
    let running = stats.pointer("/housekeeping/running").and_then(Value::as_object);
    for job in running.into_iter().flat_map(|running| running.values()) {
        let allocated = job.get("allocated").and_then(Value::as_str);
        if let Some(allocated) = allocated.and_then(|ids| Idset::decode(ids).ok()) {
            ranks.union_with(&allocated);
        }
    }
    ranks
}
