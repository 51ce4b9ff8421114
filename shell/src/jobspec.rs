//! The jobspec (RFC 25), as far as the shell needs it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::options::Options;

#[derive(Debug, thiserror::Error)]
pub(crate) enum JobspecError {
    #[error("failed to unwrap J: {0}")]
    Unwrap(&'static str),
    #[error("error parsing jobspec: {0}")]
    Json(#[from] serde_json::Error),
    #[error("error parsing jobspec: {0}")]
    Invalid(String),
}

#[derive(Debug)]
pub(crate) struct Jobspec {
    pub(crate) version: i64,
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) cwd: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) options: Options,
    /// Files to put into the job's temporary directory (RFC 37 file references).
    pub(crate) files: Option<Value>,
    /// What `flux batch` wrote before there were `files`.
    pub(crate) batch: Option<Batch>,
    pub(crate) per_resource: Option<PerResource>,
    resources: Vec<Resource>,
    count: TaskCount,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Batch {
    pub(crate) script: String,
    #[serde(default, rename = "broker-opts")]
    pub(crate) broker_opts: Vec<String>,
}

/// So many tasks on each node or core instead of one per slot.
#[derive(Debug, Deserialize)]
pub(crate) struct PerResource {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default = "one")]
    pub(crate) count: u32,
}

/// What of the resources goes to each slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) count: u64,
    pub(crate) cores: u64,
    pub(crate) gpus: u64,
    /// Slots on each node, where the jobspec asks for nodes.
    pub(crate) per_node: Option<u64>,
}

/// Totals of the allocated resources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) nodes: u64,
    pub(crate) cores: u64,
    pub(crate) gpus: u64,
    pub(crate) slots: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Document {
    version: i64,
    resources: Vec<Resource>,
    tasks: Vec<Task>,
    attributes: Attributes,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(rename = "type")]
    kind: String,
    count: Value,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    with: Vec<Resource>,
}

