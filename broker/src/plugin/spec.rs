//! An entry of a plugin list in the configuration, or the arguments of `flux jobtap load`.

use super::breaker::Patience;
use super::capability::grants_something;
use super::fault::OnFault;
use super::instance::Limits;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

/// How to load one plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSpec {
    /// Name in the plugin path, or a path.
    pub load: String,
    /// SHA-256 that the file must have, in hex.
    pub sha256: Option<String>,
    /// The plugin's own configuration.
    pub conf: Map<String, Value>,
    /// Capabilities granted.
    pub caps: Vec<String>,
    /// Memory, deadline and the like.
    pub limits: Limits,
    /// What becomes of a job when the plugin faults; none where the entry does not say.
    pub on_fault: Option<OnFault>,
    /// When it is given up.
    pub patience: Patience,
    /// Where a scheduler's calls are recorded.
    pub record: Option<PathBuf>,
}

// === impl SpecError ===

impl SpecError {
    /// The key whose value is at fault; `load` where it is the entry as such.
    pub fn key(&self) -> &'static str {
        match self {
            SpecError::Entry(_) | SpecError::Load => "load",
            SpecError::Memory(_) => "memory",
            SpecError::Deadline(_) => "deadline",
            SpecError::OnFault(_) => "on-fault",
            SpecError::Digest(_) => "sha256",
            SpecError::Capability(_) => "caps",
            SpecError::Record(_) => "record",
        }
    }
}

/// An entry that cannot be used. The caller adds where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not a table, an unknown key, a wrong type.
    #[error("{0}")]
    Entry(String),
    /// The name is empty.
    #[error("load: is empty; name a plugin (such as \"perilog.wasm\") or a path")]
    Load,
    /// Not a size.
    #[error("memory: '{0}' is not a size such as \"64M\"")]
    Memory(String),
    /// Not a duration.
    #[error("deadline: '{0}' is not a duration such as \"50ms\"")]
    Deadline(String),
    /// Not a policy.
    #[error("on-fault: '{0}' is not reject, hold or skip")]
    OnFault(String),
    /// Not a digest.
    #[error("sha256: '{0}' is not 64 hexadecimal digits")]
    Digest(String),
    /// Nothing that could be granted.
    #[error("caps: '{0}' is no capability (such as \"drain\", \"rpc:TOPIC\" or \"kvs.read:KEY\")")]
    Capability(String),
    /// Not a place for a recording.
    #[error("record: '{0}' is not an absolute path")]
    Record(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    load: String,
    sha256: Option<String>,
    #[serde(default)]
    conf: Map<String, Value>,
    #[serde(default)]
    caps: Vec<String>,
    memory: Option<String>,
    deadline: Option<String>,
    on_fault: Option<String>,
    max_faults: Option<u32>,
    record: Option<PathBuf>,
}

impl PluginSpec {
    /// A plugin by name, with nothing special about it.
    pub fn named(load: impl Into<String>) -> Self {
        PluginSpec {
            load: load.into(),
            sha256: None,
            conf: Map::new(),
            caps: Vec::new(),
            limits: Limits::default(),
            on_fault: None,
            patience: Patience::default(),
            record: None,
        }
    }

