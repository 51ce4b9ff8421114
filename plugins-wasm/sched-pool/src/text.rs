//! Grants as the contract and as people read them.

use crate::pool::Share;
use flux_plugin::types::Targets;
use flux_protocol::idset::{Idset, Style};
use std::collections::HashMap;

/// Ranks with the same share together, by lowest rank.
fn groups(shares: &[Share]) -> Vec<(Idset, &Share)> {
    let mut by_share: HashMap<(&Idset, &Idset), (Idset, &Share)> = HashMap::new();
    for share in shares {
        let group = by_share.entry((&share.cores, &share.gpus));
        group.or_insert_with(|| (Idset::new(), share)).0.insert(share.rank);
    }
    let mut groups: Vec<_> = by_share.into_values().collect();
    groups.sort_by_key(|(ranks, _)| ranks.first());
    groups
}

/// As the contract has it.
pub fn targets(shares: &[Share]) -> Vec<Targets> {
    let target = |(ranks, share): (Idset, &Share)| {
        let mut children = vec![("core".to_owned(), share.cores.encode())];
        if !share.gpus.is_empty() {
            children.push(("gpu".to_owned(), share.gpus.encode()));
        }
        Targets { ranks: ranks.encode(), children }
    };
    groups(shares).into_iter().map(target).collect()
}

/// `rank[0-1]/core[0-3],gpu0 rank4/core0`.
pub fn summary(shares: &[Share]) -> String {
    let ids = |set: &Idset| set.encode_with(Style { range: true, brackets: true });
    let group = |(ranks, share): (Idset, &Share)| {
        let mut text = format!("rank{}/core{}", ids(&ranks), ids(&share.cores));
        if !share.gpus.is_empty() {
            text.push_str(",gpu");
            text.push_str(&ids(&share.gpus));
        }
        text
    };
    groups(shares).into_iter().map(group).collect::<Vec<_>>().join(" ")
}
