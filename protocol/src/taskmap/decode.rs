//! Reading a taskmap in any of its forms.

use super::{Block, MAX_TASKS, Taskmap};
use crate::idset::{Idset, IdsetError};
use serde_json::Value;

/// Why a text is not a taskmap.
#[derive(Debug, thiserror::Error)]
pub enum TaskmapError {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("taskmap must be an object or array")]
    Type,
    #[error("taskmap must be an array")]
    MapType,
    #[error("Object item not found: {0}")]
    MissingKey(&'static str),
    #[error("expected version=1, got {0}")]
    Version(Value),
    #[error("entry {0} in taskmap is not an array")]
    EntryType(usize),
    #[error("error in taskmap entry: Array index {0} out of range")]
    EntryLength(usize),
    #[error("error in taskmap entry: Expected integer, got {0}")]
    NotAnInteger(&'static str),
    #[error("invalid entry [{}]", .0.map(|n| n.to_string()).join(","))]
    Entry([i64; 4]),
    #[error("vector prefix must precede blocklist")]
    NoVector,
    #[error("unable to parse block: ({0}")]
    Block(String),
    #[error("invalid number in block: ({0}")]
    BlockNumber(String),
    #[error("{0}")]
    Idset(#[from] IdsetError),
    #[error("duplicate {} specified: {}", noun(*.0, *.1), span(*.0, *.1))]
    Duplicate(u32, u32),
    #[error("missing {}: {}", noun(*.0, *.1), span(*.0, *.1))]
    Missing(u32, u32),
    #[error("taskmap has more than {MAX_TASKS} tasks")]
    TooManyTasks,
}

fn noun(first: u32, last: u32) -> &'static str {
    if first == last { "taskid" } else { "taskids" }
}

fn span(first: u32, last: u32) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

impl Taskmap {
    /// Read any form. The empty string is the unknown mapping.
    pub fn decode(text: &str) -> Result<Self, TaskmapError> {
        let map = if text.is_empty() || text.contains("vector,") {
            decode_pmi(text)
        } else if text.contains(['(', '{', '[', ']', '}', ')']) {
            return Self::decode_json(&serde_json::from_str(text)?);
        } else {
            decode_raw(text)
        }?;
        map.bounded()
    }

    /// Read the JSON form, wrapped in an object with a version or not.
    pub fn decode_json(json: &Value) -> Result<Self, TaskmapError> {
        let map = match json {
            Value::Array(_) => json,
            Value::Object(object) => {
                let member = |key| object.get(key).ok_or(TaskmapError::MissingKey(key));
                let (version, map) = (member("version")?, member("map")?);
                if version.as_i64() != Some(1) {
                    return Err(TaskmapError::Version(version.clone()));
                }
                map
            }
            _ => return Err(TaskmapError::Type),
        };
        let entries = map.as_array().ok_or(TaskmapError::MapType)?;
        let blocks = entries.iter().enumerate().map(|(n, entry)| decode_block(n, entry));
        Self { blocks: blocks.collect::<Result<_, _>>()? }.bounded()
    }

    fn bounded(self) -> Result<Self, TaskmapError> {
        let total = self.blocks.iter().fold(0u64, |sum, block| sum.saturating_add(block.tasks()));
        if total > MAX_TASKS { Err(TaskmapError::TooManyTasks) } else { Ok(self) }
    }
}

/// `[start, nnodes, ppn, repeat]`; what follows is not looked at.
fn decode_block(n: usize, entry: &Value) -> Result<Block, TaskmapError> {
    let numbers = entry.as_array().ok_or(TaskmapError::EntryType(n))?;
    let mut block = [0i64; 4];
    for (i, slot) in block.iter_mut().enumerate() {
        let number = numbers.get(i).ok_or(TaskmapError::EntryLength(i))?;
        *slot = number.as_i64().ok_or(TaskmapError::NotAnInteger(type_name(number)))?;
    }
    let [start, nnodes, ppn, repeat] = block.map(|n| i32::try_from(n).ok());
    let positive = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
    let start = start.and_then(|n| u32::try_from(n).ok());
    match (start, positive(nnodes), positive(ppn), positive(repeat)) {
        (Some(start), Some(nnodes), Some(ppn), Some(repeat)) => {
            Ok(Block { start, nnodes, ppn, repeat })
        }
        _ => Err(TaskmapError::Entry(block)),
    }
}

/// JSON types by the names that jansson gives them.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Number(_) => "real",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `(vector,(start,nnodes,ppn),...)`, read as leniently as Flux reads it.
fn decode_pmi(text: &str) -> Result<Taskmap, TaskmapError> {
    let mut map = Taskmap::new();
    let mut vector = false;
    for token in text.split('(').map(str::trim_start).filter(|token| !token.is_empty()) {
        if token.starts_with("vector,") {
            vector = true;
            continue;
        }
        if !vector {
            return Err(TaskmapError::NoVector);
        }
        let numbers = pmi_numbers(token).ok_or_else(|| TaskmapError::Block(token.to_owned()))?;
        match numbers.map(|n| u32::try_from(n).ok().filter(|&n| i32::try_from(n).is_ok())) {
            [Some(start), Some(nnodes), Some(ppn)] if nnodes > 0 && ppn > 0 => {
                map.append(start, nnodes, ppn);
            }
            _ => return Err(TaskmapError::BlockNumber(token.to_owned())),
        }
    }
    Ok(map)
}

/// The three numbers before the closing parenthesis.
fn pmi_numbers(token: &str) -> Option<[i64; 3]> {
    let (numbers, _) = token.split_once(')')?;
    let mut numbers = numbers.split(',').map(|n| n.trim_start().parse().ok());
    let three = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(three)
}

/// One idset of tasks per node, separated by semicolons.
fn decode_raw(text: &str) -> Result<Taskmap, TaskmapError> {
    let mut runs = Vec::new();
    for (node, ids) in (0u32..).zip(text.split(';').filter(|ids| !ids.is_empty())) {
        runs.extend(Idset::decode(ids)?.ranges().map(|(first, last)| (first, last, node)));
    }
    runs.sort_by_key(|&(first, ..)| first);

    let mut map = Taskmap::new();
    let mut next = 0;
    for (first, last, node) in runs {
        if first < next {
            return Err(TaskmapError::Duplicate(first, last.min(next - 1)));
        }
        if first > next {
            return Err(TaskmapError::Missing(next, first - 1));
        }
        map.append(node, 1, last - first + 1);
        next = last + 1;
    }
    Ok(map)
}
