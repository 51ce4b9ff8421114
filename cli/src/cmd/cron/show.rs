//! Entries as people read them.

use flux_protocol::real::format_g;
use flux_protocol::rpc::cron::Entry;
use serde_json::Value;
use serde_json::value::RawValue;

use super::time::{ago, now, took};
use crate::json_text::{Node, node};
use crate::outln;

/// A shell could not find the command.
const NOT_FOUND: i64 = 127;

pub(super) fn list(entries: &[Entry]) {
    outln!(
        "{:>6} {:<15} {:<8} {:>9} {:>18}  {:<18}",
        "ID",
        "CMD/NAME",
        "STATE",
        "#RUNS",
        "LASTRUN",
        "STATUS"
    );
    for entry in entries {
        let state = if entry.stopped { "Stopped" } else { "Active" };
        let runs = match entry.repeat {
            0 => entry.stats.count.to_string(),
            repeat => format!("{}/{repeat}", entry.stats.count),
        };
        let (last_run, status) = latest(entry);
        outln!(
            "{:>6} {:<15} {state:<8} {runs:>9} {last_run:>18}  {status:<18}",
            entry.id,
            entry.name
        );
    }
}

/// When it ran last, and what came of it.
fn latest(entry: &Entry) -> (String, String) {
    let Some(task) = entry.tasks.first() else {
        return ("None".to_owned(), "None".to_owned());
    };
    let state = task.get("state").and_then(Value::as_str).unwrap_or_default();
    let code = task.get("code").and_then(Value::as_i64).unwrap_or(0);
    let status = match (state, code) {
        ("Failed", NOT_FOUND) => "Exec-Error".to_owned(),
        ("Failed", code) => format!("Failed:rc={code}"),
        ("Exited", _) => "Success".to_owned(),
        (state, _) => state.to_owned(),
    };
    // A run that has not begun yet tells nothing; the one before does.
    let started = entry.tasks.iter().take(2).find_map(|task| task.get("start-time")?.as_f64());
    (started.map_or_else(|| "None".to_owned(), ago), status)
}

/// What to say of the latest run of an entry that is no more. One that was put off until the next
/// heartbeat and never began is none.
pub(super) fn last_run(entry: &Entry) -> String {
    let Some(task) = entry.tasks.iter().find(|task| task.contains_key("start-time")) else {
        return String::new();
    };
    let time = |name: &str| task.get(name).and_then(Value::as_f64);
    let start = time("start-time").unwrap_or_else(now);
    match time("end-time") {
        Some(end) => format!(" last ran {} for {}", ago(end), took(end - start)),
        None => format!(" still running. Started {}", ago(start)),
    }
}

/// `key = value` pairs; those of inner objects have the outer key in front.
pub(super) fn flatten(entry: &RawValue) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let Node::Object(members) = node(entry) else { return pairs };
    for (key, value) in members {
        match node(value) {
            Node::Scalar(text) => pairs.push((key, scalar(text))),
            Node::Object(inner) => pairs.extend(
                inner
                    .into_iter()
                    .map(|(name, value)| (format!("{key}.{name}"), scalar(value.get()))),
            ),
            Node::Array(elements) => {
                let name = key.trim_end_matches('s');
                for (n, element) in elements.into_iter().enumerate() {
                    let Node::Object(inner) = node(element) else { continue };
                    pairs.extend(inner.into_iter().map(|(field, value)| {
                        (format!("{name}.{}.{field}", n + 1), scalar(value.get()))
                    }));
                }
            }
        }
    }
    pairs
}

/// Numbers with so many digits as are of use.
fn scalar(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(number) if text.contains(['.', 'e', 'E']) => format_g(number, 14),
        Ok(_) | Err(_) => text.to_owned(),
    }
}
