//! Which tasks run where: nodes of the allocation (RFC 20) and the taskmap (RFC 34).

use flux_protocol::idset::Idset;
use flux_protocol::r::ResourceSet;
use flux_protocol::taskmap::Taskmap;

use crate::jobspec::{Jobspec, JobspecError, PerResource, Slots, Totals};

mod scheme;

pub(crate) use scheme::SchemeError;

/// A node of the job, in the order of shell ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) broker_rank: u32,
    pub(crate) host: String,
    pub(crate) cores: Idset,
    pub(crate) gpus: Idset,
}

#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) nodes: Vec<Node>,
    pub(crate) taskmap: Taskmap,
    pub(crate) slots: Slots,
    pub(crate) total_ntasks: u32,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error(transparent)]
    Jobspec(#[from] JobspecError),
    #[error("error distributing {0} tasks over R")]
    Distribute(u64),
    #[error("error distributing {count} tasks per-{kind} over R")]
    PerResource { count: u32, kind: String },
}

/// What has been taken away from a node, for the user to know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Adjustment {
    pub(crate) what: &'static str,
    pub(crate) from: String,
    pub(crate) to: String,
}

// === impl Layout ===

impl Layout {
    /// Lay the tasks out in blocks, as many on each node as its cores hold.
    pub(crate) fn new(jobspec: &Jobspec, r: &ResourceSet) -> Result<Layout, LayoutError> {
        let nodes: Vec<Node> = r
            .nodes()
            .map(|(rank, node)| Node {
                broker_rank: rank,
                host: node.host.to_string(),
                cores: node.resources.cores.clone(),
                gpus: node.resources.gpus.clone(),
            })
            .collect();
        let totals = Totals {
            nodes: nodes.len() as u64,
            cores: r.ncores(),
            gpus: r.ngpus(),
            slots: r.nslots,
        };
        let slots = jobspec.slots(totals)?;
        let counts = match &jobspec.per_resource {
            Some(per_resource) => distribute_per_resource(&nodes, per_resource)?,
            None => distribute(&nodes, jobspec.task_count(slots), slots.cores)?,
        };
        let mut taskmap = Taskmap::new();
        for (id, count) in (0..).zip(&counts) {
            taskmap.append(id, 1, *count);
        }
        let total_ntasks = counts.iter().sum();
        Ok(Layout { nodes, taskmap, slots, total_ntasks })
    }

    /// The shell rank of a broker.
    pub(crate) fn shell_rank(&self, broker_rank: u32) -> Option<usize> {
        self.nodes.iter().position(|node| node.broker_rank == broker_rank)
    }

    pub(crate) fn node(&self, shell_rank: usize) -> Option<&Node> {
        self.nodes.get(shell_rank)
    }

    pub(crate) fn host(&self, shell_rank: usize) -> &str {
        self.node(shell_rank).map_or("unknown", |node| &node.host)
    }

    pub(crate) fn taskids(&self, shell_rank: usize) -> Idset {
        u32::try_from(shell_rank).map(|id| self.taskmap.taskids(id)).unwrap_or_default()
    }

    /// The host of a task.
    pub(crate) fn task_host(&self, taskid: u32) -> &str {
        self.taskmap.nodeid(taskid).map_or("unknown", |id| self.host(id as usize))
    }

    /// Map the tasks by another scheme: `block`, `cyclic`, `manual` or `hostfile`.
    pub(crate) fn remap(&mut self, scheme: &str, value: &str) -> Result<(), SchemeError> {
        if let Some(taskmap) = scheme::map(self, scheme, value)? {
            self.taskmap = taskmap;
        }
        Ok(())
    }

