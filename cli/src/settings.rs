//! `KEY=VALUE` arguments as one JSON object.

use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// `a.b=1 c=x` as `{"a":{"b":1},"c":"x"}`: values are JSON where they can be, else text.
pub(crate) fn object(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut object = Map::new();
    for pair in pairs {
        let (path, value) = pair.split_once('=').ok_or_else(|| {
            Failure::new(format_args!("ERROR: Missing required value for key {pair}"))
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        insert(&mut object, path, value);
    }
    Ok(object)
}

fn insert(into: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((key, rest)) = path.split_once('.') else {
        into.insert(path.to_owned(), value);
        return;
    };
    let below = into.entry(key).or_insert(Value::Null);
    if !below.is_object() {
        *below = json!({});
    }
    if let Value::Object(below) = below {
        insert(below, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_tables_by_the_dots_in_their_names() {
        let read = |pairs: &[&str]| {
            let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
            object(&pairs).ok().map(Value::Object)
        };
        assert_eq!(read(&["a.b=1", "a.c=x y"]), Some(json!({"a": {"b": 1, "c": "x y"}})));
        assert_eq!(read(&["l=[1,2]", "t=true"]), Some(json!({"l": [1, 2], "t": true})));
        assert_eq!(read(&["a=1", "a.b=2"]), Some(json!({"a": {"b": 2}})));
        assert_eq!(read(&["novalue"]), None);
    }
}
