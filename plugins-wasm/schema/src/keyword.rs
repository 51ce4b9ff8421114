//! The keywords for each type of value.

use crate::python::{quoted, repr};
use crate::schema::Place;
use serde_json::{Map, Number, Value};

type Keywords = Map<String, Value>;

fn fail(text: String) -> Result<(), String> {
    Err(text)
}

pub(crate) fn check_any(keywords: &Keywords, value: &Value) -> Result<(), String> {
    match keywords.get("type") {
        Some(Value::String(name)) if !is_a(value, name) => {
            return fail(format!("{} is not of type {}", repr(value), quoted(name)));
        }
        Some(Value::Array(names)) => {
            let mut known = names.iter().filter_map(Value::as_str);
            if !known.any(|name| is_a(value, name)) {
                let names: Vec<String> = names.iter().map(repr).collect();
                return fail(format!("{} is not of type {}", repr(value), names.join(", ")));
            }
        }
        _ => {}
    }
    if let Some(Value::Array(allowed)) = keywords.get("enum")
        && !allowed.iter().any(|other| equal(other, value))
    {
        return fail(format!(
            "{} is not one of {}",
            repr(value),
            repr(&Value::Array(allowed.clone()))
        ));
    }
    match keywords.get("const") {
        Some(wanted) if !equal(wanted, value) => fail(format!("{} was expected", repr(wanted))),
        _ => Ok(()),
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    }
}

