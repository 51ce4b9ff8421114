//! Values inside JSON objects, by dotted paths: how events and plugins name what they change.

use serde_json::{Map, Value};

/// Set the value at a path, making the objects on the way. Where something that is no object is
/// in the way, nothing changes.
pub(crate) fn set(object: &mut Value, path: &str, value: Value) {
    if let Some((parent, name)) = parent(object, path) {
        parent.insert(name.to_owned(), value);
    }
}

/// Set the value at a path, or with null remove what is there.
pub(crate) fn set_or_remove(object: &mut Value, path: &str, value: Value) {
    if let Some((parent, name)) = parent(object, path) {
        if value.is_null() {
            parent.shift_remove(name);
        } else {
            parent.insert(name.to_owned(), value);
        }
    }
}

/// Update annotations (RFC 27): objects are joined, null removes, and so does an object that is
/// left empty.
pub(crate) fn annotate(annotations: &mut Value, update: &Value) {
    let (Value::Object(there), Value::Object(new)) = (&mut *annotations, update) else {
        *annotations = update.clone();
        return;
    };
    for (key, value) in new {
        if value.is_null() {
            there.shift_remove(key);
            continue;
        }
        let slot = there.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
        annotate(slot, value);
        if slot.as_object().is_some_and(Map::is_empty) {
            there.shift_remove(key);
        }
    }
}

/// The object in which the last name of a path stands, and that name.
fn parent<'a, 'p>(
    object: &'a mut Value,
    path: &'p str,
) -> Option<(&'a mut Map<String, Value>, &'p str)> {
    let here = object.as_object_mut()?;
    match path.split_once('.') {
        None => Some((here, path)),
        Some((name, rest)) => {
            parent(here.entry(name).or_insert_with(|| Value::Object(Map::new())), rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_made_on_the_way_and_what_is_no_object_stays() {
        let mut value = json!({"a": 1});
        set(&mut value, "b.c", json!(2));
        set(&mut value, "a.x", json!(3));
        assert_eq!(value, json!({"a": 1, "b": {"c": 2}}));
        set(&mut value, "b.c", Value::Null);
        assert_eq!(value, json!({"a": 1, "b": {"c": null}}));
        set_or_remove(&mut value, "b.c", Value::Null);
        assert_eq!(value, json!({"a": 1, "b": {}}));
    }

    #[test]
    fn annotations_are_joined_and_null_removes() {
        let mut annotations = json!({"sched": {"queue": "a", "t": 1}, "user": {"x": {"y": 1}}});
        annotate(&mut annotations, &json!({"sched": {"t": null}, "user": {"x": {"y": null}}}));
        assert_eq!(annotations, json!({"sched": {"queue": "a"}}));
    }
}