    /// Jobspec version 1 asks for too many slots when tasks do not divide evenly by nodes: take
    /// away what no task is for, so that every task has the same.
    ///
    /// Returns what has changed on `shell_rank`.
    pub(crate) fn trim(&mut self, jobspec: &Jobspec, shell_rank: usize) -> Vec<Adjustment> {
        let uneven = jobspec.version == 1
            && !jobspec.is_node_exclusive()
            && jobspec.per_resource.is_none()
            && self.slots.per_node.is_some()
            && self.nodes.len() > 1
            && self.slots.count > u64::from(self.total_ntasks);
        let mut adjustments = Vec::new();
        if !uneven {
            return adjustments;
        }
        for (id, node) in self.nodes.iter_mut().enumerate() {
            let ntasks = u32::try_from(id).map_or(0, |id| self.taskmap.ntasks(id));
            let all = [
                ("cores", &mut node.cores, ntasks * self.slots.cores),
                ("gpus", &mut node.gpus, ntasks * self.slots.gpus),
            ];
            for (what, ids, needed) in all {
                if ids.count() <= needed {
                    continue;
                }
                let fewer = ids.lowest(needed);
                if id == shell_rank {
                    adjustments.push(Adjustment { what, from: ids.encode(), to: fewer.encode() });
                }
                *ids = fewer;
            }
        }
        adjustments
    }
}

/// Tasks per node, one at a time on each in turn, from the largest on, as long as there are cores;
/// after that anew, so that tasks share cores.
fn distribute(nodes: &[Node], ntasks: u64, cores_per_slot: u64) -> Result<Vec<u32>, LayoutError> {
    let failed = || LayoutError::Distribute(ntasks);
    let count = u32::try_from(ntasks).map_err(|_| failed())?;
    if nodes.is_empty() || count == 0 || u64::from(count) > flux_protocol::taskmap::MAX_TASKS {
        return Err(failed());
    }
    let total: u64 = nodes.iter().map(|node| node.cores.count()).sum();
    let cores = if cores_per_slot > 0 { cores_per_slot } else { total / ntasks };
    if cores == 0 {
        return Err(failed());
    }
    let smallest = nodes.iter().map(|node| node.cores.count()).min().unwrap_or_default();
    let cores = cores.min(smallest);
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|&id| std::cmp::Reverse(nodes.get(id).map_or(0, |node| node.cores.count())));

    let mut counts = vec![0; nodes.len()];
    let mut left = count;
    while left > 0 {
        let mut free: Vec<u64> = nodes.iter().map(|node| node.cores.count()).collect();
        let mut open = order.clone();
        while left > 0 && !open.is_empty() {
            open.retain(|&id| {
                let (Some(free), Some(count)) = (free.get_mut(id), counts.get_mut(id)) else {
                    return false;
                };
                if left == 0 || *free < cores {
                    return left == 0;
                }
                *free -= cores;
                *count += 1;
                left -= 1;
                true
            });
        }
    }
    Ok(counts)
}

