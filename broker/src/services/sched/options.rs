//! Which plugin decides, and with which configuration.
//!
//! Arguments of the module are as flux-core's schedulers take them: `queue-depth=N|unlimited`,
//! `mode=limited=N|unlimited`. They become the plugin's configuration. So does the table
//! `[sched-simple]`, whose keys are the names of the arguments.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::plugin::PluginSpec;

/// The scheduler of an instance that configures none.
pub(super) const DEFAULT: &str = "sched-fifo.wasm";

/// The plugin that `[sched]` names; the module's arguments go before its configuration there, and
/// that before the table `[sched-simple]`.
pub(super) fn spec(config: &Config, args: &[String]) -> Result<PluginSpec, Failure> {
    let invalid = |text: String| Failure::new(Errno::EINVAL, format!("[sched] plugin: {text}"));
    let mut spec = match config.get("sched.plugin") {
        None => PluginSpec::named(DEFAULT),
        Some(entry) => PluginSpec::from_value(entry).map_err(|error| invalid(error.to_string()))?,
    };
    if let Some(table) = config.get("sched-simple") {
        let options = of_table(table)
            .and_then(|args| parse(&args))
            .map_err(|text| Failure::new(Errno::EINVAL, format!("[sched-simple] {text}")))?;
        let is_set = ["queue-depth", "mode"].iter().any(|key| spec.conf.contains_key(*key));
        if !is_set {
            spec.conf.extend(options);
        }
    }
    let options = parse(args).map_err(|text| Failure::new(Errno::EINVAL, text))?;
    if options.contains_key("queue-depth") {
        spec.conf.shift_remove("mode");
    }
    spec.conf.extend(options);
    Ok(spec)
}

/// The configuration that the arguments amount to.
///
/// # Errors
///
/// Text for the user: an argument that is not known, or not a number.
fn parse(args: &[String]) -> Result<Map<String, Value>, String> {
    let mut conf = Map::new();
    for arg in args {
        let depth = if let Some(depth) = arg.strip_prefix("queue-depth=") {
            depth_of(depth).ok_or_else(|| {
                format!(
                    "queue-depth='{depth}' is invalid: expected a positive integer or 'unlimited'"
                )
            })?
        } else if arg == "mode=unlimited" {
            json!("unlimited")
        } else if let Some(limit) = arg.strip_prefix("mode=limited=") {
            depth_of(limit).filter(Value::is_number).ok_or_else(|| {
                format!("mode=limited= requires a positive integer, got '{limit}'")
            })?
        } else if let Some(mode) = arg.strip_prefix("mode=") {
            return Err(format!("mode='{mode}' is invalid: expected 'unlimited' or 'limited=N'"));
        } else if arg.starts_with("log-level=") {
            // The broker's own log level decides.
            continue;
        } else {
            return Err(format!(
                "unknown argument '{arg}': built-in options are queue-depth, mode, log-level"
            ));
        };
        conf.insert("queue-depth".to_owned(), depth);
    }
    Ok(conf)
}

/// The arguments that the table amounts to; `table` is it, or what stands in its place.
///
/// # Errors
///
/// Text for the user: no table, or a value that is neither text nor a number.
fn of_table(table: &Value) -> Result<Vec<String>, String> {
    let table = table.as_object().ok_or("must be a table")?;
    table
        .iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok(format!("{key}={text}")),
            Value::Number(number) => Ok(format!("{key}={number}")),
            _ => Err(format!("{key}: must be text or a number")),
        })
        .collect()
}

fn depth_of(text: &str) -> Option<Value> {
    if text == "unlimited" {
        return Some(json!(text));
    }
    text.parse::<u32>().ok().filter(|&depth| depth > 0).map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Value, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        parse(&args).map(Value::Object)
    }

    #[test]
    fn both_spellings_of_the_queue_depth_are_taken() {
        assert_eq!(parsed(&["mode=limited=8"]), Ok(json!({ "queue-depth": 8 })));
        assert_eq!(parsed(&["queue-depth=3"]), Ok(json!({ "queue-depth": 3 })));
        assert_eq!(parsed(&["mode=unlimited"]), Ok(json!({ "queue-depth": "unlimited" })));
        assert_eq!(parsed(&["log-level=debug"]), Ok(json!({})));
    }

    #[test]
    fn the_table_has_the_same_names() {
        let parsed = |table: Value| of_table(&table).and_then(|args| parse(&args));
        let depth = |depth: Value| json!({ "queue-depth": depth }).as_object().cloned();
        assert_eq!(parsed(json!({ "mode": "limited=1" })).ok(), depth(json!(1)));
        assert_eq!(parsed(json!({ "queue-depth": 3 })).ok(), depth(json!(3)));
        assert_eq!(parsed(json!({ "mode": "unlimited" })).ok(), depth(json!("unlimited")));
        for (table, named) in [
            (json!({ "mode": "bogus" }), "mode='bogus'"),
            (json!({ "mode": true }), "mode: must be text"),
            (json!({ "mode": "limited=0" }), "got '0'"),
            (json!({ "mod": "unlimited" }), "'mod=unlimited'"),
            (json!("limited"), "must be a table"),
        ] {
            let text = parsed(table).unwrap_err();
            assert!(text.contains(named), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for args in ["queue-depth=0", "queue-depth=x", "mode=limited=unlimited", "nonsense"] {
            let text = parsed(&[args]).unwrap_err();
            assert!(text.contains(args.rsplit('=').next().unwrap()), "{text}");
        }
    }
}
