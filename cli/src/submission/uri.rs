//! `SCHEME:VALUE?KEY=VALUE&...`: dependencies (RFC 26) and task maps on the command line.

use serde_json::{Map, Value, json};

use super::refuse;
use crate::failure::Failure;

/// `kind` is what it is for, in the complaint.
pub(crate) fn parse(text: &str, kind: &str) -> Result<Value, Failure> {
    let invalid = || refuse(format_args!("Invalid {kind} URI \"{}\"", with_colon(text)));
    let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return Err(invalid());
    }
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (value, query) = rest.split_once('?').unwrap_or((rest, ""));
    let scheme = scheme.to_ascii_lowercase();
    if kind == "dependency" && scheme == "after" {
        eprintln!("dependency scheme 'after' is deprecated, use 'afterstart'");
    }
    let mut entry = Map::new();
    entry.insert("scheme".to_owned(), json!(scheme));
    entry.insert("value".to_owned(), json!(value));
    for (key, values) in parse_query(query) {
        let values: Vec<Value> = values.iter().map(|text| number_or_text(text)).collect();
        let value = match <[Value; 1]>::try_from(values) {
            Ok([value]) => value,
            Err(values) => Value::Array(values),
        };
        entry.insert(key, value);
    }
    Ok(Value::Object(entry))
}

fn with_colon(text: &str) -> String {
    if text.contains(':') { text.to_owned() } else { format!("{text}:") }
}

/// Keys in order of appearance; those without a value are left out.
fn parse_query(query: &str) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if value.is_empty() {
            continue;
        }
        let (key, value) = (unquote(key), unquote(value));
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => all.push((key, vec![value])),
        }
    }
    all
}

/// `%41` is `A`, and `+` a blank.
fn unquote(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = behind.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn number_or_text(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        return json!(number);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        _ => json!(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_values_and_queries_are_told_apart() {
        for (text, expected) in [
            ("cyclic", json!({"scheme": "cyclic", "value": ""})),
            ("cyclic:2", json!({"scheme": "cyclic", "value": "2"})),
            ("afterok:ƒ1234", json!({"scheme": "afterok", "value": "ƒ1234"})),
            ("manual:[[0,1,2,1]]", json!({"scheme": "manual", "value": "[[0,1,2,1]]"})),
            (
                "String:foo?type=out&n=2&f=1.5&n=3",
                json!({"scheme": "string", "value": "foo", "type": "out", "n": [2, 3], "f": 1.5}),
            ),
            ("a:b?c=%41+d&e=", json!({"scheme": "a", "value": "b", "c": "A d"})),
        ] {
            assert_eq!(parse(text, "test").unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", ":x", "1a:x", "a b:x"] {
            assert!(parse(bad, "test").is_err(), "{bad}");
        }
    }
}
