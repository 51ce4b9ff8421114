//! `[policy.limits]`: the longest duration, and the smallest and largest size that a job may ask
//! for; a queue's limits, and those of its parent (RFC 33), go before the general ones.

use flux_protocol::fsd;
use serde_json::Value;
use std::collections::HashMap;

/// Nodes, cores, GPUs; -1 for unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub [Option<i64>; 3]);

/// What one table says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Seconds; 0 for unlimited.
    pub duration: Option<f64>,
    pub min: Size,
    pub max: Size,
}

/// The general limits and those of the queues.
#[derive(Debug, Default)]
pub struct Config {
    general: Limits,
    queues: HashMap<String, Limits>,
}

impl Config {
    /// From the tables `policy` and `queues`.
    ///
    /// # Errors
    ///
    /// What cannot be meant, by its name.
    pub fn parse(config: &str) -> Result<Self, String> {
        let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
        let general = Limits::parse(&config)?;
        let mut queues = HashMap::new();
        let empty = serde_json::Map::new();
        let tables = config.get("queues").and_then(Value::as_object).unwrap_or(&empty);
        for (name, table) in tables {
            let own = Limits::parse(table).map_err(|error| format!("queues.{name}.{error}"))?;
            let limits = match table.get("parent") {
                None => own,
                Some(Value::String(parent)) => {
                    let above = tables.get(parent).ok_or_else(|| {
                        format!("queues.{name}: parent queue '{parent}' is not configured")
                    })?;
                    let above =
                        Limits::parse(above).map_err(|error| format!("queues.{parent}.{error}"))?;
                    above.overridden_by(&own)
                }
                Some(_) => return Err(format!("queues.{name}: 'parent' must be a string")),
            };
            queues.insert(name.clone(), limits);
        }
        Ok(Config { general, queues })
    }

    /// What holds for a job in this queue.
    pub fn of(&self, queue: Option<&str>) -> Limits {
        let queue = queue.and_then(|queue| self.queues.get(queue));
        queue.map_or(self.general, |queue| self.general.overridden_by(queue))
    }
}

impl Limits {
    fn parse(table: &Value) -> Result<Self, String> {
        let name = "policy.limits";
        let at = |key: &str| table.pointer(&format!("/policy/limits/{key}"));
        let duration = match at("duration") {
            None => None,
            Some(Value::String(text)) => {
                let seconds = fsd::parse(text);
                Some(seconds.map_err(|_| format!("{name}.duration: FSD value is malformed"))?)
            }
            Some(other) => return Err(format!("{name}.duration: Expected string, got {other}")),
        };
        let size = |key: &str| {
            let size = at(&format!("job-size/{key}")).map_or(Ok(Size::default()), Size::parse);
            size.map_err(|error| format!("{name}.job-size.{key}: {error}"))
        };
        Ok(Limits { duration, min: size("min")?, max: size("max")? })
    }

    fn overridden_by(&self, other: &Limits) -> Limits {
        Limits {
            duration: other.duration.or(self.duration),
            min: self.min.overridden_by(other.min),
            max: self.max.overridden_by(other.max),
        }
    }
}

impl Size {
    fn parse(table: &Value) -> Result<Self, String> {
        let number = |key: &str| match table.get(key) {
            None => Ok(None),
            Some(value) => {
                let number = value.as_i64().ok_or(format!("{key} must be an integer"))?;
                let fits = number >= -1;
                fits.then_some(Some(number))
                    .ok_or_else(|| "size must be -1 (unlimited), or >= 0".to_owned())
            }
        };
        Ok(Size([number("nnodes")?, number("ncores")?, number("ngpus")?]))
    }

    fn overridden_by(self, other: Size) -> Size {
        let [nodes, cores, gpus] = self.0;
        let [other_nodes, other_cores, other_gpus] = other.0;
        Size([other_nodes.or(nodes), other_cores.or(cores), other_gpus.or(gpus)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_limits_are_refused_by_name() {
        let error = |config: &str| Config::parse(config).err().unwrap_or_default();
        let cases = [
            (r#"{"policy":{"limits":{"duration":5}}}"#, "policy.limits.duration: "),
            (
                r#"{"policy":{"limits":{"duration":"x"}}}"#,
                "policy.limits.duration: FSD value is malformed",
            ),
            (
                r#"{"policy":{"limits":{"job-size":{"max":{"ncores":-5}}}}}"#,
                "policy.limits.job-size.max: size must be -1 (unlimited), or >= 0",
            ),
            (
                r#"{"queues":{"a":{"policy":{"limits":{"duration":"x"}}}}}"#,
                "queues.a.policy.limits.duration: FSD value is malformed",
            ),
            (r#"{"queues":{"a":{"parent":"b"}}}"#, "queues.a: parent queue 'b' is not configured"),
        ];
        for (config, expected) in cases {
            assert!(error(config).starts_with(expected), "{}", error(config));
        }
    }
}
