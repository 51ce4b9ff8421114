//! `flux R verify`: does a node have what it is expected to have?

use flux_protocol::idset::{Idset, Style};
use flux_protocol::r::{ResourceSet, Resources};

use crate::failure::{Failure, Outcome};

/// The expected set and that of one node.
pub(super) fn run(sets: &[ResourceSet]) -> Outcome {
    let [expected, actual] = sets else {
        return Err(Failure::new("verify requires exactly 2 R objects on stdin"));
    };
    let mut nodes = actual.nodes();
    let (rank, node) = match (nodes.next(), nodes.next()) {
        (Some(node), None) => node,
        _ => return Err(Failure::new("Verification supported on single rank only")),
    };
    let Some(wanted) = expected.node(rank) else {
        let text = format_args!("rank {rank} not found in expected ranks");
        return Err(Failure::new(text));
    };
    if node.host != wanted.host {
        return Err(Failure::new(format_args!(
            "rank {rank} got hostname '{}', expected '{}'",
            node.host, wanted.host
        )));
    }
    let missing = minus(&wanted.resources, &node.resources);
    if !missing.is_empty() {
        return Err(Failure::new(format_args!(
            "rank {rank} ({}) missing resources: {}",
            node.host,
            describe(&missing)
        )));
    }
    let extra = minus(&node.resources, &wanted.resources);
    if !extra.is_empty() {
        // A node may have more than was expected of it; a system with GPUs often does.
        eprintln!("flux-R: rank {rank} ({}) has extra resources: {}", node.host, describe(&extra));
    }
    Ok(0)
}

fn minus(a: &Resources, b: &Resources) -> Resources {
    Resources { cores: a.cores.difference(&b.cores), gpus: a.gpus.difference(&b.gpus) }
}

/// `core[2-3],gpu0`
fn describe(resources: &Resources) -> String {
    let ids = |ids: &Idset| ids.encode_with(Style { range: true, brackets: true });
    [("core", &resources.cores), ("gpu", &resources.gpus)]
        .into_iter()
        .filter(|(_, set)| !set.is_empty())
        .map(|(name, set)| format!("{name}{}", ids(set)))
        .collect::<Vec<_>>()
        .join(",")
}
