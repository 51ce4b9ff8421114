//! Taskmap schemes: how tasks are put on nodes other than in blocks.

use std::path::Path;

use flux_protocol::hostlist::Hostlist;
use flux_protocol::taskmap::{SizeMismatch, Taskmap, TaskmapError};

use super::Layout;
use crate::fatal::reason;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemeError {
    #[error("block taskmap does not accept a value (got {0})")]
    BlockValue(String),
    #[error("taskmap={value}: {source}")]
    Manual { value: String, source: TaskmapError },
    #[error("invalid taskmap: mapping is unknown")]
    Unknown,
    #[error("invalid taskmap: {0}")]
    Size(#[from] SizeMismatch),
    #[error("invalid cyclic stride: {0}")]
    Stride(String),
    #[error("failed to open hostfile: {path}: {reason}")]
    Hostfile { path: String, reason: String },
    #[error("hostfile:{path}: {text}")]
    Hosts { path: String, text: String },
    #[error("failed to map tasks with hostfile:{path}: host {host} not found in job nodelist")]
    Host { path: String, host: String },
    #[error("failed to map tasks with scheme={0}")]
    UnknownScheme(String),
}

/// The map of a scheme; `None` leaves the blocks.
pub(super) fn map(
    layout: &Layout,
    scheme: &str,
    value: &str,
) -> Result<Option<Taskmap>, SchemeError> {
    let map = match scheme {
        "block" if value.is_empty() => return Ok(None),
        "block" => return Err(SchemeError::BlockValue(value.to_owned())),
        "manual" => Taskmap::decode(value)
            .map_err(|source| SchemeError::Manual { value: value.to_owned(), source })?,
        "cyclic" => cyclic(&layout.taskmap, stride(value)?),
        "hostfile" => hostfile(layout, value)?,
        _ => return Err(SchemeError::UnknownScheme(scheme.to_owned())),
    };
    if map.is_unknown() {
        return Err(SchemeError::Unknown);
    }
    layout.taskmap.check_size(&map)?;
    Ok(Some(map))
}

fn stride(value: &str) -> Result<u32, SchemeError> {
    if value.is_empty() {
        return Ok(1);
    }
    match value.parse() {
        Ok(stride) if stride > 0 => Ok(stride),
        _ => Err(SchemeError::Stride(value.to_owned())),
    }
}

/// `stride` tasks on each node in turn, as long as the node has some left.
fn cyclic(blocks: &Taskmap, stride: u32) -> Taskmap {
    let nnodes = blocks.nnodes().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let mut left: Vec<u32> =
        (0..nnodes).map(|id| u32::try_from(blocks.ntasks(id)).unwrap_or_default()).collect();
    let mut map = Taskmap::new();
    while left.iter().any(|&left| left > 0) {
        for (id, left) in (0..).zip(left.iter_mut()) {
            let now = stride.min(*left);
            map.append(id, 1, now);
            *left -= now;
        }
    }
    map
}

/// One task on each host in the order of a file, from the start again when it has ended.
fn hostfile(layout: &Layout, path: &str) -> Result<Taskmap, SchemeError> {
    let failed = |text: String| SchemeError::Hosts { path: path.to_owned(), text };
    let text = std::fs::read_to_string(Path::new(path))
        .map_err(|e| SchemeError::Hostfile { path: path.to_owned(), reason: reason(&e) })?;
    let mut hosts = Hostlist::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        hosts.append(line).map_err(|e| failed(e.to_string()))?;
    }
    if hosts.is_empty() {
        return Err(failed("no hosts".to_owned()));
    }
    let mut map = Taskmap::new();
    let mut order = hosts.iter();
    for _ in 0..layout.total_ntasks {
        let host = match order.next() {
            Some(host) => host,
            None => {
                order = hosts.iter();
                order.next().unwrap_or_default()
            }
        };
        let id = layout.nodes.iter().position(|node| node.host == host);
        let id = id.and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| SchemeError::Host { path: path.to_owned(), host })?;
        map.append(id, 1, 1);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobspec::Slots;
    use crate::layout::Node;
    use flux_protocol::idset::Idset;
    use flux_protocol::taskmap::Form;
    use std::io::Write as _;

    fn layout(counts: &[u32]) -> Layout {
        let mut taskmap = Taskmap::new();
        let nodes = (0..).zip(counts).map(|(id, &count)| {
            taskmap.append(id, 1, count);
            Node {
                broker_rank: id,
                host: format!("n{id}"),
                cores: Idset::first_n(count),
                gpus: Idset::new(),
            }
        });
        let nodes = nodes.collect();
        let slots = Slots { count: 4, cores: 1, gpus: 0, per_node: Some(2) };
        Layout { nodes, taskmap, slots, total_ntasks: counts.iter().sum() }
    }

    fn remapped(counts: &[u32], scheme: &str, value: &str) -> Result<String, SchemeError> {
        let mut layout = layout(counts);
        layout.remap(scheme, value)?;
        Ok(layout.taskmap.encode(Form::Json).unwrap())
    }

    #[test]
    fn cyclic_deals_tasks_out_in_turn() {
        assert_eq!(remapped(&[2, 2], "cyclic", "").unwrap(), "[[0,2,1,2]]");
        assert_eq!(remapped(&[4, 4], "cyclic", "2").unwrap(), "[[0,2,2,2]]");
        assert_eq!(remapped(&[1, 3], "cyclic", "").unwrap(), "[[0,2,1,1],[1,1,2,1]]");
        for value in ["0", "-1", "x"] {
            assert!(remapped(&[2, 2], "cyclic", value).is_err());
        }
    }

    #[test]
    fn a_manual_map_must_have_the_size_of_the_job() {
        assert_eq!(remapped(&[2, 2], "manual", "[[0,2,1,2]]").unwrap(), "[[0,2,1,2]]");
        assert_eq!(
            remapped(&[2, 2], "manual", "(vector,(1,1,2),(0,1,2))").unwrap(),
            "[[1,1,2,1],[0,1,2,1]]"
        );
        assert!(remapped(&[2, 2], "manual", "[[0,2,1,1]]").is_err());
        assert!(remapped(&[2, 2], "manual", "[]").is_err());
        assert!(remapped(&[2, 2], "manual", "foo").is_err());
    }

    #[test]
    fn a_hostfile_is_read_again_and_again() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "n1\nn[0-1]").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        assert_eq!(
            remapped(&[2, 2], "hostfile", &path).unwrap(),
            "[[1,1,1,1],[0,2,1,1],[1,1,1,1]]"
        );
        writeln!(file, "other").unwrap();
        let error = remapped(&[4, 4], "hostfile", &path).unwrap_err();
        assert!(error.to_string().ends_with("host other not found in job nodelist"), "{error}");
        assert!(remapped(&[2, 2], "hostfile", "/nonexistent").is_err());
    }

    #[test]
    fn block_is_what_there_is_already() {
        assert_eq!(remapped(&[2, 2], "block", "").unwrap(), "[[0,2,2,1]]");
        assert!(remapped(&[2, 2], "block", "1").is_err());
        assert!(remapped(&[2, 2], "nonsense", "").is_err());
    }
}
