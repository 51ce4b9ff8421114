//! Nodes, what of them is free, and who holds the rest.

use crate::request::{Want, largest};
use flux_plugin::types::{JobId, Property, ResourceSet, Targets};
use flux_protocol::constraint::Constraint;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::{Node as RNode, ResourceSet as R, Resources};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// What of one node a job gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub rank: u32,
    pub cores: Idset,
    pub gpus: Idset,
}

/// What a job gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub shares: Vec<Share>,
    pub nslots: u32,
}

/// Why a job gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoGrant {
    /// Not now.
    Insufficient,
    /// Never, whatever is free or up: the text for the user.
    Infeasible(String),
}

/// A change that cannot be applied: its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolError(pub String);

#[derive(Clone, Debug)]
struct Node {
    all: Arc<Resources>,
    free_cores: Idset,
    free_gpus: Idset,
    up: bool,
}

/// Nodes that are up and have a free core, best first.
type Order = BTreeSet<(Reverse<u64>, Reverse<u64>, u32)>;

#[derive(Clone, Debug)]
struct Held {
    shares: Vec<Share>,
    /// 0: unknown.
    end: f64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    inventory: Rc<R>,
    nodes: BTreeMap<u32, Node>,
    order: Order,
    /// Free cores on nodes that are up.
    free: u64,
    held: BTreeMap<JobId, Held>,
    /// End of the instance; 0 for none.
    pub expiration: f64,
    /// Rises whenever another answer to "can it ever run" is possible.
    generation: u64,
    /// Rises whenever another answer to "can it run with the nodes that are up" is possible.
    nodes_generation: u64,
    eligible: HashMap<String, Rc<Idset>>,
}

impl Pool {
    /// Takes an inventory; all nodes are down, and all is free.
    pub fn new(set: &ResourceSet) -> Result<Self, PoolError> {
        let inventory = inventory(set)?;
        let node = |(rank, node): (u32, &RNode)| {
            let all = node.resources.clone();
            let (free_cores, free_gpus) = (all.cores.clone(), all.gpus.clone());
            (rank, Node { all, free_cores, free_gpus, up: false })
        };
        let nodes = inventory.nodes().map(node).collect();
        let expiration = inventory.expiration;
        Ok(Pool { inventory: Rc::new(inventory), nodes, expiration, ..Pool::default() })
    }

    /// Takes the place of another pool, whose answers do not hold any more.
    pub fn after(mut self, generations: u64) -> Self {
        self.generation += generations;
        self.nodes_generation += generations;
        self
    }

    /// See the field.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// See the field.
    pub fn nodes_generation(&self) -> u64 {
        self.nodes_generation
    }

    /// Marks nodes as up or down.
    pub fn set_up(&mut self, ranks: &str, up: bool) -> Result<(), PoolError> {
        for rank in ids(ranks)?.iter() {
            self.change(rank, |node| node.up = up);
        }
        self.nodes_generation += 1;
        Ok(())
    }

    /// Removes nodes for good. What jobs hold there is forgotten.
    pub fn shrink(&mut self, ranks: &str) -> Result<(), PoolError> {
        let ranks = ids(ranks)?;
        for rank in ranks.iter() {
            self.change(rank, |node| node.up = false);
            self.nodes.remove(&rank);
        }
        Rc::make_mut(&mut self.inventory).remove_ranks(&ranks);
        self.inventory_changed();
        Ok(())
    }

    /// Gives properties to ranks.
    pub fn add_properties(&mut self, list: &[Property]) -> Result<(), PoolError> {
        for property in list {
            let ranks = ids(&property.ranks)?.intersect(&self.inventory.ranks());
            let inventory = Rc::make_mut(&mut self.inventory);
            inventory.set_property(&property.name, &ranks).map_err(|e| PoolError(e.to_string()))?;
        }
        self.inventory_changed();
        Ok(())
    }

    /// Takes properties from ranks.
    pub fn remove_properties(&mut self, list: &[Property]) -> Result<(), PoolError> {
        for property in list {
            let ranks = ids(&property.ranks)?;
            let mut copy = R::new();
            self.inventory.nodes().for_each(|(rank, node)| copy.insert_node(rank, node.clone()));
            for (name, having) in self.inventory.properties() {
                let lost = if *name == property.name { ranks.clone() } else { Idset::new() };
                let having = having.difference(&lost);
                copy.set_property(name, &having).map_err(|e| PoolError(e.to_string()))?;
            }
            self.inventory = Rc::new(copy);
        }
        self.inventory_changed();
        Ok(())
    }

