//! Gives jobs what they do not say: the attributes of `[policy.jobspec.defaults.system]`, and
//! over them those of the job's queue and of that queue's parent (RFC 33).

use flux_plugin::prelude::*;
use serde_json::{Map, Value};

#[derive(Default)]
struct Defaults {
    general: Map<String, Value>,
    queues: Map<String, Value>,
}

impl Plugin for Defaults {
    fn init(context: &Context) -> Result<Self, String> {
        Self::from_config(&context.broker_config)
    }

    fn configure(&mut self, _: &str, broker_config: &str) -> Result<(), String> {
        *self = Self::from_config(broker_config)?;
        Ok(())
    }
}

impl Frobnicator for Defaults {
    fn frobnicate(&mut self, submission: &Submission) -> Edit {
        match self.updates(&submission.jobspec) {
            Ok(updates) if updates.is_empty() => Edit::Unchanged,
            Ok(updates) => Edit::Update(updates),
            Err(text) => refuse_edit(errno::EINVAL, text),
        }
    }
}

impl Defaults {
    fn from_config(config: &str) -> Result<Self, String> {
        let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
        let queues = match config.get("queues") {
            None => Map::new(),
            Some(Value::Object(queues)) => queues.clone(),
            Some(_) => return Err("queues must be a table".to_owned()),
        };
        let defaults = Defaults { general: system_defaults(&config), queues };
        if let Some(queue) = defaults.general.get("queue").and_then(Value::as_str)
            && !defaults.queues.contains_key(queue)
        {
            return Err(format!("default queue '{queue}' must be in [queues]"));
        }
        for queue in defaults.queues.keys() {
            defaults.layered(Some(queue))?;
        }
        Ok(defaults)
    }

    /// What a job in this queue gets.
    fn layered(&self, queue: Option<&str>) -> Result<Map<String, Value>, String> {
        let mut layers = self.general.clone();
        let Some(name) = queue.filter(|_| !self.queues.is_empty()) else { return Ok(layers) };
        let entry = self.queues.get(name);
        let entry = entry.ok_or_else(|| format!("Invalid queue '{name}' specified"))?;
        if let Some(parent) = entry.get("parent").and_then(Value::as_str) {
            let above = self.queues.get(parent).ok_or_else(|| {
                format!("queue '{name}': parent queue '{parent}' is not configured")
            })?;
            layers.extend(system_defaults(above));
        }
        layers.extend(system_defaults(entry));
        Ok(layers)
    }

    fn updates(&self, jobspec: &str) -> Result<Vec<(String, String)>, String> {
        let jobspec: Value = serde_json::from_str(jobspec).map_err(|error| error.to_string())?;
        let system = jobspec.pointer("/attributes/system");
        let asked = system.and_then(|system| system.get("queue")?.as_str());
        let queue = asked.or_else(|| self.general.get("queue")?.as_str());
        if queue.is_none() && !self.queues.is_empty() {
            return Err("no queue specified".to_owned());
        }
        let mut updates = Vec::new();
        for (key, value) in self.layered(queue)? {
            let has = system.and_then(|system| system.get(&key));
            let absent = match has {
                Some(given) if key == "duration" => given.as_f64().unwrap_or_default() == 0.0,
                given => given.is_none(),
            };
            if absent {
                let value = if key == "duration" { seconds(&value)? } else { value };
                updates.push((format!("attributes.system.{key}"), value.to_string()));
            }
        }
        Ok(updates)
    }
}

fn system_defaults(table: &Value) -> Map<String, Value> {
    let defaults = table.pointer("/policy/jobspec/defaults/system").and_then(Value::as_object);
    defaults.cloned().unwrap_or_default()
}

/// A duration as jobspecs have it.
fn seconds(value: &Value) -> Result<Value, String> {
    let Value::String(text) = value else { return Ok(value.clone()) };
    let seconds = flux_protocol::fsd::parse(text);
    let seconds = seconds.map_err(|_| format!("default duration '{text}' is not a valid FSD"))?;
    Ok(Value::from(seconds))
}

flux_plugin::frobnicator! {
    Defaults,
    name: "defaults",
    description: "Apply defaults to incoming jobspec based on broker config.",
    capabilities: ["config:policy", "config:queues"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    const CONFIG: &str = r#"{
        "policy":{"jobspec":{"defaults":{"system":{"duration":"1m","queue":"batch"}}}},
        "queues":{
            "batch":{},
            "debug":{"policy":{"jobspec":{"defaults":{"system":{"duration":30,"bank":"b"}}}}},
            "night":{"parent":"debug"}
        }}"#;

    fn edit(config: &str, system: &str) -> Edit {
        let mut plugin = Defaults::init(&testing::context("{}", config)).unwrap();
        let jobspec = format!(r#"{{"attributes":{{"system":{system}}}}}"#);
        plugin.frobnicate(&Submission { job: None, userid: 0, urgency: 16, flags: 0, jobspec })
    }

    fn update(pairs: &[(&str, &str)]) -> Edit {
        let pair =
            |(key, value): &(&str, &str)| (format!("attributes.system.{key}"), (*value).to_owned());
        Edit::Update(pairs.iter().map(pair).collect())
    }

    #[test]
    fn what_a_job_says_is_kept_and_the_rest_is_given() {
        let given = update(&[("duration", "60.0"), ("queue", r#""batch""#)]);
        assert_eq!(edit(CONFIG, r#"{"duration":0}"#), given);
        assert_eq!(edit(CONFIG, r#"{"duration":120,"queue":"batch"}"#), Edit::Unchanged);
        assert_eq!(edit("{}", "{}"), Edit::Unchanged);
    }

    #[test]
    fn a_queue_overrides_and_passes_its_defaults_on() {
        let debug = update(&[("bank", r#""b""#), ("duration", "30")]);
        assert_eq!(edit(CONFIG, r#"{"queue":"debug"}"#), debug);
        assert_eq!(edit(CONFIG, r#"{"queue":"night"}"#), debug);
    }

    #[test]
    fn queues_that_do_not_exist_are_refused() {
        let text = |edit| match edit {
            Edit::Refuse(refusal) => refusal.text,
            other => format!("{other:?}"),
        };
        assert_eq!(text(edit(CONFIG, r#"{"queue":"x"}"#)), "Invalid queue 'x' specified");
        assert_eq!(text(edit(r#"{"queues":{"a":{}}}"#, "{}")), "no queue specified");
        let bad = r#"{"policy":{"jobspec":{"defaults":{"system":{"queue":"x"}}}}}"#;
        assert!(Defaults::from_config(bad).is_err_and(|e| e.contains("must be in [queues]")));
        let bad = r#"{"queues":{"a":{"parent":"b"}}}"#;
        assert!(Defaults::from_config(bad).is_err_and(|e| e.contains("not configured")));
    }
}
