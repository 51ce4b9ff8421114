//! What a job wants, in the terms of the pool.

use flux_plugin::types::{Count, CountOperator, Job, Request};

/// A request with its duration and its constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    /// Resources.
    pub request: Request,
    /// Seconds; 0 for unlimited.
    pub duration: f64,
    /// RFC 31, JSON.
    pub constraint: Option<String>,
}

impl Want {
    /// Reads a job; none when its resources cannot be said in slots of cores and GPUs.
    pub fn of(job: &Job) -> Option<Self> {
        let mut request = job.request?;
        // Exclusive slots without nodes: each takes a node.
        if request.exclusive && request.nodes.is_none() {
            request.nodes = Some(request.slots);
            request.slots = Count { min: 1, max: Some(1), step: None };
        }
        Some(Want { request, duration: job.duration, constraint: job.constraints.clone() })
    }

    /// Slots on each node, where nodes are asked for.
    pub(crate) fn slots_per_node(&self) -> u32 {
        self.request.slots.min
    }

    /// Cores that one node must give.
    pub(crate) fn cores_per_node(&self) -> u64 {
        u64::from(self.slots_per_node()) * u64::from(self.request.cores_per_slot)
    }

    /// How many of what is asked for a node with so much gives: itself, or slots.
    pub(crate) fn units(&self, cores: u64, gpus: u64) -> u64 {
        if self.request.nodes.is_some() {
            return u64::from(cores >= self.cores_per_node() && gpus >= self.gpus_per_node());
        }
        let by_cores = cores / u64::from(self.request.cores_per_slot.max(1));
        let by_gpus = gpus.checked_div(u64::from(self.request.gpus_per_slot));
        by_cores.min(by_gpus.unwrap_or(u64::MAX))
    }

    /// How many of them are needed, and their name.
    pub(crate) fn need(&self) -> (u64, String) {
        let with = |cores: u64, gpus: u64| match gpus {
            0 => format!("{cores} core(s)"),
            gpus => format!("{cores} core(s) and {gpus} GPU(s)"),
        };
        match self.request.nodes {
            Some(nodes) if self.request.exclusive => (nodes.min.into(), "whole node(s)".to_owned()),
            Some(nodes) => {
                let each = with(self.cores_per_node(), self.gpus_per_node());
                (nodes.min.into(), format!("node(s) with {each} each"))
            }
            None => {
                let Request { slots, cores_per_slot, gpus_per_slot, .. } = self.request;
                let each = with(cores_per_slot.into(), gpus_per_slot.into());
                (slots.min.into(), format!("slot(s) of {each}"))
            }
        }
    }

    /// GPUs that one node must give.
    pub(crate) fn gpus_per_node(&self) -> u64 {
        u64::from(self.slots_per_node()) * u64::from(self.request.gpus_per_slot)
    }
}

/// The largest value of a count that does not exceed `available`.
pub(crate) fn largest(count: &Count, available: u32) -> Option<u32> {
    let cap = count.max.map_or(available, |max| max.min(available));
    if cap < count.min {
        return None;
    }
    let Some(step) = count.step else { return Some(cap) };
    let mut best = count.min;
    while let Some(next) = following(best, step.operator, step.operand) {
        if next > cap {
            break;
        }
        best = next;
    }
    Some(best)
}

/// The next value of a stepped count; none where it would not grow.
fn following(value: u32, operator: CountOperator, operand: u32) -> Option<u32> {
    let next = match operator {
        CountOperator::Add => value.checked_add(operand),
        CountOperator::Multiply => value.checked_mul(operand),
        CountOperator::Power => value.checked_pow(operand),
    };
    next.filter(|&next| next > value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::types::CountStep;

    fn stepped(min: u32, max: Option<u32>, operator: CountOperator, operand: u32) -> Count {
        Count { min, max, step: Some(CountStep { operator, operand }) }
    }

    #[test]
    fn largest_value_follows_the_steps_of_a_count() {
        let plain = Count { min: 2, max: Some(8), step: None };
        assert_eq!([1, 2, 5, 9].map(|n| largest(&plain, n)), [None, Some(2), Some(5), Some(8)]);
        let doubling = stepped(1, None, CountOperator::Multiply, 2);
        assert_eq!([1, 3, 100].map(|n| largest(&doubling, n)), [Some(1), Some(2), Some(64)]);
        let squares = stepped(2, Some(100), CountOperator::Power, 2);
        assert_eq!([3, 15, 99].map(|n| largest(&squares, n)), [Some(2), Some(4), Some(16)]);
        let stuck = stepped(1, None, CountOperator::Power, 2);
        assert_eq!(largest(&stuck, 9), Some(1));
    }
}