    /// From a table of the configuration; a string is short for `{ load = "..." }`.
    ///
    /// # Errors
    ///
    /// [`SpecError`], naming the key.
    pub fn from_value(value: &Value) -> Result<Self, SpecError> {
        if let Value::String(load) = value {
            return if load.trim().is_empty() {
                Err(SpecError::Load)
            } else {
                Ok(PluginSpec::named(load))
            };
        }
        if !value.is_object() {
            let text = "expected a name or a table such as { load = \"perilog.wasm\" }";
            return Err(SpecError::Entry(text.to_owned()));
        }
        let entry =
            Entry::deserialize(value).map_err(|error| SpecError::Entry(error.to_string()))?;
        if entry.load.trim().is_empty() {
            return Err(SpecError::Load);
        }
        let mut spec = PluginSpec::named(entry.load);
        if let Some(text) = entry.memory {
            spec.limits.memory = parse_size(&text).ok_or(SpecError::Memory(text))?;
        }
        if let Some(text) = entry.deadline {
            spec.limits.deadline = parse_duration(&text).ok_or(SpecError::Deadline(text))?;
        }
        if let Some(text) = entry.on_fault {
            spec.on_fault = Some(OnFault::from_name(&text).ok_or(SpecError::OnFault(text))?);
        }
        if let Some(text) = entry.sha256 {
            let hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            spec.sha256 = Some(hex.then(|| text.to_lowercase()).ok_or(SpecError::Digest(text))?);
        }
        if let Some(faults) = entry.max_faults {
            spec.patience.faults = faults.max(1);
        }
        if let Some(path) = entry.record {
            let text = path.display().to_string();
            spec.record = Some(path.is_absolute().then_some(path).ok_or(SpecError::Record(text))?);
        }
        if let Some(unknown) = entry.caps.iter().find(|grant| !grants_something(grant)) {
            return Err(SpecError::Capability(unknown.clone()));
        }
        spec.conf = entry.conf;
        spec.caps = entry.caps;
        Ok(spec)
    }
}

/// "65536", "64K", "64M", "1G", with or without "iB" or "B".
fn parse_size(text: &str) -> Option<usize> {
    let number = text.trim_end_matches(['i', 'B']);
    let (digits, shift) = match number.chars().last()? {
        'K' | 'k' => (number.get(..number.len() - 1)?, 10),
        'M' | 'm' => (number.get(..number.len() - 1)?, 20),
        'G' | 'g' => (number.get(..number.len() - 1)?, 30),
        _ => (number, 0),
    };
    let count: usize = digits.parse().ok()?;
    count.checked_mul(1 << shift).filter(|&size| size > 0 && size <= 4 << 30)
}

/// Flux standard duration (RFC 23), of at most an hour and more than nothing.
fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, unit) = match text {
        _ if text.ends_with("ms") => (text.get(..text.len() - 2)?, 1e-3),
        _ if text.ends_with('s') => (text.get(..text.len() - 1)?, 1.0),
        _ if text.ends_with('m') => (text.get(..text.len() - 1)?, 60.0),
        _ => (text, 1.0),
    };
    let seconds = digits.parse::<f64>().ok()? * unit;
    (seconds > 0.0 && seconds <= 3600.0).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_sets_limits_policy_and_grants() {
        let spec = PluginSpec::from_value(&json!({
            "load": "x.wasm", "memory": "8M", "deadline": "50ms", "on-fault": "hold",
            "caps": ["drain"], "conf": {"a": 1}, "max-faults": 2, "sha256": "A".repeat(64),
        }))
        .unwrap();
        assert_eq!(spec.limits.memory, 8 << 20);
        assert_eq!(spec.limits.deadline, Duration::from_millis(50));
        assert_eq!((spec.on_fault, spec.patience.faults), (Some(OnFault::Hold), 2));
        assert_eq!(spec.sha256, Some("a".repeat(64)));
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_named() {
        let cases = [
            (json!({"load": 42}), "expected a string"),
            (json!({"load": "x", "lode": 1}), "unknown field `lode`"),
            (json!({"load": "x", "memory": "lots"}), "memory: 'lots'"),
            (json!({"load": "x", "deadline": "0"}), "deadline: '0'"),
            (json!({"load": "x", "on-fault": "cry"}), "on-fault: 'cry'"),
            (json!({"load": "x", "sha256": "12"}), "sha256: '12'"),
            (json!({"load": "x", "caps": ["drian"]}), "caps: 'drian' is no capability"),
            (json!({"load": "x", "record": "here"}), "record: 'here' is not an absolute path"),
        ];
        for (value, expected) in cases {
            let error = PluginSpec::from_value(&value).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
