//! `--conf`: the configuration of a nested instance, from parts that each override the ones before.
//!
//! | value | |
//! |---|---|
//! | has a newline | JSON, else TOML |
//! | `KEY=VALUE` | a dotted key; the value is JSON where it can be, else text |
//! | ends in `.toml`, `.json` | a file |
//! | else | the name of a file in `flux/config` of the XDG search path |

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::refuse;
use crate::failure::{Failure, strerror};

/// The parts as one.
pub(crate) fn merge(parts: &[String]) -> Result<Option<Value>, Failure> {
    if parts.is_empty() {
        return Ok(None);
    }
    let mut conf = Value::Object(Map::new());
    for part in parts {
        add(&mut conf, part)?;
    }
    Ok(Some(conf))
}

/// Set a dotted key.
pub(crate) fn set(conf: &mut Value, key: &str, value: Value) -> Result<(), Failure> {
    let mut here = conf;
    for name in key.split('.') {
        let Value::Object(object) = here else {
            return Err(refuse(format_args!("failed to set {key} to {value}: not a table")));
        };
        here = object.entry(name).or_insert_with(|| json!({}));
    }
    *here = value;
    Ok(())
}

fn add(conf: &mut Value, part: &str) -> Result<(), Failure> {
    if part.contains('\n') {
        let new = serde_json::from_str(part)
            .ok()
            .or_else(|| toml::from_str::<Value>(part).ok())
            .ok_or_else(|| refuse("--conf: failed to parse multiline as TOML or JSON"))?;
        update(conf, new);
        return Ok(());
    }
    if let Some((key, value)) = part.split_once('=') {
        return set(conf, key, serde_json::from_str(value).unwrap_or_else(|_| json!(value)));
    }
    let path = Path::new(part);
    if matches!(path.extension().and_then(|e| e.to_str()), Some("toml" | "json")) {
        update(conf, load(path).map_err(|error| refuse(format_args!("--conf: {error}")))?);
        return Ok(());
    }
    let found = search_path()
        .into_iter()
        .flat_map(|dir| [dir.join(format!("{part}.toml")), dir.join(format!("{part}.json"))]);
    let Some(path) = found.into_iter().find(|path| path.exists()) else {
        return Err(refuse(format_args!("--conf: named config '{part}' not found")));
    };
    let shown = path.display().to_string();
    update(
        conf,
        load(&path).map_err(|error| refuse(format_args!("--conf={part}: {shown}: {error}")))?,
    );
    Ok(())
}

fn load(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let number = error.raw_os_error().unwrap_or_default();
        format!("[Errno {number}] {}: '{}'", strerror(&error), path.display())
    })?;
    let parsed = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        toml::from_str(&text).map_err(|error| error.to_string().trim_end().to_owned())
    };
    parsed.map_err(|error| format!("parse error: {}: {error}", path.display()))
}

/// Tables are merged, anything else is replaced.
fn update(conf: &mut Value, new: Value) {
    match (conf, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                match old.get_mut(&key) {
                    Some(known) => update(known, value),
                    None => {
                        old.insert(key, value);
                    }
                }
            }
        }
        (old, new) => *old = new,
    }
}

fn search_path() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let home = variable("XDG_CONFIG_HOME")
        .unwrap_or_else(|| format!("{}/.config", variable("HOME").unwrap_or_default()));
    let system = variable("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
    std::iter::once(home.as_str())
        .chain(system.split(':'))
        .map(|dir| Path::new(dir).join("flux/config"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(parts: &[&str]) -> Result<Value, Failure> {
        let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        merge(&parts).map(Option::unwrap_or_default)
    }

    #[test]
    fn later_parts_override_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.toml");
        std::fs::write(&file, "[resource]\nexclude = \"0\"\n").unwrap();
        let parts = [
            "resource.noverify=true",
            "{\"a\":\n1}",
            "[b]\nc = 2\n",
            file.to_str().unwrap(),
            "a=text",
        ];
        let expected = json!({
            "resource": {"noverify": true, "exclude": "0"}, "a": "text", "b": {"c": 2},
        });
        assert_eq!(merged(&parts).unwrap(), expected);
        assert_eq!(merge(&[]).unwrap(), None);
    }

    #[test]
    fn what_can_not_be_read_is_refused() {
        for bad in ["no such\nsyntax", "/nonexistent.toml", "no-such-named-config", "a=1.b=2"] {
            let outcome = merged(&[bad, "a.x=1"]);
            assert!(outcome.is_err(), "{bad}");
        }
    }
}
