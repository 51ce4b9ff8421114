//! Arguments of the module, which go before `[ingest.validator]`.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use serde_json::{Map, Value, json};

use crate::config::Config;

/// Of flux-core's module, and of no use here: jobs are gathered as they come, and plugins have no
/// process whose input would be held back.
const WITHOUT_EFFECT: [&str; 2] = ["batch-count=", "buffer-size="];

/// The configuration, with what the arguments say in its place.
pub(super) fn apply(config: &Config, args: &[String]) -> Result<Config, Failure> {
    let mut validator = Map::new();
    for arg in args {
        let list = |list: &str| -> Value { list.split(',').collect() };
        if let Some(plugins) = arg.strip_prefix("validator-plugins=") {
            validator.insert("plugins".to_owned(), list(plugins));
        } else if let Some(args) = arg.strip_prefix("validator-args=") {
            validator.insert("args".to_owned(), list(args));
        } else if arg == "disable-validator" {
            validator.insert("disable".to_owned(), json!(true));
        } else if !WITHOUT_EFFECT.iter().any(|known| arg.starts_with(known)) {
            return Err(Failure::new(Errno::EINVAL, format!("Invalid option: {arg}")));
        }
    }
    let mut root = config.object().clone();
    if !validator.is_empty()
        && let Some(ingest) = table(&mut root, "ingest")
        && let Some(table) = table(ingest, "validator")
    {
        table.extend(validator);
    }
    Ok(Config::from_object(root))
}

fn table<'a>(parent: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let entry = parent.entry(name).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(args: &[&str]) -> Result<Value, String> {
        let mut config = Config::default();
        let table = r#"{"ingest": {"validator": {"plugins": ["schema"], "schema": {"a": 1}}}}"#;
        config.update(table).unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let config = apply(&config, &args).map_err(|failure| failure.text.unwrap_or_default())?;
        Ok(config.get("ingest.validator").cloned().unwrap_or_default())
    }

    #[test]
    fn arguments_take_the_place_of_what_is_configured() {
        let expected = json!({
            "plugins": ["jobspec", "feasibility"],
            "args": ["--require-version=any"],
            "schema": {"a": 1},
        });
        let args =
            ["validator-plugins=jobspec,feasibility", "validator-args=--require-version=any"];
        assert_eq!(applied(&args), Ok(expected));
        let disabled = json!({"plugins": ["schema"], "schema": {"a": 1}, "disable": true});
        assert_eq!(applied(&["disable-validator", "batch-count=5"]), Ok(disabled));
        assert_eq!(applied(&["nonsense"]), Err("Invalid option: nonsense".to_owned()));
    }
}
