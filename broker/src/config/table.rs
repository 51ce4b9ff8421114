//! Reads one table of the configuration key by key, and refuses what it does not know.

use std::fmt;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fsd;
use serde_json::{Map, Value};

use super::Config;

/// A table, while it is read. Every key that is asked for is known; [`Table::finish`] refuses the
/// others.
#[derive(Debug)]
pub struct Table<'a> {
    /// Dotted, such as `policy.limits`.
    name: String,
    entries: Option<&'a Map<String, Value>>,
    known: Vec<&'static str>,
    /// What others read.
    left: Vec<String>,
    /// Where unknown keys are noted instead of refused.
    lenient: Option<&'a Config>,
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing [{table}] config table: {problem}")]
pub struct TableError {
    pub table: String,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The first key with the known key that looks most like it.
    #[error("{} object item(s) left unpacked: {}{}", keys.len(), keys.join(", "), Hint(nearest))]
    Unknown { keys: Vec<String>, nearest: Option<&'static str> },
    #[error("{key}: expected {expected}, got {got}")]
    Type { key: String, expected: &'static str, got: &'static str },
    #[error("Object item not found: {0}")]
    Missing(String),
    #[error("{text}")]
    Value { key: String, text: String },
    #[error("expected table, got {0}")]
    NotTable(&'static str),
}

struct Hint<'a>(&'a Option<&'static str>);

// === impl TableError ===

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(known) => write!(f, " (did you mean '{known}'?)"),
            None => Ok(()),
        }
    }
}

impl TableError {
    /// A value that has the right type but is not acceptable.
    pub fn value(table: &str, key: &str, text: impl Into<String>) -> TableError {
        let problem = Problem::Value { key: key.to_owned(), text: text.into() };
        TableError { table: table.to_owned(), problem }
    }

    /// Where to look in the files: the dotted key.
    pub fn path(&self) -> String {
        match &self.problem {
            Problem::Unknown { keys, .. } => match keys.first() {
                Some(key) => format!("{}.{key}", self.table),
                None => self.table.clone(),
            },
            Problem::Type { key, .. } | Problem::Value { key, .. } => {
                format!("{}.{key}", self.table)
            }
            Problem::Missing(_) | Problem::NotTable(_) => self.table.clone(),
        }
    }
}

impl TableError {
    /// Dotted keys without which the table would not have this mistake.
    pub fn keys(&self) -> Vec<String> {
        let paths = match &self.problem {
            Problem::Unknown { keys, .. } => {
                keys.iter().map(|key| format!("{}.{key}", self.table)).collect()
            }
            Problem::Missing(_) => Vec::new(),
            Problem::Type { .. } | Problem::Value { .. } | Problem::NotTable(_) => {
                vec![self.path()]
            }
        };
        paths.into_iter().map(|path| path.replace("][", ".")).collect()
    }

