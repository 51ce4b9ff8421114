//! The rules that a jobspec must keep, in the words in which Flux reports a breach.

use super::validate_attributes::check_attributes;
use super::validate_resources::{check_resources, check_v1_counts};
use crate::hostlist::{Hostlist, HostlistError};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// What depends on the instance that a job is submitted to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// Accept this version alone.
    pub require_version: Option<i64>,
    /// The instance's hosts: constraints may name no others. None checks nothing.
    pub hosts: Option<&'a Hostlist>,
}

#[derive(Debug, thiserror::Error)]
pub enum JobspecError {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("Unable to parse JSON")]
    Null,
    #[error("{what} must be {be}")]
    Must { what: Cow<'static, str>, be: &'static str },
    #[error("Missing key ({0})")]
    MissingKey(&'static str),
    #[error("Extraneous key ({0})")]
    ExtraneousKey(String),
    #[error("{0} is a required key")]
    Required(&'static str),
    #[error("{0} is a required key for resources")]
    RequiredForResources(&'static str),
    #[error("version must be {0}")]
    Version(i64),
    #[error("resource count must be an integer for type '{kind}' (got '{got}')")]
    CountType { kind: String, got: &'static str },
    #[error("count string must be a valid idset or range")]
    CountString,
    #[error("invalid literal for int() with base 10: '{0}'")]
    NotANumber(String),
    #[error("operand and operator must both be in range if either is")]
    HalfOperator,
    #[error("slots must have labels")]
    NoLabel,
    #[error("count must have exactly one key set")]
    TaskCountKeys,
    #[error("command array cannot have length of zero")]
    EmptyCommand,
    #[error("{0} can only be set with a node count")]
    NeedsNodes(&'static str),
    #[error("{0}")]
    Request(&'static str),
    #[error("Invalid per_resource_type='{0}' specified")]
    PerResourceType(String),
    #[error("invalid character in property '{0}'")]
    PropertyCharacter(String),
    #[error("unknown constraint operator '{0}'")]
    ConstraintOperator(String),
    #[error("IDset(): Invalid argument: {0}")]
    Idset(String),
    #[error("{0}")]
    Hostlist(HostlistError),
    #[error("host constraint contains invalid hosts: {0}")]
    UnknownHosts(HostlistError),
}

pub(super) fn must(what: impl Into<Cow<'static, str>>, be: &'static str) -> JobspecError {
    JobspecError::Must { what: what.into(), be }
}

/// An error unless the condition holds.
pub(super) fn ensure(
    holds: bool,
    what: impl Into<Cow<'static, str>>,
    be: &'static str,
) -> Result<(), JobspecError> {
    if holds { Ok(()) } else { Err(must(what, be)) }
}

const KEYS: [&str; 4] = ["resources", "tasks", "version", "attributes"];

pub(super) fn validate(document: &Value, rules: &Rules<'_>) -> Result<(), JobspecError> {
    let object = match document {
        Value::Object(object) => object,
        Value::Null => return Err(JobspecError::Null),
        _ => return Err(must("jobspec", "a mapping")),
    };
    let [resources, tasks, version, attributes] = members(object, KEYS)?;
    no_other_keys(object, &KEYS)?;
    let v1 = rules.require_version == Some(1) || version.as_i64() == Some(1);
    if let Some(required) = rules.require_version
        && version.as_i64() != Some(required)
    {
        return Err(JobspecError::Version(required));
    }

    let resources = resources.as_array().ok_or_else(|| must("resources", "a sequence"))?;
    let tasks = tasks.as_array().ok_or_else(|| must("tasks", "a sequence"))?;
    let attributes = attributes.as_object().ok_or_else(|| must("attributes", "a mapping"))?;
    let version = version.as_i64().ok_or_else(|| must("version", "an integer"))?;
    ensure(version >= 1, "version", ">= 1")?;

    check_resources(resources)?;
    tasks.iter().try_for_each(check_task)?;
    check_attributes(attributes, rules)?;
    if v1 { check_v1(resources, tasks, attributes) } else { Ok(()) }
}

/// What version 1 asks for beyond RFC 14.
fn check_v1(
    resources: &[Value],
    tasks: &[Value],
    attributes: &Map<String, Value>,
) -> Result<(), JobspecError> {
    let system = attributes.get("system").ok_or(JobspecError::Required("attributes.system"))?;
    let system = system.as_object().ok_or_else(|| must("attributes.system", "a mapping"))?;
    let duration =
        system.get("duration").ok_or(JobspecError::Required("attributes.system.duration"))?;
    ensure(duration.is_number(), "attributes.system.duration", "a number")?;
    for count in tasks.iter().filter_map(|task| task.get("count")) {
        let known = count.get("per_slot").or_else(|| count.get("total")).is_some();
        ensure(known, "count per_slot or total", "set")?;
    }
    check_v1_counts(resources)
}

fn check_task(task: &Value) -> Result<(), JobspecError> {
    let task = task.as_object().ok_or_else(|| must("task", "a mapping"))?;
    let [command, slot, count] = members(task, ["command", "slot", "count"])?;
    check_task_count(count.as_object().ok_or_else(|| must("count", "a mapping"))?)?;
    ensure(slot.is_string(), "slot", "a string")?;
    let attributes = task.get("attributes").is_none_or(Value::is_object);
    ensure(attributes, "attributes", "a mapping")?;
    check_command(command)
}

fn check_task_count(count: &Map<String, Value>) -> Result<(), JobspecError> {
    if count.len() != 1 {
        return Err(JobspecError::TaskCountKeys);
    }
    for (key, what) in [("total", "count total"), ("per_slot", "count per_slot")] {
        if let Some(value) = count.get(key) {
            let value = value.as_i64().ok_or_else(|| must(what, "an int"))?;
            return ensure(value > 0, what, "> 0");
        }
    }
    ensure(count.contains_key("per_resource"), "count per_slot, per_resource, or total", "set")
}

fn check_command(command: &Value) -> Result<(), JobspecError> {
    let strings = || must("command", "a list of strings");
    match command {
        Value::Array(words) if words.is_empty() => Err(JobspecError::EmptyCommand),
        Value::Array(words) if words.iter().all(Value::is_string) => Ok(()),
        Value::String(text) if text.is_empty() => Err(JobspecError::EmptyCommand),
        _ => Err(strings()),
    }
}

/// The values of required keys.
pub(super) fn members<'a, const N: usize>(
    object: &'a Map<String, Value>,
    keys: [&'static str; N],
) -> Result<[&'a Value; N], JobspecError> {
    let mut values = [&Value::Null; N];
    for (slot, key) in values.iter_mut().zip(keys) {
        *slot = object.get(key).ok_or(JobspecError::MissingKey(key))?;
    }
    Ok(values)
}

pub(super) fn no_other_keys(
    object: &Map<String, Value>,
    known: &[&str],
) -> Result<(), JobspecError> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(JobspecError::ExtraneousKey(key.clone())),
        None => Ok(()),
    }
}
