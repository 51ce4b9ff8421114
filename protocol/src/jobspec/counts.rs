//! How many nodes, slots, cores and GPUs a jobspec asks for.

use super::Jobspec;
use serde_json::Value;

/// Totals of a jobspec's resource section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// 0 when the jobspec does not ask for nodes.
    pub nnodes: u64,
    /// Slots on all nodes.
    pub nslots: u64,
    /// Cores in each slot.
    pub slot_cores: u64,
    /// GPUs in each slot.
    pub slot_gpus: u64,
    /// Whether nodes are asked for as a whole.
    pub exclusive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountsError {
    #[error("level {level}: {reason}")]
    Vertex { level: usize, reason: &'static str },
    #[error("Invalid count {count} for type '{kind}'")]
    Count { count: i64, kind: String },
    #[error("Unable to determine slot count")]
    NoSlots,
    #[error("Unable to determine slot size")]
    NoCores,
    #[error("resource counts are too large")]
    Overflow,
}

// === impl Counts ===

impl Counts {
    /// Cores in all slots.
    pub fn ncores(&self) -> u64 {
        self.nslots.saturating_mul(self.slot_cores)
    }

    /// GPUs in all slots.
    pub fn ngpus(&self) -> u64 {
        self.nslots.saturating_mul(self.slot_gpus)
    }

    /// Add the resources of one level, of which there are `factor` each.
    fn read_level(&mut self, list: &[Value], level: usize, factor: u64) -> Result<(), CountsError> {
        list.iter().try_for_each(|vertex| self.read_vertex(vertex, level, factor))
    }

    fn read_vertex(
        &mut self,
        vertex: &Value,
        level: usize,
        factor: u64,
    ) -> Result<(), CountsError> {
        let wrong = |reason| CountsError::Vertex { level, reason };
        let kind = vertex.get("type").and_then(Value::as_str).ok_or(wrong("no type"))?;
        let count = vertex.get("count").and_then(Value::as_i64).ok_or(wrong("no integer count"))?;
        let bad = CountsError::Count { count, kind: kind.to_owned() };
        let count = u64::try_from(count).ok().filter(|&count| count > 0).ok_or(bad)?;
        let total = factor.checked_mul(count).ok_or(CountsError::Overflow)?;
        let sum = |a: u64, b: u64| a.checked_add(b).ok_or(CountsError::Overflow);
        match kind {
            "node" => {
                self.nnodes = sum(self.nnodes, total)?;
                self.exclusive |= vertex.get("exclusive").and_then(Value::as_bool) == Some(true);
            }
            "slot" => self.nslots = sum(self.nslots, total)?,
            "core" => self.slot_cores = sum(self.slot_cores, count)?,
            "gpu" => self.slot_gpus = sum(self.slot_gpus, count)?,
            _ => {}
        }
        match vertex.get("with") {
            None => Ok(()),
            Some(Value::Array(children)) => self.read_level(children, level + 1, total),
            Some(_) => Err(CountsError::Vertex { level: level + 1, reason: "must be an array" }),
        }
    }
}

// === impl Jobspec ===

impl Jobspec {
    /// What the job asks for. Resources other than nodes, slots, cores and GPUs are not counted but
    /// multiply what they contain.
    pub fn counts(&self) -> Result<Counts, CountsError> {
        let mut counts = Counts::default();
        counts.read_level(self.resources(), 0, 1)?;
        match counts {
            Counts { nslots: 0, .. } => Err(CountsError::NoSlots),
            Counts { slot_cores: 0, .. } => Err(CountsError::NoCores),
            _ => Ok(counts),
        }
    }

    /// Number of tasks: a total, or so many per slot.
    pub fn ntasks(&self) -> Result<u64, CountsError> {
        let nslots = self.counts()?.nslots;
        let mut ntasks = 0u64;
        for count in self.tasks().iter().filter_map(|task| task.get("count")) {
            let number = |key| count.get(key).and_then(Value::as_u64);
            let per_slot = || number("per_slot").unwrap_or(1).checked_mul(nslots);
            let tasks = number("total").or_else(per_slot);
            let sum = tasks.and_then(|tasks| ntasks.checked_add(tasks));
            ntasks = sum.ok_or(CountsError::Overflow)?;
        }
        Ok(ntasks)
    }
}