    /// Notes what a running job holds.
    pub fn hold(&mut self, id: JobId, list: &[Targets], end: f64) -> Result<(), PoolError> {
        self.hold_shares(id, shares(list)?, end);
        Ok(())
    }

    pub(crate) fn hold_shares(&mut self, id: JobId, shares: Vec<Share>, end: f64) {
        self.take(&shares);
        self.held.insert(id, Held { shares, end });
    }

    /// Takes back what a job held, or a part of it.
    pub fn free(&mut self, id: JobId, list: &[Targets], last: bool) -> Result<(), PoolError> {
        if last {
            self.release(id);
            return Ok(());
        }
        for share in shares(list)? {
            self.give_back(&share);
            if let Some(held) = self.held.get_mut(&id) {
                for other in held.shares.iter_mut().filter(|other| other.rank == share.rank) {
                    other.cores.subtract(&share.cores);
                    other.gpus.subtract(&share.gpus);
                }
            }
        }
        Ok(())
    }

    /// Takes back all that a job holds.
    pub(crate) fn release(&mut self, id: JobId) {
        if let Some(held) = self.held.remove(&id) {
            held.shares.iter().for_each(|share| self.give_back(share));
        }
    }

    /// Another end of a running job; 0 for unknown. False when it does not run.
    pub fn set_end(&mut self, id: JobId, end: f64) -> bool {
        self.held.get_mut(&id).map(|held| held.end = end).is_some()
    }

