//! Recorded jobs: what `flux job info ID eventlog jobspec R` tells of each.
//!
//! A recording is JSON: objects one after the other (a line each, say), or in an array. A job has
//! `id`, `jobspec`, `eventlog` (an array, or text with an event a line) and, where it ran, `R`;
//! these may also stand under `kvs`.

use flux_protocol::fluid::JobId;
use serde::Deserialize;
use serde_json::{Deserializer, Value};

/// A job of a recording.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) id: u64,
    pub(super) jobspec: Value,
    pub(super) resources: Option<String>,
    pub(super) entries: Vec<RecordedEvent>,
}

/// An event of its eventlog.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RecordedEvent {
    pub(super) timestamp: f64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) context: Value,
}

/// Reads a file with recorded jobs.
pub(super) fn read(path: &str) -> Result<Vec<Recorded>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    parse(&text).map_err(|error| format!("{path}: {error}"))
}

fn parse(text: &str) -> Result<Vec<Recorded>, String> {
    let mut jobs = Vec::new();
    for value in Deserializer::from_str(text).into_iter::<Value>() {
        match value.map_err(|error| error.to_string())? {
            Value::Array(list) => {
                for value in &list {
                    jobs.push(job(value)?);
                }
            }
            value => jobs.push(job(&value)?),
        }
    }
    Ok(jobs)
}

fn job(value: &Value) -> Result<Recorded, String> {
    let get = |key: &str| value.get(key).or_else(|| value.get("kvs")?.get(key));
    let id = get("id").ok_or(
        "this is no recorded job: it has no id (`flux plugin record JOBID...' records some)",
    )?;
    // Captured jobs tell it in all its forms.
    let id = id.get("f58").unwrap_or(id);
    let id = match (id.as_u64(), id.as_str()) {
        (Some(id), _) => id,
        (_, Some(text)) => text.parse::<JobId>().map_err(|_| format!("'{text}' is no job id"))?.0,
        _ => return Err(format!("{id} is no job id")),
    };
    let entries = match get("eventlog") {
        Some(Value::String(text)) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(serde_json::from_str).collect::<Result<_, _>>()
        }
        Some(list) => serde_json::from_value(list.clone()),
        None => return Err(format!("job {id} has no eventlog")),
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let jobspec = match get("jobspec") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        jobspec => jobspec.cloned().unwrap_or_default(),
    };
    Ok(Recorded {
        id,
        jobspec,
        resources: get("R").map(text),
        entries: entries.map_err(|error| format!("job {id}: eventlog: {error}"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_read_in_any_of_the_forms() {
        let lines = r#"{"id":1,"jobspec":{},"eventlog":"{\"timestamp\":1.0,\"name\":\"submit\"}\n"}
            {"id":"2","kvs":{"jobspec":{},"R":{"version":1},"eventlog":[]}}"#;
        let jobs = parse(lines).unwrap();
        assert_eq!((jobs[0].id, jobs[0].entries[0].name.as_str()), (1, "submit"));
        assert_eq!((jobs[1].id, jobs[1].resources.as_deref()), (2, Some(r#"{"version":1}"#)));
        assert_eq!(parse(r#"[{"id":3,"eventlog":[]}]"#).unwrap()[0].id, 3);
        assert!(parse(r#"{"id":3}"#).unwrap_err().contains("no eventlog"));
    }
}
