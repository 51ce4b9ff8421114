//! The short form for people: `rank[0-3]/core[0-7],gpu[0-1] rank4/core0`.

use super::{ResourceSet, Resources};
use crate::idset::{Idset, Style};
use std::collections::HashMap;
use std::fmt;

impl ResourceSet {
    /// Ranks of nodes that are alike, ordered by the lowest rank of each group.
    pub fn groups(&self) -> Vec<(Idset, &Resources)> {
        let mut ranks: HashMap<&Resources, Vec<u32>> = HashMap::new();
        for (&rank, node) in &self.nodes {
            ranks.entry(&node.resources).or_default().push(rank);
        }
        let mut groups: Vec<(Idset, &Resources)> = ranks
            .into_iter()
            .map(|(resources, ranks)| (ranks.into_iter().collect(), resources))
            .collect();
        groups.sort_by_key(|(ranks, _)| ranks.first());
        groups
    }

    /// The short form, as in the annotation `sched.resource_summary`.
    pub fn dumps(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |set: &Idset| set.encode_with(Style { range: true, brackets: true });
        for (n, (ranks, resources)) in self.groups().into_iter().enumerate() {
            let space = if n > 0 { " " } else { "" };
            write!(f, "{space}rank{}/core{}", ids(&ranks), ids(&resources.cores))?;
            if !resources.gpus.is_empty() {
                write!(f, ",gpu{}", ids(&resources.gpus))?;
            }
        }
        Ok(())
    }
}
