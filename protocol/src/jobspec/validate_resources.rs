//! Rules for the resource section.

use super::validate::{JobspecError, ensure, must, no_other_keys};
use crate::idset::Idset;
use serde_json::{Map, Value};

/// Check all resources, parents before children.
pub(super) fn check_resources(list: &[Value]) -> Result<(), JobspecError> {
    for resource in list {
        let resource = resource.as_object().ok_or_else(|| must("resource", "a mapping"))?;
        check_resource(resource)?;
        check_resources(children(resource)?)?;
    }
    Ok(())
}

/// Version 1 knows no counts but integers.
pub(super) fn check_v1_counts(list: &[Value]) -> Result<(), JobspecError> {
    for resource in list.iter().filter_map(Value::as_object) {
        if let Some(got) = resource.get("count").and_then(not_an_integer) {
            let kind = resource.get("type").and_then(Value::as_str).unwrap_or_default();
            return Err(JobspecError::CountType { kind: kind.to_owned(), got });
        }
        check_v1_counts(children(resource)?)?;
    }
    Ok(())
}

fn children(resource: &Map<String, Value>) -> Result<&[Value], JobspecError> {
    match resource.get("with") {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(must("with", "a sequence")),
    }
}

/// Python's name for the type of a count that is no integer.
fn not_an_integer(count: &Value) -> Option<&'static str> {
    match count {
        Value::String(_) => Some("str"),
        Value::Object(_) => Some("dict"),
        _ => None,
    }
}

fn check_resource(resource: &Map<String, Value>) -> Result<(), JobspecError> {
    let kind = resource.get("type").ok_or(JobspecError::RequiredForResources("type"))?;
    let kind = kind.as_str().ok_or_else(|| must("type", "a string"))?;
    let count = resource.get("count").ok_or(JobspecError::RequiredForResources("count"))?;
    check_count(kind, count)?;
    for key in ["id", "unit", "label"] {
        ensure(resource.get(key).is_none_or(Value::is_string), key, "a string")?;
    }
    let exclusive = resource.get("exclusive").is_none_or(Value::is_boolean);
    ensure(exclusive, "exclusive", "a boolean")?;
    if kind == "slot" && !resource.contains_key("label") {
        return Err(JobspecError::NoLabel);
    }
    Ok(())
}

fn check_count(kind: &str, count: &Value) -> Result<(), JobspecError> {
    match count {
        Value::Object(range) => check_range(range),
        Value::String(text) => check_count_text(text),
        _ => {
            let count = count.as_i64().ok_or_else(|| must("count", "an int or mapping"))?;
            let positive = count > 0 || !["node", "slot", "core"].contains(&kind);
            ensure(positive, "node, slot, or core count", "> 0")?;
            ensure(count >= 0, "count", ">= 0")
        }
    }
}

/// `min`, `max`, and how to get from one candidate to the next.
fn check_range(range: &Map<String, Value>) -> Result<(), JobspecError> {
    if !range.contains_key("min") {
        return Err(must("min", "in range"));
    }
    no_other_keys(range, &["min", "max", "operand", "operator"])?;
    let (min, max, operand) =
        (positive(range, "min")?, positive(range, "max")?, positive(range, "operand")?);
    ensure(max.is_none_or(|max| Some(max) >= min), "max", ">= min")?;
    match (operand, range.get("operator")) {
        (None, None) => Ok(()),
        (Some(operand), Some(operator)) => check_operator(operator, min, operand),
        _ => Err(JobspecError::HalfOperator),
    }
}

fn positive(range: &Map<String, Value>, key: &'static str) -> Result<Option<i64>, JobspecError> {
    let Some(value) = range.get(key) else { return Ok(None) };
    let number = value.as_i64().ok_or_else(|| must(key, "an int"))?;
    ensure(number > 0, key, "> 0")?;
    Ok(Some(number))
}

fn check_operator(operator: &Value, min: Option<i64>, operand: i64) -> Result<(), JobspecError> {
    let single = operator.as_str().filter(|text| text.chars().count() == 1);
    let operator = single.ok_or_else(|| must("operator", "a single character str"))?;
    ensure(["+", "*", "^"].contains(&operator), "operator", "one of ['+', '*', '^']")?;
    ensure(operator == "+" || operand > 1, "operand", "> 1 for '*' or '^' operator")?;
    ensure(operator != "^" || min > Some(1), "min", "> 1 for '^' operator")
}

/// An idset, or `min-max`, `min+`, `min-max:operand` or `min-max:operand:operator`.
fn check_count_text(text: &str) -> Result<(), JobspecError> {
    if Idset::decode(text).is_ok() {
        return Ok(());
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (&[span] | &[span, _] | &[span, _, _]) = parts.as_slice() else {
        return Err(JobspecError::CountString);
    };
    let number = |text: &str| {
        let parsed = text.trim().parse::<i64>();
        parsed.map(Value::from).map_err(|_| JobspecError::NotANumber(text.to_owned()))
    };
    let mut range = Map::new();
    match span.split_once('-') {
        Some((min, max)) => {
            range.insert("max".into(), number(max)?);
            range.insert("min".into(), number(min)?);
        }
        None if span.contains('+') => {
            range.insert("min".into(), number(span.trim_end_matches('+'))?);
        }
        None => return Err(JobspecError::CountString),
    }
    if let Some(operand) = parts.get(1) {
        range.insert("operand".into(), number(operand)?);
        range.insert("operator".into(), parts.get(2).copied().unwrap_or("+").into());
    }
    check_range(&range)
}
