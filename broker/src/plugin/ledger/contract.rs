//! Resources as the contract with plugins has them, and as R (RFC 20) has them.

use super::LedgerError;
use crate::plugin::v1::types::{JobId, Property, ResourceSet, Targets};
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::{Node, ResourceSet as R, Resources};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn ids(id: JobId, text: &str) -> Result<Idset, LedgerError> {
    Idset::decode(text).map_err(|error| LedgerError::Text { id, text: error.to_string() })
}

/// By rank.
pub(super) fn expand(id: JobId, list: &[Targets]) -> Result<BTreeMap<u32, Resources>, LedgerError> {
    let mut by_rank: BTreeMap<u32, Resources> = BTreeMap::new();
    for targets in list {
        let ranks = ids(id, &targets.ranks)?;
        if ranks.count() > flux_protocol::r::MAX_NODES {
            let text = format!("{} ranks", ranks.count());
            return Err(LedgerError::Text { id, text });
        }
        let mut resources = Resources::default();
        for (kind, text) in &targets.children {
            match kind.as_str() {
                "core" => resources.cores = ids(id, text)?,
                "gpu" => resources.gpus = ids(id, text)?,
                _ => {}
            }
        }
        for rank in ranks.iter() {
            let entry = by_rank.entry(rank).or_default();
            entry.cores.union_with(&resources.cores);
            entry.gpus.union_with(&resources.gpus);
        }
    }
    Ok(by_rank)
}

/// Ranks with the same resources together.
pub(super) fn group(held: &BTreeMap<u32, Resources>) -> Vec<Targets> {
    let mut groups: BTreeMap<(String, String), Idset> = BTreeMap::new();
    for (&rank, resources) in held {
        let key = (resources.cores.encode(), resources.gpus.encode());
        groups.entry(key).or_default().insert(rank);
    }
    groups.into_iter().map(|(key, ranks)| targets(&ranks, key)).collect()
}

fn targets(ranks: &Idset, (cores, gpus): (String, String)) -> Targets {
    let mut children = vec![("core".to_owned(), cores)];
    if !gpus.is_empty() {
        children.push(("gpu".to_owned(), gpus));
    }
    Targets { ranks: ranks.encode(), children }
}

/// R but for a property of some ranks. Such changes are rare, so a copy will do.
pub(super) fn without_property(r: &R, name: &str, ranks: &Idset) -> R {
    let mut copy = R::new();
    r.nodes().for_each(|(rank, node)| copy.insert_node(rank, node.clone()));
    for (other, having) in r.properties() {
        let having = if other == name { having.difference(ranks) } else { having.clone() };
        if !having.is_empty() {
            let _ = copy.set_property(other, &having);
        }
    }
    copy.starttime = r.starttime;
    copy.expiration = r.expiration;
    copy.scheduling.clone_from(&r.scheduling);
    copy
}

/// R as the contract has it.
pub fn record(r: &R) -> ResourceSet {
    let groups = r.groups();
    let target = |(ranks, resources): (Idset, &Resources)| {
        targets(&ranks, (resources.cores.encode(), resources.gpus.encode()))
    };
    let property =
        |(name, ranks): (&String, &Idset)| Property { name: name.clone(), ranks: ranks.encode() };
    ResourceSet {
        targets: groups.into_iter().map(target).collect(),
        nodelist: r.nodelist().encode(),
        properties: r.properties().iter().map(property).collect(),
        starttime: r.starttime,
        expiration: r.expiration,
        scheduling: r.scheduling.as_ref().map(|raw| raw.get().to_owned()),
    }
}

pub(super) fn inventory(set: &ResourceSet) -> Result<R, LedgerError> {
    let bad = |text: String| LedgerError::Text { id: 0, text };
    let hosts = Hostlist::decode(&set.nodelist).map_err(|error| bad(error.to_string()))?;
    let by_rank = expand(0, &set.targets)?;
    if hosts.count() != by_rank.len() as u64 {
        return Err(bad(format!("{} hosts for {} ranks", hosts.count(), by_rank.len())));
    }
    let mut shared: BTreeMap<(String, String), Arc<Resources>> = BTreeMap::new();
    let mut r = R::new();
    for ((rank, resources), host) in by_rank.into_iter().zip(hosts.iter()) {
        let key = (resources.cores.encode(), resources.gpus.encode());
        let resources = shared.entry(key).or_insert_with(|| Arc::new(resources)).clone();
        r.insert_node(rank, Node { host: host.into(), resources });
    }
    for property in &set.properties {
        let ranks = ids(0, &property.ranks)?;
        r.set_property(&property.name, &ranks).map_err(|error| bad(error.to_string()))?;
    }
    r.starttime = set.starttime;
    r.expiration = set.expiration;
    if let Some(text) = set.scheduling.clone() {
        let raw = RawValue::from_string(text).map_err(|error| bad(error.to_string()))?;
        r.scheduling = Some(raw);
    }
    Ok(r)
}
