//! Jobspecs, RFC 14, RFC 25 (version 1) and RFC 26: what a job asks for and what it runs.
//!
//! A [`Jobspec`] is the whole JSON document: parts that Flux does not know are carried along.

mod attributes;
mod build;
mod counts;
mod validate;
mod validate_attributes;
mod validate_resources;

pub use build::{Extras, PerResource, TaskRequest};
pub use counts::{Counts, CountsError};
pub use validate::{JobspecError, Rules};

use serde::{Serialize, Serializer};
use serde_json::Value;

/// A valid jobspec.
#[derive(Clone, Debug, PartialEq)]
pub struct Jobspec {
    document: Value,
}

// === impl Jobspec ===

impl Jobspec {
    /// Read and validate a jobspec of any version.
    pub fn decode(json: &str) -> Result<Self, JobspecError> {
        Self::from_value(serde_json::from_str(json)?, &Rules::default())
    }

    /// Validate a jobspec that was already parsed.
    pub fn from_value(document: Value, rules: &Rules<'_>) -> Result<Self, JobspecError> {
        validate::validate(&document, rules)?;
        Ok(Self { document })
    }

    pub fn encode(&self) -> Result<String, JobspecError> {
        Ok(crate::json::to_string(&self.document)?)
    }

    /// The whole document.
    pub fn document(&self) -> &Value {
        &self.document
    }

    pub fn into_document(self) -> Value {
        self.document
    }

    pub fn version(&self) -> u64 {
        self.document.get("version").and_then(Value::as_u64).unwrap_or_default()
    }

    pub fn resources(&self) -> &[Value] {
        self.list("resources")
    }

    pub fn tasks(&self) -> &[Value] {
        self.list("tasks")
    }

    /// The command of the first task, empty when there is no task.
    pub fn command(&self) -> Vec<&str> {
        let command = self.tasks().first().and_then(|task| task.get("command")?.as_array());
        command.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn list(&self, key: &str) -> &[Value] {
        self.document.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

impl Serialize for Jobspec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document.serialize(serializer)
    }
}