    /// Ends of running jobs that are known, with the jobs.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (f64, JobId)> + '_ {
        self.held.iter().filter(|(_, held)| held.end > 0.0).map(|(&id, held)| (held.end, id))
    }

    /// Gives a job what it wants, until `end` (0: unknown).
    pub fn allocate(&mut self, id: JobId, want: &Want, end: f64) -> Result<Grant, NoGrant> {
        let grant = self.find(want)?;
        self.take(&grant.shares);
        self.held.insert(id, Held { shares: grant.shares.clone(), end });
        Ok(grant)
    }

    /// Whether a job could have what it wants now.
    pub(crate) fn fits(&mut self, want: &Want) -> bool {
        self.free > 0 && self.find(want).is_ok()
    }

    /// What a job would get now. Does not tell "never" from "not now".
    fn find(&mut self, want: &Want) -> Result<Grant, NoGrant> {
        let eligible = self.eligible(want)?;
        let suits = |rank: u32| eligible.as_ref().is_none_or(|ranks| ranks.contains(rank));
        let grant = match want.request.nodes {
            Some(_) => self.find_nodes(want, suits),
            None => self.find_slots(want, suits),
        };
        grant.ok_or(NoGrant::Insufficient)
    }

    fn find_nodes(&self, want: &Want, suits: impl Fn(u32) -> bool) -> Option<Grant> {
        let nodes = want.request.nodes?;
        let (cores, gpus) = (want.cores_per_node(), want.gpus_per_node());
        let exclusive = want.request.exclusive;
        if cores.saturating_mul(u64::from(nodes.min)) > self.free {
            return None;
        }
        let most = nodes.max.unwrap_or(u32::MAX);
        let mut shares = Vec::new();
        for &(Reverse(free_cores), Reverse(free_gpus), rank) in &self.order {
            if shares.len() >= most as usize || free_cores < cores {
                break;
            }
            let Some(node) = self.nodes.get(&rank) else { continue };
            let whole = free_cores == node.all.cores.count() && free_gpus == node.all.gpus.count();
            if free_gpus < gpus || !suits(rank) || (exclusive && !whole) {
                continue;
            }
            let (cores, gpus) = match exclusive {
                true => (node.free_cores.clone(), node.free_gpus.clone()),
                false => (node.free_cores.lowest(cores), node.free_gpus.lowest(gpus)),
            };
            shares.push(Share { rank, cores, gpus });
        }
        let count = largest(&nodes, u32::try_from(shares.len()).unwrap_or(u32::MAX))?;
        shares.truncate(count as usize);
        Some(Grant { shares, nslots: want.slots_per_node().saturating_mul(count) })
    }

    fn find_slots(&self, want: &Want, suits: impl Fn(u32) -> bool) -> Option<Grant> {
        let slots = want.request.slots;
        let size = u64::from(want.request.cores_per_slot.max(1));
        let gpus = u64::from(want.request.gpus_per_slot);
        if size.saturating_mul(u64::from(slots.min)) > self.free {
            return None;
        }
        let most = u64::from(slots.max.unwrap_or(u32::MAX));
        let mut found = Vec::new();
        let mut total = 0_u64;
        for &(Reverse(free_cores), Reverse(free_gpus), rank) in &self.order {
            if total >= most || free_cores < size {
                break;
            }
            if !suits(rank) {
                continue;
            }
            let by_gpus = free_gpus.checked_div(gpus).unwrap_or(u64::MAX);
            let take = (free_cores / size).min(by_gpus).min(most - total);
            if take > 0 {
                found.push((rank, take));
                total += take;
            }
        }
        let count = largest(&slots, u32::try_from(total).unwrap_or(u32::MAX))?;
        let mut left = u64::from(count);
        let mut shares = Vec::with_capacity(found.len());
        for (rank, take) in found {
            let take = take.min(left);
            let Some(node) = self.nodes.get(&rank).filter(|_| take > 0) else { break };
            left -= take;
            let (cores, gpus) =
                (node.free_cores.lowest(take * size), node.free_gpus.lowest(take * gpus));
            shares.push(Share { rank, cores, gpus });
        }
        Some(Grant { shares, nslots: count })
    }

    /// Whether a job could run if all nodes were up and free.
    pub fn feasible(&mut self, want: &Want) -> Result<(), NoGrant> {
        self.possible(want, |_| true)
    }

    /// Whether a job could run if all of the nodes that are up were free.
    pub fn has_nodes(&mut self, want: &Want) -> bool {
        self.possible(want, |node| node.up).is_ok()
    }

    /// Whether a job could run if these nodes were there for it alone.
    fn possible(&mut self, want: &Want, counts: fn(&Node) -> bool) -> Result<(), NoGrant> {
        let eligible = self.eligible(want)?;
        let suits = |rank: u32| eligible.as_ref().is_none_or(|ranks| ranks.contains(rank));
        let suits = |(rank, node): &(&u32, &Node)| suits(**rank) && counts(node);
        let all = || self.nodes.iter().filter(suits).map(|(_, node)| &node.all);
        let (slot_cores, slot_gpus) =
            (u64::from(want.request.cores_per_slot.max(1)), u64::from(want.request.gpus_per_slot));
        let infeasible =
            |text: String| Err(NoGrant::Infeasible(format!("unsatisfiable request: {text}")));
        if let Some(nodes) = want.request.nodes {
            let need = u64::from(nodes.min.max(1));
            let (cores, gpus) = match want.request.exclusive {
                true => (slot_cores, slot_gpus),
                false => (want.cores_per_node(), want.gpus_per_node()),
            };
            let fits =
                |node: &&Arc<Resources>| node.cores.count() >= cores && node.gpus.count() >= gpus;
            let count = all().filter(fits).count() as u64;
            return match (count >= need, want.request.exclusive) {
                (true, _) => Ok(()),
                (false, true) => {
                    infeasible(format!("need {need} exclusive node(s), only {count} eligible"))
                }
                (false, false) => {
                    let and = if gpus > 0 { format!(" and {gpus} GPUs") } else { String::new() };
                    infeasible(format!(
                        "need {need} node(s) with {cores} cores{and} each, only {count} eligible"
                    ))
                }
            };
        }
        let need = u64::from(want.request.slots.min);
        let slots: u64 = all().map(|node| node.cores.count() / slot_cores).sum();
        if slots < need {
            let cores: u64 = all().map(|node| node.cores.count()).sum();
            return infeasible(format!(
                "need {need} slot(s) of {slot_cores} core(s), only {slots} such slot(s) available \
                 (total cores: {cores})"
            ));
        }
        if slot_gpus > 0 {
            let fit = |node: &Arc<Resources>| {
                (node.cores.count() / slot_cores).min(node.gpus.count() / slot_gpus)
            };
            let slots: u64 = all().map(fit).sum();
            if slots < need {
                let gpus: u64 = all().map(|node| node.gpus.count()).sum();
                return infeasible(format!(
                    "need {need} slot(s) with {slot_gpus} GPU(s) each, only {slots} available \
                     (total GPUs: {gpus})"
                ));
            }
        }
        Ok(())
    }

    /// In words, what a job that fits in principle lacks now: nodes that are up, or what is free of
    /// them.
    pub fn shortage(&mut self, want: &Want) -> Option<String> {
        let eligible = self.eligible(want).ok()?;
        let suits = |rank: u32| eligible.as_ref().is_none_or(|ranks| ranks.contains(rank));
        let (mut all, mut up, mut free) = (0, 0, 0);
        for (_, node) in self.nodes.iter().filter(|(rank, _)| suits(**rank)) {
            let whole = want.units(node.all.cores.count(), node.all.gpus.count());
            all += whole;
            up += if node.up { whole } else { 0 };
            let is_idle = node.free_cores.count() == node.all.cores.count();
            if node.up && (is_idle || !want.request.exclusive) {
                free += want.units(node.free_cores.count(), node.free_gpus.count());
            }
        }
        let (need, unit) = want.need();
        Some(match up < need {
            true => format!("needs {need} {unit}, {up} of {all} are up (others down or drained)"),
            false => format!("needs {need} {unit}, {free} of {up} are free"),
        })
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Ranks that satisfy the constraint; none where there is none.
    pub(crate) fn eligible(&mut self, want: &Want) -> Result<Option<Rc<Idset>>, NoGrant> {
        let Some(text) = &want.constraint else { return Ok(None) };
        if let Some(ranks) = self.eligible.get(text) {
            return Ok(Some(ranks.clone()));
        }
        let bad = |text: String| NoGrant::Infeasible(format!("invalid constraint: {text}"));
        let json = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        let constraint = Constraint::decode(&json).map_err(|error| bad(error.to_string()))?;
        let ranks = Rc::new(constraint.matching(&self.inventory));
        if self.eligible.len() > 1000 {
            self.eligible.clear();
        }
        self.eligible.insert(text.clone(), ranks.clone());
        Ok(Some(ranks))
    }

    fn take(&mut self, shares: &[Share]) {
        for share in shares {
            self.change(share.rank, |node| {
                node.free_cores.subtract(&share.cores);
                node.free_gpus.subtract(&share.gpus);
            });
        }
    }

    fn give_back(&mut self, share: &Share) {
        self.change(share.rank, |node| {
            node.free_cores.union_with(&share.cores.intersect(&node.all.cores));
            node.free_gpus.union_with(&share.gpus.intersect(&node.all.gpus));
        });
    }

    /// Changes a node and keeps the order and the sum right.
    fn change(&mut self, rank: u32, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.nodes.get_mut(&rank) else { return };
        let place = |node: &Node| {
            let free = node.free_cores.count();
            (node.up && free > 0).then(|| (Reverse(free), Reverse(node.free_gpus.count()), rank))
        };
        let before = place(node);
        change(node);
        let after = place(node);
        if before != after {
            if let Some(entry) = before {
                self.free -= entry.0.0;
                self.order.remove(&entry);
            }
            if let Some(entry) = after {
                self.free += entry.0.0;
                self.order.insert(entry);
            }
        }
    }

    fn inventory_changed(&mut self) {
        self.generation += 1;
        self.nodes_generation += 1;
        self.eligible.clear();
    }
}