#[derive(Debug, Deserialize)]
struct Task {
    command: Vec<String>,
    count: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    system: Option<System>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct System {
    cwd: Option<String>,
    environment: Option<BTreeMap<String, String>>,
    shell: Option<ShellAttributes>,
    job: Option<JobAttributes>,
    files: Option<Value>,
    batch: Option<Batch>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ShellAttributes {
    options: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JobAttributes {
    name: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum TaskCount {
    PerSlot,
    Total(u32),
}

// === impl Jobspec ===

impl Jobspec {
    /// The jobspec inside of a signed job request J (RFC 15): `HEADER.PAYLOAD.SIGNATURE`.
    pub(crate) fn unwrap(signed: &str) -> Result<Jobspec, JobspecError> {
        let payload = signed.split('.').nth(1).ok_or(JobspecError::Unwrap("no payload"))?;
        let json = STANDARD.decode(payload).map_err(|_| JobspecError::Unwrap("not base64"))?;
        let json = String::from_utf8(json).map_err(|_| JobspecError::Unwrap("not UTF-8"))?;
        Jobspec::decode(&json)
    }

    pub(crate) fn decode(json: &str) -> Result<Jobspec, JobspecError> {
        let Document { version, resources, tasks, attributes } = serde_json::from_str(json)?;
        let task = tasks.into_iter().next().ok_or_else(|| invalid("no tasks"))?;
        if task.command.is_empty() {
            return Err(invalid("Malformed command entry"));
        }
        let system = attributes.system.unwrap_or_default();
        let options = system.shell.and_then(|shell| shell.options).unwrap_or_default();
        let per_resource = match options.get("per-resource") {
            Some(value) => Some(per_resource(value)?),
            None => None,
        };
        Ok(Jobspec {
            version,
            count: task_count(&task.count)?,
            command: task.command,
            environment: system.environment.unwrap_or_default(),
            cwd: system.cwd,
            name: system.job.and_then(|job| job.name),
            options: Options::new(options),
            files: system.files,
            batch: system.batch,
            per_resource,
            resources,
        })
    }

    /// How the allocated resources are cut into slots.
    pub(crate) fn slots(&self, totals: Totals) -> Result<Slots, JobspecError> {
        let asks_for_nodes = self.resources.iter().any(Resource::has_node);
        let per_node = |count: u64| asks_for_nodes.then(|| count / totals.nodes.max(1));
        let (count, per_node) = match totals.slots {
            Some(count) => {
                let first_is_node = self.resources.first().is_some_and(|r| r.kind == "node");
                (count, first_is_node.then(|| count / totals.nodes.max(1)))
            }
            None => {
                let slots = slot_count(&self.resources)?;
                let count = if asks_for_nodes { slots * totals.nodes } else { slots };
                (count, per_node(count))
            }
        };
        let count = count.max(1);
        Ok(Slots { count, cores: totals.cores / count, gpus: totals.gpus / count, per_node })
    }

    pub(crate) fn task_count(&self, slots: Slots) -> u64 {
        match self.count {
            TaskCount::PerSlot => slots.count,
            TaskCount::Total(total) => u64::from(total),
        }
    }

    /// Whether whole nodes are allocated.
    pub(crate) fn is_node_exclusive(&self) -> bool {
        let mut level = &self.resources;
        while let Some(resource) = level.first() {
            if resource.kind == "node" {
                return resource.exclusive;
            }
            level = &resource.with;
        }
        false
    }
}

impl Resource {
    fn has_node(&self) -> bool {
        self.kind == "node" || self.with.iter().any(Resource::has_node)
    }
}

/// The count of the one slot, which may be below others.
fn slot_count(resources: &[Resource]) -> Result<u64, JobspecError> {
    for resource in resources {
        if resource.kind == "slot" {
            return match resource.count.as_u64() {
                Some(count) if count > 0 => Ok(count),
                _ => Err(invalid("count must be integer for slot resource")),
            };
        }
        if let Ok(count) = slot_count(&resource.with) {
            return Ok(count);
        }
    }
    Err(invalid("Missing slot resource"))
}

fn task_count(count: &Map<String, Value>) -> Result<TaskCount, JobspecError> {
    if count.len() != 1 {
        return Err(invalid("tasks count must have exactly one key set"));
    }
    if let Some(total) = count.get("total").and_then(Value::as_u64) {
        return match u32::try_from(total) {
            Ok(total) if total > 0 => Ok(TaskCount::Total(total)),
            _ => Err(invalid("tasks count is out of range")),
        };
    }
    match count.get("per_slot").and_then(Value::as_u64) {
        Some(1) => Ok(TaskCount::PerSlot),
        Some(n) => Err(invalid(&format!("per_slot count: expected 1 got {n}"))),
        None => Err(invalid("Unable to parse tasks count")),
    }
}

fn per_resource(value: &Value) -> Result<PerResource, JobspecError> {
    let parsed = PerResource::deserialize(value)
        .map_err(|e| invalid(&format!("invalid per-resource section: {e}")))?;
    if parsed.count == 0 {
        return Err(invalid("per-resource.count must be > 0"));
    }
    Ok(parsed)
}

fn one() -> u32 {
    1
}

fn invalid(text: &str) -> JobspecError {
    JobspecError::Invalid(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn jobspec(resources: Value, count: Value) -> Result<Jobspec, JobspecError> {
        let value = json!({
            "version": 1,
            "resources": resources,
            "tasks": [{"command": ["app"], "slot": "task", "count": count}],
            "attributes": {"system": {"duration": 0}},
        });
        Jobspec::decode(&value.to_string())
    }

    fn totals(nodes: u64, cores: u64, slots: Option<u64>) -> Totals {
        Totals { nodes, cores, gpus: 0, slots }
    }

    #[test]
    fn slots_below_nodes_are_counted_on_each_node() {
        let resources = json!([{"type": "node", "count": 2, "with": [
            {"type": "slot", "count": 2, "label": "task", "with": [{"type": "core", "count": 1}]}]}]);
        let spec = jobspec(resources, json!({"per_slot": 1})).unwrap();
        let slots = spec.slots(totals(2, 4, None)).unwrap();
        assert_eq!(slots, Slots { count: 4, cores: 1, gpus: 0, per_node: Some(2) });
        assert_eq!(spec.task_count(slots), 4);
    }

    #[test]
    fn the_scheduler_knows_the_number_of_slots_better() {
        let resources = json!([{"type": "slot", "count": {"min": 1}, "with": [
            {"type": "core", "count": 1}], "label": "task"}]);
        let spec = jobspec(resources, json!({"per_slot": 1})).unwrap();
        assert!(spec.slots(totals(1, 8, None)).is_err());
        let slots = spec.slots(totals(1, 8, Some(4))).unwrap();
        assert_eq!((slots.count, slots.cores, slots.per_node), (4, 2, None));
    }

    #[test]
    fn task_counts_that_make_no_sense_are_refused() {
        let resources = || json!([{"type": "slot", "count": 1, "with": []}]);
        for count in [json!({}), json!({"per_slot": 2}), json!({"total": 0}), json!({"x": 1})] {
            assert!(jobspec(resources(), count.clone()).is_err(), "{count}");
        }
    }

    #[test]
    fn a_signed_request_is_unwrapped() {
        let spec = json!({
            "version": 1,
            "resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}]}],
            "tasks": [{"command": ["echo", "é"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"cwd": "/tmp", "environment": {"A": "1"},
                "shell": {"options": {"pty": true}}}},
        });
        let signed = format!("aGVhZGVy.{}.none", STANDARD.encode(spec.to_string()));
        let spec = Jobspec::unwrap(&signed).unwrap();
        assert_eq!(spec.command, ["echo", "é"]);
        assert!(spec.options.is_set("pty"));
        assert!(Jobspec::unwrap("nothing").is_err());
    }
}