/// 1 and 1.0 are the same number.
fn equal(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

pub(crate) fn check_object(
    place: Place<'_>,
    keywords: &Keywords,
    object: &Keywords,
) -> Result<(), String> {
    for name in strings(keywords.get("required")) {
        if !object.contains_key(name) {
            return fail(format!("{} is a required property", quoted(name)));
        }
    }
    let empty = Map::new();
    let table = |key: &str| keywords.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let (properties, patterns) = (table("properties"), table("patternProperties"));
    let mut additional = Vec::new();
    for (name, value) in object {
        let own = properties.get(name);
        let matching = patterns.iter().filter(|(pattern, _)| place.schema.matches(pattern, name));
        let mut known = own.is_some();
        for schema in own.into_iter().chain(matching.map(|(_, schema)| schema)) {
            known = true;
            place.check(schema, value)?;
        }
        if !known {
            additional.push((name, value));
        }
        if let Some(schema) = keywords.get("propertyNames") {
            place.check(schema, &Value::String(name.clone()))?;
        }
    }
    check_additional(place, keywords.get("additionalProperties"), &additional)?;
    check_dependent(place, keywords, object)?;
    let shown = || repr(&Value::Object(object.clone()));
    if limit(keywords, "minProperties").is_some_and(|limit| object.len() < limit) {
        return fail(format!("{} does not have enough properties", shown()));
    }
    if limit(keywords, "maxProperties").is_some_and(|limit| object.len() > limit) {
        return fail(format!("{} has too many properties", shown()));
    }
    Ok(())
}

fn check_additional(
    place: Place<'_>,
    schema: Option<&Value>,
    additional: &[(&String, &Value)],
) -> Result<(), String> {
    match schema {
        Some(Value::Bool(false)) if !additional.is_empty() => {
            let names: Vec<String> = additional.iter().map(|(name, _)| quoted(name)).collect();
            let verb = if names.len() == 1 { "was" } else { "were" };
            fail(format!(
                "Additional properties are not allowed ({} {verb} unexpected)",
                names.join(", ")
            ))
        }
        Some(schema @ Value::Object(_)) => {
            additional.iter().try_for_each(|(_, value)| place.check(schema, value))
        }
        _ => Ok(()),
    }
}

/// `dependentRequired`, `dependentSchemas`, and `dependencies`, which was both.
fn check_dependent(place: Place<'_>, keywords: &Keywords, object: &Keywords) -> Result<(), String> {
    let tables = ["dependentRequired", "dependentSchemas", "dependencies"];
    let tables = tables.iter().filter_map(|key| keywords.get(*key)?.as_object());
    for (name, wanted) in tables.flatten().filter(|(name, _)| object.contains_key(*name)) {
        match wanted {
            Value::Array(_) => {
                for other in strings(Some(wanted)) {
                    if !object.contains_key(other) {
                        let (other, name) = (quoted(other), quoted(name));
                        return fail(format!("{other} is a dependency of {name}"));
                    }
                }
            }
            schema => place.check(schema, &Value::Object(object.clone()))?,
        }
    }
    Ok(())
}

pub(crate) fn check_array(
    place: Place<'_>,
    keywords: &Keywords,
    list: &[Value],
) -> Result<(), String> {
    let (first, rest) = match (keywords.get("prefixItems"), keywords.get("items")) {
        (Some(Value::Array(first)), rest) => (first.as_slice(), rest),
        (_, Some(Value::Array(first))) => (first.as_slice(), keywords.get("additionalItems")),
        (_, rest) => (&[][..], rest),
    };
    first.iter().zip(list).try_for_each(|(schema, item)| place.check(schema, item))?;
    let others = list.get(first.len()..).unwrap_or_default();
    match rest {
        Some(Value::Bool(false)) if !others.is_empty() => {
            return fail(format!(
                "Expected at most {} items but found {} extra",
                first.len(),
                others.len()
            ));
        }
        Some(schema) => others.iter().try_for_each(|item| place.check(schema, item))?,
        None => {}
    }
    let shown = || repr(&Value::Array(list.to_vec()));
    if let Some(schema) = keywords.get("contains")
        && !list.iter().any(|item| place.is_valid(schema, item))
    {
        return fail(format!("{} does not contain items matching the given schema", shown()));
    }
    if let Some(least) = limit(keywords, "minItems").filter(|least| list.len() < *least) {
        let text = if least == 1 { "should be non-empty" } else { "is too short" };
        return fail(format!("{} {text}", shown()));
    }
    if limit(keywords, "maxItems").is_some_and(|limit| list.len() > limit) {
        return fail(format!("{} is too long", shown()));
    }
    let twice =
        |(index, item): (usize, &Value)| list.iter().take(index).any(|other| equal(other, item));
    if keywords.get("uniqueItems") == Some(&Value::Bool(true)) && list.iter().enumerate().any(twice)
    {
        return fail(format!("{} has non-unique elements", shown()));
    }
    Ok(())
}

pub(crate) fn check_string(
    place: Place<'_>,
    keywords: &Keywords,
    text: &str,
) -> Result<(), String> {
    let length = text.chars().count();
    if let Some(least) = limit(keywords, "minLength").filter(|least| length < *least) {
        let what = if least == 1 { "should be non-empty" } else { "is too short" };
        return fail(format!("{} {what}", quoted(text)));
    }
    if limit(keywords, "maxLength").is_some_and(|limit| length > limit) {
        return fail(format!("{} is too long", quoted(text)));
    }
    match keywords.get("pattern") {
        Some(Value::String(pattern)) if !place.schema.matches(pattern, text) => {
            fail(format!("{} does not match {}", quoted(text), quoted(pattern)))
        }
        _ => Ok(()),
    }
}

/// Whether a value is beyond a bound.
type Crosses = fn(f64, f64) -> bool;

pub(crate) fn check_number(keywords: &Keywords, number: &Number) -> Result<(), String> {
    let Some(value) = number.as_f64() else { return Ok(()) };
    let bound = |key: &str| keywords.get(key).filter(|bound| bound.is_number());
    let crossed = |key: &str, crosses: Crosses| {
        bound(key).filter(|bound| bound.as_f64().is_some_and(|bound| crosses(value, bound)))
    };
    // In draft 4 the bounds are made exclusive by a flag beside them.
    let strict = |key: &str| keywords.get(key) == Some(&Value::Bool(true));
    let checks: [(&str, bool, Crosses, &str); 4] = [
        ("minimum", strict("exclusiveMinimum"), |v, b| v < b, "is less than the minimum of"),
        ("maximum", strict("exclusiveMaximum"), |v, b| v > b, "is greater than the maximum of"),
        ("exclusiveMinimum", false, |v, b| v <= b, "is less than or equal to the minimum of"),
        ("exclusiveMaximum", false, |v, b| v >= b, "is greater than or equal to the maximum of"),
    ];
    for (key, is_strict, crosses, text) in checks {
        let touches = is_strict && bound(key).and_then(Value::as_f64) == Some(value);
        let limit = crossed(key, crosses).or_else(|| bound(key).filter(|_| touches));
        if let Some(limit) = limit {
            return fail(format!("{number} {text} {}", repr(limit)));
        }
    }
    let step = keywords.get("multipleOf").and_then(Value::as_f64).filter(|step| *step > 0.0);
    match step {
        Some(step) if (value / step).fract() != 0.0 => {
            fail(format!("{number} is not a multiple of {step}"))
        }
        _ => Ok(()),
    }
}

fn limit(keywords: &Keywords, key: &str) -> Option<usize> {
    keywords.get(key)?.as_u64().map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