fn ids(text: &str) -> Result<Idset, PoolError> {
    Idset::decode(text).map_err(|error| PoolError(error.to_string()))
}

fn shares(list: &[Targets]) -> Result<Vec<Share>, PoolError> {
    let mut shares = Vec::new();
    for targets in list {
        let resources = children(targets)?;
        for rank in ids(&targets.ranks)?.iter() {
            let (cores, gpus) = (resources.cores.clone(), resources.gpus.clone());
            shares.push(Share { rank, cores, gpus });
        }
    }
    Ok(shares)
}

fn children(targets: &Targets) -> Result<Resources, PoolError> {
    let mut resources = Resources::default();
    for (kind, text) in &targets.children {
        match kind.as_str() {
            "core" => resources.cores = ids(text)?,
            "gpu" => resources.gpus = ids(text)?,
            _ => {}
        }
    }
    Ok(resources)
}

fn inventory(set: &ResourceSet) -> Result<R, PoolError> {
    let hosts = Hostlist::decode(&set.nodelist).map_err(|error| PoolError(error.to_string()))?;
    let mut by_rank = BTreeMap::new();
    for targets in &set.targets {
        let resources = Arc::new(children(targets)?);
        by_rank.extend(ids(&targets.ranks)?.iter().map(|rank| (rank, resources.clone())));
    }
    let mut r = R::new();
    for ((rank, resources), host) in by_rank.into_iter().zip(hosts.iter()) {
        r.insert_node(rank, RNode { host: host.into(), resources });
    }
    for property in &set.properties {
        let ranks = ids(&property.ranks)?;
        r.set_property(&property.name, &ranks).map_err(|error| PoolError(error.to_string()))?;
    }
    r.expiration = set.expiration;
    Ok(r)
}

#[cfg(test)]
mod tests;
