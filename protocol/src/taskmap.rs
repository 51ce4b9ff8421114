//! Which task of a job runs on which of its nodes, RFC 34.
//!
//! A map is a list of blocks, each a run of nodes that get the same number of consecutive tasks,
//! repeated. It may be written as JSON, as a PMI-1 process mapping, or as one idset of tasks per
//! node.

mod decode;
mod encode;

pub use decode::TaskmapError;
pub use encode::{Form, NodeWithoutTasks};

use crate::idset::Idset;

/// Most tasks in a map: a few bytes of text can name billions.
pub const MAX_TASKS: u64 = 1 << 24;

/// A map of tasks to nodes. Without blocks the mapping is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taskmap {
    blocks: Vec<Block>,
}

/// `ppn` tasks on each of `nnodes` nodes from node `start` on, `repeat` times over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub start: u32,
    pub nnodes: u32,
    pub ppn: u32,
    pub repeat: u32,
}

/// How two maps differ in size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("got {got} {what}, expected {expected}")]
pub struct SizeMismatch {
    what: &'static str,
    got: i64,
    expected: i64,
}

// === impl Block ===

impl Block {
    /// Tasks of one repetition.
    fn round(&self) -> u64 {
        u64::from(self.nnodes) * u64::from(self.ppn)
    }

    fn tasks(&self) -> u64 {
        self.round().saturating_mul(u64::from(self.repeat))
    }

    /// The node after the last.
    fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.nnodes)
    }

    fn same_shape(&self, other: &Self) -> bool {
        (self.start, self.nnodes, self.ppn) == (other.start, other.nnodes, other.ppn)
    }
}

// === impl Taskmap ===

impl Taskmap {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub fn is_unknown(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Number of nodes up to the highest that has tasks; None when the mapping is unknown.
    pub fn nnodes(&self) -> Option<u64> {
        self.blocks.iter().map(Block::end).max()
    }

    /// Number of tasks; None when the mapping is unknown.
    pub fn total_ntasks(&self) -> Option<u64> {
        (!self.is_unknown()).then(|| self.blocks.iter().map(Block::tasks).sum())
    }

    /// The tasks of a node; empty when it has none.
    pub fn taskids(&self, nodeid: u32) -> Idset {
        let mut ids = Idset::new();
        let mut first = 0;
        for block in &self.blocks {
            let here = nodeid.checked_sub(block.start).filter(|&offset| offset < block.nnodes);
            if let Some(offset) = here {
                for round in 0..u64::from(block.repeat) {
                    let lo =
                        first + round * block.round() + u64::from(offset) * u64::from(block.ppn);
                    insert_run(&mut ids, lo, block.ppn);
                }
            }
            first += block.tasks();
        }
        ids
    }

    pub fn ntasks(&self, nodeid: u32) -> u64 {
        self.taskids(nodeid).count()
    }

    /// The node of a task; None when there is no such task.
    pub fn nodeid(&self, taskid: u32) -> Option<u32> {
        let mut left = u64::from(taskid);
        for block in &self.blocks {
            if left < block.tasks() {
                let offset = left % block.round() / u64::from(block.ppn);
                return u32::try_from(u64::from(block.start) + offset).ok();
            }
            left -= block.tasks();
        }
        None
    }

    /// Append `ppn` tasks on each of `nnodes` nodes from `start` on, in the fewest blocks. Zero
    /// nodes or tasks append nothing.
    pub fn append(&mut self, start: u32, nnodes: u32, ppn: u32) {
        if nnodes == 0 || ppn == 0 {
            return;
        }
        let block = Block { start, nnodes, ppn, repeat: 1 };
        match self.blocks.last_mut() {
            Some(last) if last.end() == u64::from(start) && last.ppn == ppn && last.repeat == 1 => {
                last.nnodes = last.nnodes.saturating_add(nnodes);
                self.join_repeats();
            }
            Some(last) if last.start == start && last.nnodes == 1 && nnodes == 1 => {
                last.ppn = last.ppn.saturating_add(ppn);
                self.join_repeats();
            }
            Some(last) if last.same_shape(&block) => last.repeat = last.repeat.saturating_add(1),
            _ => self.blocks.push(block),
        }
    }

    /// Whether another map has the same numbers of nodes and tasks.
    pub fn check_size(&self, new: &Self) -> Result<(), SizeMismatch> {
        let size = |n: Option<u64>| n.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
        for (what, expected, got) in [
            ("nodes", self.nnodes(), new.nnodes()),
            ("total tasks", self.total_ntasks(), new.total_ntasks()),
        ] {
            if expected != got {
                return Err(SizeMismatch { what, got: size(got), expected: size(expected) });
            }
        }
        Ok(())
    }

    /// The last block may have grown to the shape of the one before it.
    fn join_repeats(&mut self) {
        if let [.., before, last] = self.blocks.as_mut_slice()
            && before.same_shape(last)
        {
            before.repeat = before.repeat.saturating_add(last.repeat);
            self.blocks.pop();
        }
    }
}

/// Add the ids `first..first + count`. Task ids fit an idset: see [`MAX_TASKS`].
fn insert_run(ids: &mut Idset, first: u64, count: u32) {
    if let (Ok(lo), Ok(hi)) = (u32::try_from(first), u32::try_from(first + u64::from(count) - 1)) {
        ids.insert_range(lo, hi);
    }
}
