//! Entries of a configuration that pin their module's digest, before anybody loads them: a reload
//! finds out that the next start would fail.

use super::load_error::LoadError;
use super::{PluginSpec, source};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Where plugins are listed, or the one plugin stands.
const PLACES: [&str; 4] = [
    "job-manager.plugins",
    "ingest.validator.plugins",
    "ingest.frobnicator.plugins",
    "sched.plugin",
];

/// Reads the modules of all entries that pin one. What else is wrong with an entry is told by who
/// loads it.
///
/// # Errors
///
/// The entry, and both digests or why there is no file to take.
pub fn check_pinned(config: &Map<String, Value>, path: &[PathBuf]) -> Result<(), String> {
    for place in PLACES {
        let mut keys = place.split('.');
        let first = keys.next().and_then(|key| config.get(key));
        let Some(value) = keys.try_fold(first, |value, key| Some(value?.get(key))).flatten() else {
            continue;
        };
        match value {
            Value::Array(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    check(entry, path).map_err(|e| format!("[{place}][{index}]: load: {e}"))?;
                }
            }
            entry => check(entry, path).map_err(|error| format!("[{place}]: load: {error}"))?,
        }
    }
    Ok(())
}

fn check(entry: &Value, path: &[PathBuf]) -> Result<(), LoadError> {
    if entry.get("sha256").is_none() {
        return Ok(());
    }
    let Ok(PluginSpec { load, sha256, .. }) = PluginSpec::from_value(entry) else { return Ok(()) };
    source::read(&load, path, sha256.as_deref())
        .map(drop)
        .map_err(|error| LoadError::Source { name: load, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_module_that_has_changed_since_it_was_pinned_is_found_in_every_place() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("mine.wasm");
        std::fs::write(&module, "abc").unwrap();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let entry = json!({ "load": module, "sha256": digest });
        let place = [dir.path().to_owned()];
        let named = json!({ "load": "mine", "sha256": digest });
        let configs = [
            json!({ "job-manager": { "plugins": [{ "remove": "x" }, entry] } }),
            json!({ "ingest": { "validator": { "plugins": ["jobspec", entry] } } }),
            json!({ "ingest": { "frobnicator": { "plugins": [entry] } } }),
            json!({ "sched": { "plugin": named } }),
        ];
        let check = |config: &Value| check_pinned(config.as_object().unwrap(), &place);
        for config in &configs {
            assert_eq!(check(config), Ok(()));
        }
        std::fs::write(&module, "abd").unwrap();
        for config in &configs {
            let text = check(config).unwrap_err();
            assert!(text.contains(&format!("configured {digest}, file has a52d159f")), "{text}");
        }
        assert_eq!(check(&json!({ "job-manager": { "plugins": [{ "load": module }] } })), Ok(()));
    }
}
