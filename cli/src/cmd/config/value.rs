//! Values of the configuration: their types, and their places in the object.

use flux_protocol::fsd;
use flux_protocol::payload::Object;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::json_text::{compact, unquote};

/// The argument of `--type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Any,
    Object,
    Array,
    String,
    Integer,
    Real,
    Boolean,
    /// A string with a duration; shown as it is, in whole seconds, or in seconds.
    Fsd,
    FsdInteger,
    FsdReal,
}

impl Type {
    pub(super) fn parse(text: &str) -> Result<Type, Failure> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "any" => Type::Any,
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "real" => Type::Real,
            "boolean" => Type::Boolean,
            "fsd" => Type::Fsd,
            "fsd-integer" => Type::FsdInteger,
            "fsd-real" => Type::FsdReal,
            _ => return Err(Failure::of("Unknown type", text)),
        })
    }

    pub(super) fn of(value: &Value) -> Type {
        match value {
            Value::Object(_) => Type::Object,
            Value::Array(_) => Type::Array,
            Value::String(_) => Type::String,
            Value::Bool(_) => Type::Boolean,
            Value::Number(number) if number.is_f64() => Type::Real,
            Value::Number(_) => Type::Integer,
            Value::Null => Type::Any,
        }
    }

    /// What to print of a value that should have this type.
    pub(super) fn show(self, raw: &RawValue, name: &str) -> Result<String, Failure> {
        let text = raw.get();
        let string = unquote(raw).filter(|_| text.starts_with('"'));
        let duration = string.as_deref().and_then(|string| fsd::parse(string).ok());
        let found = match text.as_bytes().first() {
            Some(b'{') => Type::Object,
            Some(b'[') => Type::Array,
            Some(b'"') => Type::String,
            Some(b't' | b'f') => Type::Boolean,
            _ if text.contains(['.', 'e', 'E']) => Type::Real,
            _ => Type::Integer,
        };
        match (self, duration) {
            (Type::Fsd, Some(_)) => {}
            (Type::FsdInteger, Some(seconds)) => return Ok(format!("{}", seconds.trunc())),
            (Type::FsdReal, Some(seconds)) => return Ok(format!("{seconds:.6}")),
            (wanted, _) if wanted == Type::Any || wanted == found => {}
            _ => {
                let text = format_args!("{name} does not have the requested type");
                return Err(Failure::new(text));
            }
        }
        Ok(string.unwrap_or_else(|| compact(raw)))
    }

    /// Read a value of this type from the command line.
    pub(super) fn read(self, text: &str) -> Result<Value, Failure> {
        let bad = |what: &str| Failure::new(format_args!("Error parsing {what}"));
        let json = || serde_json::from_str::<Value>(text).ok();
        match self {
            Type::Boolean => {
                Ok(Value::from(!matches!(text.chars().next(), None | Some('0' | 'f' | 'F'))))
            }
            Type::Real => text.parse::<f64>().map(Value::from).map_err(|_| bad("real value")),
            Type::Integer => integer(text).map(Value::from).ok_or_else(|| bad("integer value")),
            Type::Object => json().filter(Value::is_object).ok_or_else(|| bad("json object")),
            Type::Array => json().filter(Value::is_array).ok_or_else(|| bad("json array")),
            Type::Fsd | Type::FsdInteger | Type::FsdReal if fsd::parse(text).is_err() => {
                Err(bad("Flux Standard Duration"))
            }
            _ if text.starts_with('"') => {
                json().filter(Value::is_string).ok_or_else(|| bad("string"))
            }
            _ => Ok(Value::from(text)),
        }
    }
}

/// A number as strtoll(3) reads it: decimal, or with 0x or a leading 0.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let number = if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    number.ok().map(|number| if negative { -number } else { number })
}

/// Put a value at a path, making tables on the way; the error is a part that is no table.
pub(super) fn insert(object: &mut Object, path: &str, value: Value) -> Result<(), String> {
    let Some((first, rest)) = path.split_once('.') else {
        object.insert(path.to_owned(), value);
        return Ok(());
    };
    let inner = object.entry(first).or_insert_with(|| Value::Object(Object::new()));
    match inner {
        Value::Object(inner) => insert(inner, rest, value),
        _ => Err(first.to_owned()),
    }
}

/// Take away what is at a path; where there is nothing that is fine.
pub(super) fn remove(object: &mut Object, path: &str) {
    match path.split_once('.') {
        None => drop(object.shift_remove(path)),
        Some((first, rest)) => {
            if let Some(Value::Object(inner)) = object.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

pub(super) fn not_a_table(key: &str) -> String {
    format!("{key} is not a table")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn strings_are_shown_without_quotes_and_durations_in_seconds() {
        assert_eq!(Type::Any.show(&raw("\"2m\""), "x").unwrap(), "2m");
        assert_eq!(Type::FsdInteger.show(&raw("\"2m\""), "x").unwrap(), "120");
        assert_eq!(Type::FsdReal.show(&raw("\"1.5s\""), "x").unwrap(), "1.500000");
        assert_eq!(Type::Any.show(&raw("{\"a\": [1, 2]}"), "x").unwrap(), "{\"a\":[1,2]}");
        assert!(Type::Integer.show(&raw("\"2m\""), "x").is_err());
        assert!(Type::Fsd.show(&raw("\"soon\""), "x").is_err());
    }

    #[test]
    fn paths_make_tables_but_do_not_replace_values() {
        let mut object = Object::new();
        insert(&mut object, "a.b", Value::from(1)).unwrap();
        insert(&mut object, "a.c", Value::from(2)).unwrap();
        assert_eq!(insert(&mut object, "a.b.d", Value::from(3)), Err("b".to_owned()));
        remove(&mut object, "a.b");
        assert_eq!(Value::Object(object).to_string(), r#"{"a":{"c":2}}"#);
    }

    #[test]
    fn integers_are_read_as_c_reads_them() {
        assert_eq!((integer("0x10"), integer("010"), integer("-3")), (Some(16), Some(8), Some(-3)));
        assert_eq!(integer("x"), None);
    }
}