fn distribute_per_resource(nodes: &[Node], per: &PerResource) -> Result<Vec<u32>, LayoutError> {
    let failed = || LayoutError::PerResource { count: per.count, kind: per.kind.clone() };
    let counts: Option<Vec<u32>> = match per.kind.as_str() {
        "node" => Some(vec![per.count; nodes.len()]),
        "core" => nodes
            .iter()
            .map(|node| u32::try_from(node.cores.count()).ok()?.checked_mul(per.count))
            .collect(),
        _ => None,
    };
    let counts = counts.ok_or_else(failed)?;
    let total = counts.iter().try_fold(0u32, |sum, count| sum.checked_add(*count));
    match total {
        Some(total) if u64::from(total) <= flux_protocol::taskmap::MAX_TASKS => Ok(counts),
        _ => Err(failed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn r(lite: Value, nslots: Option<u64>) -> ResourceSet {
        let mut execution = json!({"R_lite": lite, "starttime": 0.0, "expiration": 0.0,
            "nodelist": ["n[0-9]"]});
        if let Some(nslots) = nslots {
            execution["nslots"] = json!(nslots);
        }
        ResourceSet::decode(&json!({"version": 1, "execution": execution}).to_string()).unwrap()
    }

    fn jobspec(nodes: Option<u64>, slots: u64, count: Value, options: Value) -> Jobspec {
        let slot = json!({"type": "slot", "count": slots, "label": "task",
            "with": [{"type": "core", "count": 1}]});
        let resources = match nodes {
            Some(n) => json!([{"type": "node", "count": n, "with": [slot]}]),
            None => json!([slot]),
        };
        let value = json!({"version": 1, "resources": resources,
            "tasks": [{"command": ["a"], "slot": "task", "count": count}],
            "attributes": {"system": {"shell": {"options": options}}}});
        Jobspec::decode(&value.to_string()).unwrap()
    }

    fn counts(layout: &Layout) -> Vec<u64> {
        (0..).zip(&layout.nodes).map(|(id, _)| layout.taskmap.ntasks(id)).collect()
    }

    #[test]
    fn tasks_fill_nodes_in_turn_from_the_largest_on() {
        let r = r(
            json!([{"rank": "0", "children": {"core": "0-1"}},
                   {"rank": "1", "children": {"core": "0-3"}}]),
            None,
        );
        let spec = jobspec(None, 6, json!({"per_slot": 1}), json!({}));
        let layout = Layout::new(&spec, &r).unwrap();
        assert_eq!(counts(&layout), [2, 4]);
        assert_eq!(layout.taskids(1).encode(), "2-5");
    }

    #[test]
    fn ranks_stand_in_order_however_r_lists_them() {
        let r = r(
            json!([{"rank": "5", "children": {"core": "0"}},
                   {"rank": "2-3", "children": {"core": "0"}}]),
            None,
        );
        let spec = jobspec(None, 3, json!({"per_slot": 1}), json!({}));
        let layout = Layout::new(&spec, &r).unwrap();
        let ranks: Vec<u32> = layout.nodes.iter().map(|node| node.broker_rank).collect();
        assert_eq!(ranks, [2, 3, 5]);
        assert_eq!(layout.host(2), "n2");
        assert_eq!(layout.shell_rank(5), Some(2));
        assert_eq!(layout.shell_rank(4), None);
    }

    #[test]
    fn more_tasks_than_cores_share_them() {
        let r = r(json!([{"rank": "0-1", "children": {"core": "0-1"}}]), None);
        let spec = jobspec(Some(2), 2, json!({"total": 10}), json!({}));
        assert_eq!(counts(&Layout::new(&spec, &r).unwrap()), [5, 5]);
    }

    #[test]
    fn tasks_per_node_and_per_core_follow_the_allocation() {
        let r = r(json!([{"rank": "0-1", "children": {"core": "0-3"}}]), Some(2));
        for (per, expected) in
            [(json!({"type": "node", "count": 3}), [3, 3]), (json!({"type": "core"}), [4, 4])]
        {
            let spec = jobspec(Some(2), 1, json!({"per_slot": 1}), json!({"per-resource": per}));
            assert_eq!(counts(&Layout::new(&spec, &r).unwrap()), expected);
        }
        let spec =
            jobspec(Some(2), 1, json!({"per_slot": 1}), json!({"per-resource": {"type": "gpu"}}));
        assert!(Layout::new(&spec, &r).is_err());
    }

    #[test]
    fn cores_of_a_slot_without_task_are_given_up() {
        let r = r(json!([{"rank": "0-1", "children": {"core": "0-1"}}]), Some(4));
        let spec = jobspec(Some(2), 2, json!({"total": 3}), json!({}));
        let mut layout = Layout::new(&spec, &r).unwrap();
        assert_eq!(counts(&layout), [2, 1]);
        assert_eq!(layout.trim(&spec, 0), []);
        let mut layout = Layout::new(&spec, &r).unwrap();
        let adjusted = layout.trim(&spec, 1);
        assert_eq!(
            adjusted,
            [Adjustment { what: "cores", from: "0-1".to_owned(), to: "0".to_owned() }]
        );
        assert_eq!(layout.node(1).unwrap().cores.encode(), "0");
    }

    #[test]
    fn an_allocation_without_cores_runs_nothing() {
        let r = r(json!([]), None);
        let spec = jobspec(None, 1, json!({"per_slot": 1}), json!({}));
        assert!(Layout::new(&spec, &r).is_err());
    }
}
