//! What is known of an instance that is a job: its jobs and resources.

use flux_client::{Client, RpcError};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::resource;
use serde::Deserialize;

use super::info::JobInfo;
use super::stats::JobStats;
use crate::context::Context;
use crate::listing::Value;

/// Nodes, cores and GPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    nodes: u64,
    cores: u64,
    gpus: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Instance {
    stats: JobStats,
    all: Amount,
    down: Amount,
    allocated: Amount,
}

impl JobInfo {
    /// Ask the instance that the job is, where it is one and can be reached.
    pub(crate) async fn ask_instance(&mut self, context: &Context) {
        if !self.is_instance() {
            return;
        }
        let Some(uri) = self.uri() else { return };
        // Services may not be up yet, or the instance may be somebody else's.
        if let Ok(flux) = context.connect_to(uri).await {
            self.instance = Instance::fetch(&flux).await.ok();
        }
    }
}

impl Instance {
    async fn fetch(flux: &Client) -> Result<Instance, RpcError> {
        let resources = flux.rpc::<resource::SchedStatus>(Nodeid::ANY, &Empty).await?;
        let stats = JobStats::fetch(flux, &[]).await.unwrap_or_default();
        Ok(Instance {
            stats,
            all: Amount::of(&resources.all),
            down: Amount::of(&resources.down),
            allocated: Amount::of(&resources.allocated),
        })
    }

    /// A field below `instance.`.
    pub(super) fn field(&self, name: &str) -> Value {
        match name {
            "utilization" => ratio(self.allocated.cores, self.all.cores),
            "gpu_utilization" => ratio(self.allocated.gpus, self.all.gpus),
            "progress" => ratio(self.stats.inactive, self.stats.total),
            "stats" => format!(
                "PD:{} R:{} CD:{} F:{}",
                self.stats.pending, self.stats.running, self.stats.successful, self.stats.failed
            )
            .into(),
            name => self.nested(name),
        }
    }

    fn nested(&self, name: &str) -> Value {
        let mut parts = name.split('.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("stats"), Some(name), None) => count(match name {
                "pending" => self.stats.pending,
                "running" => self.stats.running,
                "active" => self.stats.active(),
                "successful" => self.stats.successful,
                "failed" => self.stats.failed,
                "inactive" => self.stats.inactive,
                "total" => self.stats.total,
                _ => return Value::None,
            }),
            (Some("resources"), Some(set), Some(what)) => {
                let amount = match set {
                    "all" => self.all,
                    "down" => self.down,
                    "allocated" => self.allocated,
                    "up" => self.all.minus(self.down),
                    "free" => self.all.minus(self.down).minus(self.allocated),
                    _ => return Value::None,
                };
                count(match what {
                    "nnodes" => amount.nodes,
                    "ncores" => amount.cores,
                    "ngpus" => amount.gpus,
                    _ => return Value::None,
                })
            }
            _ => Value::None,
        }
    }
}

fn count(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn ratio(part: u64, whole: u64) -> Value {
    if whole == 0 { Value::None } else { Value::Float(part as f64 / whole as f64) }
}

impl Amount {
    fn of(r: &serde_json::Value) -> Amount {
        let Ok(set) = ResourceSet::deserialize(r) else { return Amount::default() };
        Amount { nodes: set.nnodes() as u64, cores: set.ncores(), gpus: set.ngpus() }
    }

    fn minus(self, other: Amount) -> Amount {
        Amount {
            nodes: self.nodes.saturating_sub(other.nodes),
            cores: self.cores.saturating_sub(other.cores),
            gpus: self.gpus.saturating_sub(other.gpus),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_up_and_not_allocated() {
        let amount = |nodes, cores| Amount { nodes, cores, gpus: 0 };
        let instance = Instance {
            stats: JobStats { total: 4, inactive: 1, ..JobStats::default() },
            all: amount(4, 16),
            down: amount(1, 4),
            allocated: amount(2, 8),
        };
        assert_eq!(instance.field("resources.free.ncores"), Value::Int(4));
        assert_eq!(instance.field("resources.up.nnodes"), Value::Int(3));
        assert_eq!(instance.field("utilization"), Value::Float(0.5));
        assert_eq!(instance.field("gpu_utilization"), Value::None);
        assert_eq!(instance.field("progress"), Value::Float(0.25));
        assert_eq!(instance.field("stats"), Value::from("PD:0 R:0 CD:0 F:0"));
        assert_eq!(instance.field("stats.nope"), Value::None);
    }
}
