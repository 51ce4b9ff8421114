//! Which nodes to show: those of some queues, those that are named.

use std::collections::BTreeSet;

use flux_protocol::constraint::Constraint;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::payload::Object;
use flux_protocol::r::ResourceSet;
use serde_json::{Value, json};

use super::error;
use crate::failure::Failure;

// Doc comments of flattened arguments would become those of the command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Filter {
    /// Include only specified targets in output set. TARGETS may be provided as an idset or
    /// hostlist.
    #[arg(short, long, value_name = "TARGETS")]
    pub(super) include: Option<String>,
    /// Include only specified queues in output
    #[arg(short, long, value_name = "QUEUE,...", value_delimiter = ',')]
    pub(super) queue: Vec<String>,
}

impl Filter {
    /// The ranks of `all` that are to be shown; nothing where all are.
    pub(super) fn ranks(
        &self,
        all: &ResourceSet,
        config: &Object,
    ) -> Result<Option<Idset>, Failure> {
        let mut ranks: Option<Idset> = None;
        if !self.queue.is_empty() {
            let mut of_queues = Idset::new();
            for queue in &self.queue {
                let found = queue_ranks(all, config, queue)
                    .map_err(|reason| error(format_args!("--queue: {reason}")))?;
                of_queues.union_with(&found);
            }
            ranks = Some(of_queues);
        }
        if let Some(include) = &self.include {
            let included = included(all, include).ok_or_else(|| {
                error(format_args!("--include: {include}: not an idset or hostlist"))
            })?;
            ranks = Some(match ranks {
                Some(ranks) => ranks.intersect(&included),
                None => included,
            });
        }
        Ok(ranks)
    }
}

/// Ranks, or those on hosts; what is not there is not looked for.
pub(super) fn included(all: &ResourceSet, include: &str) -> Option<Idset> {
    if let Ok(ranks) = Idset::decode(include) {
        return Some(ranks);
    }
    let hosts: Hostlist = include.parse().ok()?;
    Some(Constraint::Hostlist(hosts).matching(all))
}

/// The ranks of a queue's nodes.
pub(super) fn queue_ranks(
    all: &ResourceSet,
    config: &Object,
    queue: &str,
) -> Result<Idset, String> {
    let Some(requires) = queue_requires(config, queue)? else { return Ok(all.ranks()) };
    let constraint = Constraint::decode(&json!({ "properties": requires }))
        .map_err(|e| format!("{queue}: {e}"))?;
    Ok(constraint.matching(all))
}

/// The properties that a queue wants of its nodes. A virtual queue has the nodes of its parent.
pub(super) fn queue_requires<'a>(
    config: &'a Object,
    queue: &str,
) -> Result<Option<&'a Value>, String> {
    let queues = config.get("queues").and_then(Value::as_object);
    let entry = queues.and_then(|queues| queues.get(queue));
    let entry = entry.ok_or_else(|| format!("{queue}: no such queue"))?;
    let entry = match entry.get("parent").and_then(Value::as_str) {
        None => entry,
        Some(parent) => queues
            .and_then(|queues| queues.get(parent))
            .ok_or_else(|| format!("queue '{queue}': parent queue '{parent}' is not configured"))?,
    };
    Ok(entry.get("requires"))
}

/// The queues of the configuration, but for virtual ones.
pub(super) fn real_queues(config: &Object) -> Vec<&str> {
    let queues = config.get("queues").and_then(Value::as_object);
    let real = |entry: &Value| entry.get("parent").is_none();
    let names = queues.into_iter().flatten().filter(|(_, entry)| real(entry));
    names.map(|(name, _)| name.as_str()).collect()
}

/// The queues whose nodes have these properties, as listings show them.
pub(super) fn queues_of(
    properties: &BTreeSet<&str>,
    config: &Object,
    only: &[String],
) -> Result<String, String> {
    let queues = config.get("queues").and_then(Value::as_object);
    let mut names = Vec::new();
    for (name, entry) in queues.into_iter().flatten() {
        let wanted = match only {
            // It would be shown beside its parent for each node.
            [] => entry.get("parent").is_none(),
            only => only.contains(name),
        };
        let matches = match queue_requires(config, name)?.and_then(Value::as_array) {
            None => true,
            Some(requires) => requires
                .iter()
                .all(|property| property.as_str().is_some_and(|name| properties.contains(name))),
        };
        if wanted && matches {
            names.push(name.as_str());
        }
    }
    Ok(names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::r::Resources;

    fn set() -> ResourceSet {
        let resources = Resources { cores: Idset::first_n(2), gpus: Idset::new() };
        let hosts: Hostlist = "a[0-3]".parse().unwrap();
        let mut set = ResourceSet::uniform(&Idset::first_n(4), resources, &hosts).unwrap();
        set.set_property("big", &"2-3".parse().unwrap()).unwrap();
        set
    }

    fn config() -> Object {
        let config = json!({"queues": {
            "batch": {"requires": ["big"]}, "debug": {}, "late": {"parent": "batch"},
        }});
        config.as_object().unwrap().clone()
    }

    #[test]
    fn filters_take_ranks_hosts_and_queues() {
        let ranks = |include: Option<&str>, queue: &[&str]| {
            let filter = Filter {
                include: include.map(str::to_owned),
                queue: queue.iter().map(|&queue| queue.to_owned()).collect(),
            };
            filter.ranks(&set(), &config()).unwrap().map(|ranks| ranks.to_string())
        };
        assert_eq!(ranks(None, &[]), None);
        assert_eq!(ranks(Some("0-1"), &[]).as_deref(), Some("0-1"));
        assert_eq!(ranks(Some("a[1-2],nope"), &[]).as_deref(), Some("1-2"));
        assert_eq!(ranks(None, &["batch"]).as_deref(), Some("2-3"));
        assert_eq!(ranks(None, &["late"]).as_deref(), Some("2-3"));
        assert_eq!(ranks(Some("a2"), &["batch", "debug"]).as_deref(), Some("2"));
        let filter = Filter { include: None, queue: vec!["nope".to_owned()] };
        assert!(filter.ranks(&set(), &config()).is_err());
    }

    #[test]
    fn nodes_are_in_the_queues_whose_properties_they_have() {
        let of = |properties: &[&str], only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            queues_of(&properties.iter().copied().collect(), &config(), &only).unwrap()
        };
        assert_eq!(of(&["big"], &[]), "batch,debug");
        assert_eq!(of(&[], &[]), "debug");
        assert_eq!(of(&["big"], &["late"]), "late");
    }
}
