//! A schema: what is asked of a value, keyword by keyword (JSON Schema, drafts 4 to 2020-12).
//!
//! `format` and other annotations are not judged. `$ref` goes within the document only: a plugin
//! cannot fetch anything.

use crate::keyword;
use crate::python::repr;
use regex_lite::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Nesting of schemas, for those that refer to themselves.
const DEPTH: usize = 128;

/// See the module.
#[derive(Debug)]
pub(crate) struct Schema {
    document: Value,
    patterns: BTreeMap<String, Regex>,
}

/// What is being judged by what.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) schema: &'a Schema,
    depth: usize,
}

impl Schema {
    /// Reads a document; patterns and references that cannot be used are found here.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let document: Value =
            serde_json::from_str(text).map_err(|error| format!("schema: {error}"))?;
        if !document.is_object() && !document.is_boolean() {
            return Err("schema: not an object".to_owned());
        }
        let mut schema = Schema { document: Value::Null, patterns: BTreeMap::new() };
        schema.collect(&document, &document)?;
        schema.document = document;
        Ok(schema)
    }

    fn collect(&mut self, part: &Value, document: &Value) -> Result<(), String> {
        match part {
            Value::Array(list) => list.iter().try_for_each(|item| self.collect(item, document)),
            Value::Object(map) => {
                if let Some(Value::String(pattern)) = map.get("pattern") {
                    self.add_pattern(pattern)?;
                }
                if let Some(Value::Object(patterns)) = map.get("patternProperties") {
                    patterns.keys().try_for_each(|pattern| self.add_pattern(pattern))?;
                }
                if let Some(Value::String(to)) = map.get("$ref")
                    && resolve(document, to).is_none()
                {
                    return Err(format!("schema: unresolvable reference: {to}"));
                }
                map.values().try_for_each(|value| self.collect(value, document))
            }
            _ => Ok(()),
        }
    }

    fn add_pattern(&mut self, pattern: &str) -> Result<(), String> {
        let regex =
            Regex::new(pattern).map_err(|error| format!("schema: pattern '{pattern}': {error}"))?;
        self.patterns.insert(pattern.to_owned(), regex);
        Ok(())
    }

    /// Whether a pattern is found in a text.
    pub(crate) fn matches(&self, pattern: &str, text: &str) -> bool {
        self.patterns.get(pattern).is_none_or(|regex| regex.is_match(text))
    }

    /// The first thing that is wrong with a value.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        Place { schema: self, depth: 0 }.check(&self.document, value)
    }
}

impl Place<'_> {
    pub(crate) fn check(self, schema: &Value, value: &Value) -> Result<(), String> {
        let map = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Bool(false) => {
                return Err(format!("False schema does not allow {}", repr(value)));
            }
            Value::Object(map) => map,
            _ => return Ok(()),
        };
        if self.depth == DEPTH {
            return Err("schema: references are nested too deeply".to_owned());
        }
        let inside = Place { depth: self.depth + 1, ..self };
        if let Some(Value::String(to)) = map.get("$ref")
            && let Some(schema) = resolve(&self.schema.document, to)
        {
            inside.check(schema, value)?;
        }
        keyword::check_any(map, value)?;
        match value {
            Value::Object(object) => keyword::check_object(inside, map, object)?,
            Value::Array(list) => keyword::check_array(inside, map, list)?,
            Value::String(text) => keyword::check_string(inside, map, text)?,
            Value::Number(number) => keyword::check_number(map, number)?,
            _ => {}
        }
        inside.check_combined(map, value)
    }

    pub(crate) fn is_valid(self, schema: &Value, value: &Value) -> bool {
        self.check(schema, value).is_ok()
    }

    fn check_combined(self, map: &Map<String, Value>, value: &Value) -> Result<(), String> {
        let list = |key: &str| map.get(key).and_then(Value::as_array);
        if let Some(all) = list("allOf") {
            all.iter().try_for_each(|schema| self.check(schema, value))?;
        }
        if let Some(any) = list("anyOf")
            && !any.iter().any(|schema| self.is_valid(schema, value))
        {
            return Err(format!("{} is not valid under any of the given schemas", repr(value)));
        }
        if let Some(one) = list("oneOf") {
            match one.iter().filter(|schema| self.is_valid(schema, value)).count() {
                0 => {
                    let text = "is not valid under any of the given schemas";
                    return Err(format!("{} {text}", repr(value)));
                }
                1 => {}
                _ => return Err(format!("{} is valid under each of several", repr(value))),
            }
        }
        if let Some(not) = map.get("not")
            && self.is_valid(not, value)
        {
            return Err(format!("{} should not be valid under {}", repr(value), repr(not)));
        }
        if let Some(condition) = map.get("if") {
            let branch = if self.is_valid(condition, value) { "then" } else { "else" };
            if let Some(schema) = map.get(branch) {
                self.check(schema, value)?;
            }
        }
        Ok(())
    }
}

/// `#`, or `#/a/b` as a JSON pointer.
fn resolve<'a>(document: &'a Value, to: &str) -> Option<&'a Value> {
    document.pointer(to.strip_prefix('#')?)
}
