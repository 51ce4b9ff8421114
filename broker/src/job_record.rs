//! The record of a job that plugins are given, read from its jobspec.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::plugin::types;

#[derive(Deserialize)]
struct Jobspec<'a> {
    #[serde(borrow, default)]
    attributes: Attributes<'a>,
    #[serde(default)]
    resources: Vec<Value>,
    #[serde(default)]
    tasks: Vec<Value>,
}

#[derive(Deserialize, Default)]
struct Attributes<'a> {
    #[serde(borrow, default)]
    system: System<'a>,
}

#[derive(Deserialize, Default)]
struct System<'a> {
    #[serde(default)]
    duration: f64,
    queue: Option<String>,
    bank: Option<String>,
    project: Option<String>,
    #[serde(default)]
    job: Value,
    #[serde(borrow)]
    constraints: Option<&'a RawValue>,
}

/// Whether execution of the job is simulated: `attributes.system.exec.test`.
pub fn is_simulated(jobspec: &str) -> bool {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Jobspec {
        attributes: Attributes,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Attributes {
        system: System,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct System {
        exec: Exec,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Exec {
        test: Option<IgnoredAny>,
    }
    let spec = serde_json::from_str::<Jobspec>(jobspec);
    spec.is_ok_and(|spec| spec.attributes.system.exec.test.is_some())
}

/// What the jobspec says; the rest of the record is that of a new job without an id. What can't
/// be read is left out, and nothing comes of a text that is no jobspec.
pub fn from_jobspec(jobspec: &str) -> Option<types::Job> {
    let spec: Jobspec<'_> = serde_json::from_str(jobspec).ok()?;
    let system = &spec.attributes.system;
    Some(types::Job {
        id: 0,
        userid: u32::MAX,
        urgency: 16,
        priority: None,
        state: types::JobState::New,
        flags: 0,
        t_submit: 0.0,
        duration: system.duration,
        request: request(&spec.resources),
        name: name(&spec),
        named: spec.attributes.system.job.get("name").is_some_and(Value::is_string),
        queue: system.queue.clone(),
        bank: system.bank.clone(),
        project: system.project.clone(),
        constraints: system.constraints.map(|raw| raw.get().to_owned()),
        job_result: None,
        end_event: None,
    })
}

/// A record for a job whose jobspec can't be read.
pub fn blank() -> types::Job {
    types::Job {
        id: 0,
        userid: u32::MAX,
        urgency: 16,
        priority: None,
        state: types::JobState::New,
        flags: 0,
        t_submit: 0.0,
        duration: 0.0,
        request: None,
        name: String::new(),
        named: false,
        queue: None,
        bank: None,
        project: None,
        constraints: None,
        job_result: None,
        end_event: None,
    }
}

/// `attributes.system.job.name`, else the base name of the command.
fn name(spec: &Jobspec<'_>) -> String {
    if let Some(name) = spec.attributes.system.job.get("name").and_then(Value::as_str) {
        return name.to_owned();
    }
    let command = spec.tasks.first().and_then(|task| task.get("command")?.get(0)?.as_str());
    command.map_or_else(String::new, |path| path.rsplit('/').next().unwrap_or(path).to_owned())
}

/// A V1 request (RFC 25): `node > slot > {core, gpu}`, or `slot > {core, gpu}`.
fn request(resources: &[Value]) -> Option<types::Request> {
    let [top] = resources else { return None };
    let (nodes, exclusive, slot) = match kind(top)? {
        "node" => {
            let [slot] = top.get("with")?.as_array()?.as_slice() else { return None };
            let exclusive = top.get("exclusive").and_then(Value::as_bool).unwrap_or(false);
            (Some(count(top.get("count")?)?), exclusive, slot)
        }
        "slot" => (None, false, top),
        _ => return None,
    };
    if kind(slot)? != "slot" {
        return None;
    }
    let per_slot = |wanted: &str| -> Option<u32> {
        let with = slot.get("with")?.as_array()?;
        match with.iter().find(|resource| kind(resource) == Some(wanted)) {
            None => Some(0),
            Some(resource) => number(resource.get("count")?),
        }
    };
    Some(types::Request {
        nodes,
        slots: count(slot.get("count")?)?,
        cores_per_slot: per_slot("core")?,
        gpus_per_slot: per_slot("gpu")?,
        exclusive,
    })
}

fn kind(resource: &Value) -> Option<&str> {
    resource.get("type")?.as_str()
}

/// What is more than the most that a scheduler is told of is no less impossible than that.
fn number(value: &Value) -> Option<u32> {
    value.as_u64().map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// A number, or a range with an operator (RFC 14).
fn count(value: &Value) -> Option<types::Count> {
    if let Some(exact) = number(value) {
        return Some(types::Count { min: exact, max: Some(exact), step: None });
    }
    let operator = match value.get("operator").and_then(Value::as_str).unwrap_or("+") {
        "+" => types::CountOperator::Add,
        "*" => types::CountOperator::Multiply,
        "^" => types::CountOperator::Power,
        _ => return None,
    };
    let operand = value.get("operand").and_then(number).unwrap_or(1);
    Some(types::Count {
        min: number(value.get("min")?)?,
        max: value.get("max").and_then(number),
        step: Some(types::CountStep { operator, operand }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_simulated_by_its_test_table_alone() {
        let simulated =
            |system: &str| is_simulated(&format!("{{\"attributes\":{{\"system\":{system}}}}}"));
        assert!(simulated("{\"exec\":{\"test\":{\"run_duration\":\"1s\"}},\"duration\":0}"));
        for other in ["{}", "{\"exec\":{}}", "{\"exec\":{\"bulkexec\":{}}}", "{\"exec\":7}"] {
            assert!(!simulated(other), "{other}");
        }
        assert!(!is_simulated("{}") && !is_simulated(""));
    }

    #[test]
    fn a_request_for_more_than_can_be_counted_is_a_request_for_very_many() {
        let resources = serde_json::json!([
            {"type": "slot", "count": 99_999_999_999_u64, "with": [{"type": "core", "count": 1}]},
        ]);
        let request = request(resources.as_array().unwrap()).unwrap();
        assert_eq!((request.slots.min, request.cores_per_slot), (u32::MAX, 1));
    }
}
