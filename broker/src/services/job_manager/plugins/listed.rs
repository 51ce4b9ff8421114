//! `[job-manager] plugins`, read and tried out without touching the stack that there is: a check
//! without a broker, and a reload, learn here what would stop the next start.

use serde_json::Value;

use super::{BUILTIN, admin, listed_name};
use crate::config::Config;
use crate::plugin::{Kind, LoadError, Mistake, PluginHost, PluginSpec};

/// Names that end in `.so` are those of an old configuration, names that begin with a dot those of
/// builtin plugins.
pub(super) fn spec(entry: &Value) -> Result<PluginSpec, String> {
    let mut spec = PluginSpec::from_value(entry).map_err(|error| error.to_string())?;
    if let Some(stem) = spec.load.strip_suffix(".so") {
        let module = format!("{stem}.wasm");
        // What is no module itself is told so, unless there is one to take in its place.
        let is_native = spec.load.contains('/')
            && std::path::Path::new(&spec.load).exists()
            && !std::path::Path::new(&module).exists();
        if !is_native {
            spec.load = module;
        }
    }
    if let Some((_, file)) = BUILTIN.iter().find(|(name, _)| *name == spec.load) {
        spec.load = (*file).to_owned();
    }
    Ok(spec)
}

/// The text for an entry whose plugin was not loaded, by the name that the entry has for it.
pub(super) fn load_error(entry: &Value, error: &LoadError) -> String {
    match entry.get("load").and_then(Value::as_str) {
        Some(name) if error.is_missing() => format!("load: {name}: No such plugin found"),
        _ => format!("load: {error}"),
    }
}

/// Whether removing `pattern` (a name, a glob, or `all`) takes this plugin; `all` leaves builtin
/// ones.
pub(super) fn removes(pattern: &str, name: &str) -> bool {
    let is_builtin = name.starts_with('.');
    match pattern {
        "all" => !is_builtin,
        pattern if pattern.contains(['*', '?', '[']) => {
            // As with hidden files: builtin ones only by a pattern with a dot of its own.
            (!is_builtin || pattern.starts_with('.')) && admin::glob(pattern, name)
        }
        pattern => {
            let stem = pattern.strip_suffix(".so");
            let as_wasm = stem.map(|stem| format!("{stem}.wasm"));
            name == pattern || Some(name) == as_wasm.as_deref()
        }
    }
}

/// What a start with this configuration would say of its entries. What the table's own check refuses
/// is left to that.
pub(crate) async fn mistakes(host: &PluginHost, config: &Config) -> Vec<Mistake> {
    let entries = config.get("job-manager.plugins").and_then(Value::as_array);
    let mut stack: Vec<String> = BUILTIN.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut mistakes = Vec::new();
    for (at, entry) in entries.into_iter().flatten().enumerate() {
        if let Err((text, is_missing)) = try_entry(host, entry, &mut stack).await {
            let verb = if entry.get("remove").is_some() { "remove" } else { "load" };
            let key = format!("job-manager.plugins.{at}.{verb}");
            let text = format!("[job-manager.plugins][{at}]: {text}");
            mistakes.push(Mistake { key, text, is_missing });
        }
    }
    mistakes
}

async fn try_entry(
    host: &PluginHost,
    entry: &Value,
    stack: &mut Vec<String>,
) -> Result<(), (String, bool)> {
    if let Some(pattern) = entry.get("remove").and_then(Value::as_str) {
        if entry.get("load").is_some() {
            return Ok(());
        }
        let before = stack.len();
        stack.retain(|name| !removes(pattern, name));
        return match stack.len() < before || pattern == "all" {
            true => Ok(()),
            false => Err((format!("remove: {pattern}: failed to find plugin to remove"), false)),
        };
    }
    let Ok(spec) = spec(entry) else { return Ok(()) };
    let facts = host.try_out(&spec, Kind::Jobtap).await;
    let facts = facts.map_err(|error| (load_error(entry, &error), error.is_missing()))?;
    let wanted = entry.get("load").and_then(Value::as_str).unwrap_or_default();
    let name = listed_name(wanted, &facts.file_name);
    if stack.contains(&name) {
        return Err((format!("load: {name} already loaded"), false));
    }
    stack.push(name);
    Ok(())
}
