//! How many tasks, nodes and cores a job is for, as far as its jobspec tells before it has an R.

use flux_protocol::jobspec::Jobspec;
use serde::Deserialize;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) ntasks: Option<u64>,
    /// Unless nodes are asked for.
    pub(super) nnodes: Option<u64>,
    /// Unless nodes are asked for as a whole: some have more of them.
    pub(super) ncores: Option<u64>,
    per_resource: Option<PerResource>,
}

/// The shell's option of this name: so many tasks on each of what the job gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct PerResource {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default = "one")]
    count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Node,
    Core,
}

fn one() -> u64 {
    1
}

// === impl Demand ===

impl Demand {
    pub(super) fn of(jobspec: &Jobspec) -> Demand {
        let Ok(counts) = jobspec.counts() else { return Demand::default() };
        let nnodes = Some(counts.nnodes).filter(|nnodes| *nnodes > 0);
        let ncores = Some(counts.ncores()).filter(|_| nnodes.is_none() || !counts.exclusive);
        let per_resource = jobspec
            .shell_option("per-resource")
            .and_then(|option| PerResource::deserialize(option).ok())
            .filter(|per| per.count > 0);
        let ntasks = match per_resource {
            None => jobspec.ntasks().ok(),
            Some(PerResource { kind: Kind::Node, count }) => {
                nnodes.and_then(|nnodes| nnodes.checked_mul(count))
            }
            // Nodes come with as many cores as they have.
            Some(PerResource { kind: Kind::Core, count }) if nnodes.is_none() => {
                counts.ncores().checked_mul(count)
            }
            Some(_) => None,
        };
        Demand { ntasks, nnodes, ncores, per_resource }
    }

    /// The number of tasks in an allocation, where it is only known by now.
    pub(super) fn ntasks_of(&self, nnodes: u64, ncores: u64) -> Option<u64> {
        let PerResource { kind, count } = self.per_resource.filter(|_| self.ntasks.is_none())?;
        match kind {
            Kind::Node => nnodes.checked_mul(count),
            Kind::Core => ncores.checked_mul(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::jobspec::Rules;
    use serde_json::{Value, json};

    fn demand(resources: Value, per_resource: Value) -> Demand {
        let options = json!({ "per-resource": per_resource });
        let jobspec = json!({
            "version": 1,
            "resources": resources,
            "tasks": [{ "command": ["true"], "slot": "task", "count": { "per_slot": 1 } }],
            "attributes": { "system": { "duration": 0, "shell": { "options": options } } },
        });
        Demand::of(&Jobspec::from_value(jobspec, &Rules::default()).unwrap())
    }

    fn slots(count: u64, cores: u64) -> Value {
        let with = json!([{ "type": "core", "count": cores }]);
        json!([{ "type": "slot", "label": "task", "count": count, "with": with }])
    }

    fn nodes(count: u64, exclusive: bool) -> Value {
        json!([{ "type": "node", "count": count, "exclusive": exclusive, "with": slots(1, 1) }])
    }

    #[test]
    fn tasks_per_resource_are_counted_as_soon_as_the_resource_is_known() {
        let per = |kind: &str, count: u64| json!({ "type": kind, "count": count });
        assert_eq!(demand(nodes(2, false), per("node", 3)).ntasks, Some(6));
        assert_eq!(demand(slots(2, 2), per("core", 2)).ntasks, Some(8));
        assert_eq!(demand(slots(2, 2), json!({ "type": "core" })).ntasks, Some(4));
        let later = demand(slots(4, 1), per("node", 3));
        assert_eq!((later.ntasks, later.ntasks_of(2, 4)), (None, Some(6)));
        let later = demand(nodes(2, true), per("core", 2));
        assert_eq!((later.ntasks, later.ntasks_of(2, 16)), (None, Some(32)));
        let plain = demand(slots(4, 1), Value::Null);
        assert_eq!((plain.ntasks, plain.ntasks_of(2, 4)), (Some(4), None));
    }

    #[test]
    fn cores_of_whole_nodes_are_not_known_before() {
        let counts = |demand: Demand| (demand.nnodes, demand.ncores);
        assert_eq!(counts(demand(nodes(2, true), Value::Null)), (Some(2), None));
        assert_eq!(counts(demand(nodes(2, false), Value::Null)), (Some(2), Some(2)));
        assert_eq!(counts(demand(slots(2, 3), Value::Null)), (None, Some(6)));
    }
}
