//! Options of the shell: `attributes.system.shell.options` of the jobspec.
//!
//! Each part of the shell takes its own from here; what no part has asked for is unknown and
//! ignored.

use std::cell::RefCell;
use std::collections::BTreeSet;

use flux_protocol::fsd;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::fatal::Fatal;

/// Options of this and other launchers that this shell knows but does not act on: `mpi` selects one
/// of the C shell's initrc files.
const ACCEPTED: &[&str] = &["mpi", "sysmon", "per-resource"];

#[derive(Debug, Default)]
pub(crate) struct Options {
    values: Map<String, Value>,
    asked: RefCell<BTreeSet<&'static str>>,
}

// === impl Options ===

impl Options {
    pub(crate) fn new(values: Map<String, Value>) -> Options {
        Options { values, asked: RefCell::default() }
    }

    /// The value as it stands in the jobspec.
    pub(crate) fn get(&self, name: &'static str) -> Option<&Value> {
        self.asked.borrow_mut().insert(name);
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// The value as `T`, or why it can't be.
    pub(crate) fn parse<T: DeserializeOwned>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, Fatal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match T::deserialize(value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(e) => Err(Fatal::new(None, format!("invalid shell option {name}={value}: {e}"))),
        }
    }

    /// Like `parse` for options that are an object, where a bare `-o NAME` means all defaults.
    pub(crate) fn parse_object<T: DeserializeOwned + Default>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, Fatal> {
        match self.get(name) {
            Some(Value::Object(_)) => self.parse(name),
            Some(value) => Ok(is_on(value).then(T::default)),
            None => Ok(None),
        }
    }

    pub(crate) fn string(&self, name: &'static str) -> Result<Option<String>, Fatal> {
        self.parse(name)
    }

    /// Whether a switch is on: present, and neither false nor 0.
    pub(crate) fn is_set(&self, name: &'static str) -> bool {
        self.get(name).is_some_and(is_on)
    }

    /// A switch that may be given as a number: `-o verbose=2`.
    pub(crate) fn number(&self, name: &'static str) -> Result<Option<i64>, Fatal> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(i64::from(*on))),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(Fatal::new(None, format!("invalid shell option {name}={value}"))),
            },
        }
    }

    /// Names that nobody has asked for, hence no part of the shell knows.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let known =
            |name: &String| asked.contains(name.as_str()) || ACCEPTED.contains(&name.as_str());
        self.values.keys().filter(|name| !known(name)).cloned().collect()
    }
}

/// A switch's value: `-o NAME` is 1.
pub(crate) fn is_on(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        _ => true,
    }
}

/// A duration: a number of seconds, or text in Flux Standard Duration. Not negative.
pub(crate) fn seconds(value: &Value) -> Option<f64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => fsd::parse(text).ok()?,
        _ => return None,
    };
    (seconds >= 0.0).then_some(seconds)
}

/// A size in bytes: a number, or text with an optional suffix k, K, M, G, T, P or E (powers of
/// 1024).
pub(crate) fn size(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse_size(text),
        _ => None,
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(digits_end)?;
    let power: u32 = match suffix {
        "" => 0,
        "k" | "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    let factor = 1u64.checked_shl(10 * power)?;
    if number.contains('.') {
        let bytes = number.parse::<f64>().ok()? * factor as f64;
        return (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64);
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A size as people read it: `10M`, `1.5K`.
pub(crate) fn format_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut suffix = "";
    for next in ["K", "M", "G", "T", "P", "E"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        suffix = next;
    }
    format!("{}{suffix}", flux_protocol::real::format_g(value, 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(value: Value) -> Options {
        match value {
            Value::Object(map) => Options::new(map),
            _ => Options::default(),
        }
    }

    #[test]
    fn options_that_nobody_asks_for_are_unknown() {
        let options = options(json!({"pty": 1, "verbose": 1, "nonsense": "x", "mpi": "none"}));
        assert!(options.is_set("pty"));
        assert_eq!(options.number("verbose").unwrap(), Some(1));
        assert_eq!(options.unknown(), ["nonsense"]);
    }

    #[test]
    fn a_switch_is_off_when_false_or_zero() {
        let options = options(json!({"a": false, "b": 0, "c": 1, "d": true, "e": "x", "f": null}));
        let on: Vec<bool> = ["a", "b", "c", "d", "e", "f"].map(|name| options.is_set(name)).into();
        assert_eq!(on, [false, false, true, true, true, false]);
    }

    #[test]
    fn a_value_of_the_wrong_type_names_the_option() {
        let error = options(json!({"pmi": 3})).string("pmi").unwrap_err();
        assert!(error.text.starts_with("invalid shell option pmi=3"), "{error}");
    }

    #[test]
    fn sizes_and_durations_are_read_with_and_without_units() {
        assert_eq!(size(&json!("10M")), Some(10 << 20));
        assert_eq!(size(&json!("1.5k")), Some(1536));
        assert_eq!(size(&json!(77)), Some(77));
        assert_eq!(size(&json!("M")), None);
        assert_eq!(size(&json!("99999999E")), None);
        assert_eq!(format_size(10 << 20), "10M");
        assert_eq!(seconds(&json!("1m")), Some(60.0));
        assert_eq!(seconds(&json!(0.5)), Some(0.5));
        assert_eq!(seconds(&json!(-1)), None);
    }
}
