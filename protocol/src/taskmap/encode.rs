//! Writing a taskmap.

use super::{Block, Taskmap, insert_run};
use crate::idset::{Idset, Style};
use serde::{Serialize, Serializer};
use std::fmt::Write;

/// The forms that a taskmap may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `[[0,4,4,1]]`
    Json,
    /// `{"version":1,"map":[[0,4,4,1]]}`
    Wrapped,
    /// `(vector,(0,4,4))`, the PMI-1 process mapping
    Pmi,
    /// `0-3;4-7;8-11;12-15`
    Raw,
    /// Raw without ranges: `0,1,2,3;4,5,6,7`
    RawDeranged,
}

/// The raw forms have no way to skip a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {0} has no tasks")]
pub struct NodeWithoutTasks(pub usize);

#[derive(Serialize)]
struct Wrapped<'a> {
    version: u32,
    map: &'a [Block],
}

impl Taskmap {
    /// Write the map. Only the raw forms can fail.
    pub fn encode(&self, form: Form) -> Result<String, NodeWithoutTasks> {
        match form {
            Form::Json => Ok(format!("[{}]", join(&self.blocks, write_json_block))),
            Form::Wrapped => {
                let blocks = join(&self.blocks, write_json_block);
                Ok(format!("{{\"version\":1,\"map\":[{blocks}]}}"))
            }
            Form::Pmi => Ok(self.pmi()),
            Form::Raw => self.raw(Style { range: true, brackets: false }),
            Form::RawDeranged => self.raw(Style { range: false, brackets: false }),
        }
    }

    fn pmi(&self) -> String {
        if self.is_unknown() {
            return String::new();
        }
        let repeated = self.blocks.iter().flat_map(|b| std::iter::repeat_n(b, b.repeat as usize));
        let blocks = join(repeated, |block, out| {
            let Block { start, nnodes, ppn, .. } = block;
            let _ = write!(out, "({start},{nnodes},{ppn})");
        });
        format!("(vector,{blocks})")
    }

    fn raw(&self, style: Style) -> Result<String, NodeWithoutTasks> {
        let nodes = self.tasks_by_node()?;
        Ok(nodes.iter().map(|ids| ids.encode_with(style)).collect::<Vec<_>>().join(";"))
    }

    /// The tasks of all nodes, in one pass over the tasks.
    pub fn tasks_by_node(&self) -> Result<Vec<Idset>, NodeWithoutTasks> {
        let nnodes = self.nnodes().unwrap_or_default();
        // Of more nodes than tasks, one of the first is without: the rest need no room.
        let room = nnodes.min(self.total_ntasks().unwrap_or_default() + 1);
        let mut nodes = vec![Idset::new(); usize::try_from(room).unwrap_or_default()];
        let mut first = 0;
        for block in &self.blocks {
            for _ in 0..block.repeat {
                let here = nodes.iter_mut().skip(block.start as usize).take(block.nnodes as usize);
                for (offset, ids) in (0..).zip(here) {
                    insert_run(ids, first + offset * u64::from(block.ppn), block.ppn);
                }
                first += block.round();
            }
        }
        match nodes.iter().position(Idset::is_empty) {
            Some(node) => Err(NodeWithoutTasks(node)),
            None => Ok(nodes),
        }
    }
}

fn write_json_block(block: &Block, out: &mut String) {
    let Block { start, nnodes, ppn, repeat } = block;
    // Writing to a String cannot fail.
    let _ = write!(out, "[{start},{nnodes},{ppn},{repeat}]");
}

fn join<'a>(
    blocks: impl IntoIterator<Item = &'a Block>,
    write: impl Fn(&Block, &mut String),
) -> String {
    let mut text = String::new();
    for block in blocks {
        if !text.is_empty() {
            text.push(',');
        }
        write(block, &mut text);
    }
    text
}

impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.start, self.nnodes, self.ppn, self.repeat].serialize(serializer)
    }
}

/// The wrapped JSON form.
impl Serialize for Taskmap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wrapped { version: 1, map: &self.blocks }.serialize(serializer)
    }
}
