//! Keeps a job on the nodes of its queue: the properties that the queue requires (RFC 33), or its
//! parent's, are added to the job's constraints (RFC 31).

use flux_plugin::prelude::*;
use serde_json::{Map, Value, json};

struct Constraints {
    queues: Map<String, Value>,
}

impl Plugin for Constraints {
    fn init(context: &Context) -> Result<Self, String> {
        Self::from_config(&context.broker_config)
    }

    fn configure(&mut self, _: &str, broker_config: &str) -> Result<(), String> {
        *self = Self::from_config(broker_config)?;
        Ok(())
    }
}

impl Frobnicator for Constraints {
    fn frobnicate(&mut self, submission: &Submission) -> Edit {
        match self.constraints(&submission.jobspec) {
            Ok(None) => Edit::Unchanged,
            Ok(Some(constraints)) => {
                let key = "attributes.system.constraints".to_owned();
                Edit::Update(vec![(key, constraints.to_string())])
            }
            Err(text) => refuse_edit(errno::EINVAL, text),
        }
    }
}

impl Constraints {
    fn from_config(config: &str) -> Result<Self, String> {
        let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
        match config.get("queues") {
            None => Ok(Constraints { queues: Map::new() }),
            Some(Value::Object(queues)) => Ok(Constraints { queues: queues.clone() }),
            Some(_) => Err("queues must be a table".to_owned()),
        }
    }

    /// The job's constraints with its queue's; none where nothing changes.
    fn constraints(&self, jobspec: &str) -> Result<Option<Value>, String> {
        let jobspec: Value = serde_json::from_str(jobspec).map_err(|error| error.to_string())?;
        let system = jobspec.pointer("/attributes/system");
        let Some(queue) = system.and_then(|system| system.get("queue")?.as_str()) else {
            return Ok(None);
        };
        let Some(required) = self.required(queue)? else { return Ok(None) };
        let Some(given) = system.and_then(|system| system.get("constraints")) else {
            return Ok(Some(json!({ "properties": required })));
        };
        let Some(properties) = given.get("properties").and_then(Value::as_array) else {
            return Ok(Some(json!({ "and": [given, { "properties": required }] })));
        };
        let missing: Vec<Value> =
            required.into_iter().filter(|property| !properties.contains(property)).collect();
        if missing.is_empty() {
            return Ok(None);
        }
        let mut joined = given.clone();
        if let Some(list) = joined.get_mut("properties").and_then(Value::as_array_mut) {
            list.extend(missing);
        }
        Ok(Some(joined))
    }

    fn required(&self, queue: &str) -> Result<Option<Vec<Value>>, String> {
        let entry = self.queues.get(queue);
        let mut entry = entry.ok_or_else(|| format!("Invalid queue '{queue}' specified"))?;
        if let Some(parent) = entry.get("parent").and_then(Value::as_str) {
            entry = self.queues.get(parent).ok_or_else(|| {
                format!("queue '{queue}': parent queue '{parent}' is not configured")
            })?;
        }
        Ok(entry.get("requires").and_then(Value::as_array).cloned())
    }
}

flux_plugin::frobnicator! {
    Constraints,
    name: "constraints",
    description: "Apply constraints to incoming jobspec based on broker config.",
    capabilities: ["config:queues"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    fn edit(system: &str) -> String {
        let config = r#"{"queues":{"batch":{"requires":["batch"]},"all":{},
            "night":{"parent":"batch"}}}"#;
        let mut plugin = Constraints::init(&testing::context("{}", config)).unwrap();
        let jobspec = format!(r#"{{"attributes":{{"system":{system}}}}}"#);
        let submission = Submission { job: None, userid: 0, urgency: 16, flags: 0, jobspec };
        match plugin.frobnicate(&submission) {
            Edit::Unchanged => "unchanged".to_owned(),
            Edit::Update(pairs) => pairs.into_iter().map(|(_, value)| value).collect(),
            Edit::Refuse(refusal) => refusal.text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_queues_properties_are_added_once() {
        let only = r#"{"properties":["batch"]}"#;
        assert_eq!(edit(r#"{"queue":"batch"}"#), only);
        assert_eq!(edit(r#"{"queue":"night"}"#), only);
        assert_eq!(
            edit(r#"{"queue":"batch","constraints":{"properties":["gpu"]}}"#),
            r#"{"properties":["gpu","batch"]}"#
        );
        assert_eq!(
            edit(r#"{"queue":"batch","constraints":{"hostlist":["n1"]}}"#),
            r#"{"and":[{"hostlist":["n1"]},{"properties":["batch"]}]}"#
        );
        let has = r#"{"queue":"batch","constraints":{"properties":["batch"]}}"#;
        assert_eq!(edit(has), "unchanged");
    }

    #[test]
    fn jobs_without_a_queue_or_requirement_are_left_alone() {
        assert_eq!(edit("{}"), "unchanged");
        assert_eq!(edit(r#"{"queue":"all"}"#), "unchanged");
        assert_eq!(edit(r#"{"queue":"x"}"#), "Invalid queue 'x' specified");
    }
}