    /// Is the other one about a key that this one has found to be wrong, and that is missing now?
    pub(super) fn explains(&self, other: &TableError) -> bool {
        let mine = self.keys();
        match &other.problem {
            Problem::Missing(key) => {
                mine.contains(&format!("{}.{key}", other.table).replace("][", "."))
            }
            _ => other.keys().iter().all(|key| mine.contains(key)),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Failure {
        Failure::new(Errno::EINVAL, error.to_string())
    }
}

// === impl Table ===

impl<'a> Table<'a> {
    /// The table with this dotted name; one that is not there is empty.
    pub fn of(config: &'a Config, name: &str) -> Result<Table<'a>, TableError> {
        Table::new(name.to_owned(), config.get(name), None)
    }

    /// A table in which Flux lets unknown keys pass: they are noted as warnings of the
    /// configuration.
    pub fn lenient(config: &'a Config, name: &str) -> Result<Table<'a>, TableError> {
        Table::new(name.to_owned(), config.get(name), Some(config))
    }

    fn new(
        name: String,
        value: Option<&'a Value>,
        lenient: Option<&'a Config>,
    ) -> Result<Table<'a>, TableError> {
        let entries = match value {
            None => None,
            Some(Value::Object(entries)) => Some(entries),
            Some(other) => {
                let problem = Problem::NotTable(type_name(other));
                return Err(TableError { table: name, problem });
            }
        };
        Ok(Table { name, entries, known: Vec::new(), left: Vec::new(), lenient })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Any value; the table says what it accepts.
    pub fn any(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.entries?.get(key)
    }

    pub fn string(&mut self, key: &'static str) -> Result<Option<&'a str>, TableError> {
        self.typed(key, "string", Value::as_str)
    }

    pub fn bool(&mut self, key: &'static str) -> Result<Option<bool>, TableError> {
        self.typed(key, "boolean", Value::as_bool)
    }

    pub fn integer(&mut self, key: &'static str) -> Result<Option<i64>, TableError> {
        self.typed(key, "integer", Value::as_i64)
    }

    /// An integer or a number with a fraction.
    pub fn number(&mut self, key: &'static str) -> Result<Option<f64>, TableError> {
        self.typed(key, "number", Value::as_f64)
    }

    /// An integer that is not negative.
    pub fn count(&mut self, key: &'static str) -> Result<Option<u64>, TableError> {
        let Some(number) = self.integer(key)? else { return Ok(None) };
        let count = u64::try_from(number);
        count.map(Some).map_err(|_| self.bad(key, format!("{key} must not be negative")))
    }

    /// Seconds of a Flux Standard Duration; infinity is one. Text without a digit, which C reads
    /// as 0, is none: whoever left it empty did not mean "never" or "at once".
    pub fn fsd(&mut self, key: &'static str) -> Result<Option<f64>, TableError> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        match fsd::parse(text) {
            Ok(seconds) if !text.trim().is_empty() => Ok(Some(seconds)),
            _ => Err(self.bad(key, format!("'{key}' is not a valid FSD"))),
        }
    }

    pub fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, TableError> {
        let Some(seconds) = self.fsd(key)? else { return Ok(None) };
        let duration = Duration::try_from_secs_f64(seconds);
        duration.map(Some).map_err(|_| self.bad(key, format!("'{key}' is out of range")))
    }

    /// An array of strings.
    pub fn strings(&mut self, key: &'static str) -> Result<Option<Vec<&'a str>>, TableError> {
        let Some(array) = self.array(key)? else { return Ok(None) };
        let strings: Option<Vec<&str>> = array.iter().map(Value::as_str).collect();
        let problem = || self.wrong_type(key, "array of strings", "array of other values");
        strings.map(Some).ok_or_else(problem)
    }

    pub fn array(&mut self, key: &'static str) -> Result<Option<&'a Vec<Value>>, TableError> {
        self.typed(key, "array", Value::as_array)
    }

    /// A table within; empty when it is not there.
    pub fn table(&mut self, key: &'static str) -> Result<Table<'a>, TableError> {
        let name = format!("{}.{key}", self.name);
        Table::new(name, self.any(key), self.lenient)
    }

    /// An array of tables.
    pub fn tables(&mut self, key: &'static str) -> Result<Option<Vec<Table<'a>>>, TableError> {
        let Some(array) = self.array(key)? else { return Ok(None) };
        let named = |(at, value)| {
            Table::new(format!("{}.{key}][{at}", self.name), Some(value), self.lenient)
        };
        array.iter().enumerate().map(named).collect::<Result<_, _>>().map(Some)
    }

    /// Tables within, whose keys are names that the administrator gives.
    pub fn named_tables(mut self) -> Result<Vec<(&'a str, Table<'a>)>, TableError> {
        let Some(entries) = self.entries.take() else { return Ok(Vec::new()) };
        entries
            .iter()
            .map(|(key, value)| {
                let name = format!("{}.{key}", self.name);
                Ok((key.as_str(), Table::new(name, Some(value), self.lenient)?))
            })
            .collect()
    }

    /// Is there nothing in it, or no such table?
    pub fn is_empty(&self) -> bool {
        self.entries.is_none_or(Map::is_empty)
    }

    /// The error for a key that must be there.
    pub fn missing(&self, key: &str) -> TableError {
        TableError { table: self.name.clone(), problem: Problem::Missing(key.to_owned()) }
    }

    /// The error for a value that is not acceptable.
    pub fn bad(&self, key: &str, text: impl Into<String>) -> TableError {
        TableError::value(&self.name, key, text)
    }

    /// All of it, for a reader of its own; empty when it is not there.
    pub fn whole(&self) -> Value {
        Value::Object(self.entries.cloned().unwrap_or_default())
    }

    /// Refuse keys that nothing has asked for.
    pub fn finish(self) -> Result<(), TableError> {
        let unknown =
            |key: &&String| !self.known.contains(&key.as_str()) && !self.left.contains(key);
        let entries = self.entries.into_iter().flat_map(Map::keys);
        let keys: Vec<String> = entries.filter(unknown).cloned().collect();
        let Some(first) = keys.first() else { return Ok(()) };
        let nearest = nearest(first, &self.known);
        let problem = Problem::Unknown { keys, nearest };
        let error = TableError { table: self.name, problem };
        match self.lenient {
            Some(config) => config.warn(error),
            None => return Err(error),
        }
        Ok(())
    }

    /// Keys that are somebody else's to read.
    pub fn leave(&mut self, keys: impl IntoIterator<Item = String>) {
        self.left.extend(keys);
    }

    /// Others may have keys of their own here: of those that nothing has asked for, only what looks
    /// like a slip is noted, as a warning of the configuration.
    pub fn finish_among_others(self, config: &Config) {
        let entries = self.entries.into_iter().flat_map(Map::keys);
        for key in entries.filter(|key| !self.known.contains(&key.as_str())) {
            if let Some(known) = nearest(key, &self.known) {
                let problem = Problem::Unknown { keys: vec![key.clone()], nearest: Some(known) };
                config.warn(TableError { table: self.name.clone(), problem });
            }
        }
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, TableError> {
        let Some(value) = self.any(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong_type(key, expected, type_name(value)))
    }

    fn wrong_type(&self, key: &str, expected: &'static str, got: &'static str) -> TableError {
        let problem = Problem::Type { key: key.to_owned(), expected, got };
        TableError { table: self.name.clone(), problem }
    }
}

/// The key of the table that a date or time of TOML comes as.
const DATE: &str = "$__toml_private_datetime";

fn type_name(value: &Value) -> &'static str {
    match value {
        // What JSON has no numbers for.
        Value::Null => "infinity, nan or null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "real",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(table) if table.contains_key(DATE) => "date",
        Value::Object(_) => "table",
    }
}

/// The known key that differs least, when that is little enough to be a slip.
pub(super) fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let distance = |known: &&'static str| (edit_distance(key, known), *known);
    let (distance, nearest) = known.iter().map(distance).min()?;
    (distance <= 1 + key.chars().count() / 4).then_some(nearest)
}

/// Insertions, deletions and replacements between two words, row by row.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut above: Vec<usize> = (0..=right.chars().count()).collect();
    for (at, l) in left.chars().enumerate() {
        let mut row = vec![at + 1];
        let mut before = at + 1;
        for (r, pair) in right.chars().zip(above.windows(2)) {
            let &[diagonal, up] = pair else { continue };
            before = (diagonal + usize::from(l != r)).min(up + 1).min(before + 1);
            row.push(before);
        }
        above = row;
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: Value) -> Config {
        Config::from_object(value.as_object().unwrap().clone())
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
        let config = config(json!({"policy": {"limts": {}, "bogus": 1}}));
        let mut table = Table::of(&config, "policy").unwrap();
        table.any("limits");
        table.any("jobspec");
        let error = table.finish().unwrap_err();
        // In the order of the file.
        assert_eq!(error.path(), "policy.limts");
        assert_eq!(
            error.to_string(),
            "error parsing [policy] config table: 2 object item(s) left unpacked: limts, bogus \
             (did you mean 'limits'?)"
        );
        assert_eq!(nearest("limts", &["limits", "jobspec"]), Some("limits"));
        assert_eq!(nearest("bogus", &["limits", "jobspec"]), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }

    #[test]
    fn values_of_the_wrong_type_name_the_key_and_both_types() {
        let config =
            config(json!({"access": {"allow-guest-user": "zz", "n": -1, "t": "xx", "empty": ""}}));
        let mut table = Table::of(&config, "access").unwrap();
        assert_eq!(
            table.bool("allow-guest-user").unwrap_err().to_string(),
            "error parsing [access] config table: allow-guest-user: expected boolean, got string"
        );
        assert!(table.count("n").is_err());
        assert_eq!(table.fsd("t").unwrap_err().path(), "access.t");
        assert_eq!(table.fsd("empty").unwrap_err().path(), "access.empty");
        assert_eq!(table.integer("absent").unwrap(), None);
    }

    #[test]
    fn a_value_in_the_place_of_a_table_is_refused() {
        let config = config(json!({"policy": 1}));
        let error = Table::of(&config, "policy").unwrap_err();
        assert_eq!(
            error.to_string(),
            "error parsing [policy] config table: expected table, got integer"
        );
    }
}
