//! Arguments of the module, as flux-core's schedulers take them: `queue-depth=N|unlimited`,
//! `mode=limited=N|unlimited`. They become the plugin's configuration.

use serde_json::{Map, Value, json};

/// The configuration that the arguments amount to.
///
/// # Errors
///
/// Text for the user: an argument that is not known, or not a number.
pub(super) fn parse(args: &[String]) -> Result<Map<String, Value>, String> {
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
    fn what_makes_no_sense_is_named() {
        for args in ["queue-depth=0", "queue-depth=x", "mode=limited=unlimited", "nonsense"] {
            let text = parsed(&[args]).unwrap_err();
            assert!(text.contains(args.rsplit('=').next().unwrap()), "{text}");
        }
    }
}
