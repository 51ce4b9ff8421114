//! What the capabilities of a plugin let it have and see when it starts.

use super::capability::{arguments, meet};
use super::conf_files;
use super::manifest::Manifest;
use super::spec::PluginSpec;
use serde_json::{Map, Value};

/// What a plugin asks for and is granted. A bundled plugin is part of the broker and is granted
/// what it asks for.
pub(super) fn grant(
    manifest: &Manifest,
    spec: &PluginSpec,
    bundled: bool,
) -> Result<Vec<String>, String> {
    let grants = if bundled { &manifest.capabilities } else { &spec.caps };
    meet(&manifest.capabilities, grants)
}

/// The tables of the broker's configuration that it was granted.
pub(super) fn visible_config(config: &Map<String, Value>, granted: &[String]) -> String {
    let tables = arguments(granted, "config:");
    let visible: Map<String, Value> =
        tables.filter_map(|table| Some((table.to_owned(), config.get(table)?.clone()))).collect();
    Value::Object(visible).to_string()
}

/// The plugin's own configuration, with the files that it was granted.
pub(super) fn visible_conf(
    conf: &Map<String, Value>,
    granted: &[String],
) -> Result<String, String> {
    let mut conf = conf.clone();
    let files = conf_files::read(&conf, granted)?;
    if !files.is_empty() {
        conf.insert("files".to_owned(), Value::Object(files));
    }
    Ok(Value::Object(conf).to_string())
}
