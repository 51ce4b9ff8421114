#![no_main]

#[allow(dead_code, reason = "the IMP's own file")]
#[path = "../../imp/src/json.rs"]
mod json;

use json::Value;

// What the caller writes to the IMP: what its own parser takes means the same as JSON.
libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(value) = json::parse(text) else { return };
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(expected) => assert_same(&value, &expected),
        // Numbers are passed over, however large.
        Err(error) => assert!(error.to_string().starts_with("number out of range"), "{error}"),
    }
});

fn assert_same(ours: &Value, expected: &serde_json::Value) {
    match (ours, expected) {
        (Value::Object(ours), serde_json::Value::Object(expected)) => {
            assert_eq!(ours.len(), expected.len());
            for (key, value) in ours {
                assert_same(value, &expected[key]);
            }
        }
        (Value::Array(ours), serde_json::Value::Array(expected)) => {
            assert_eq!(ours.len(), expected.len());
            ours.iter().zip(expected).for_each(|(a, b)| assert_same(a, b));
        }
        (Value::Str(ours), serde_json::Value::String(expected)) => assert_eq!(ours, expected),
        (Value::Plain, expected) => {
            assert!(expected.is_number() || expected.is_boolean() || expected.is_null());
        }
        (ours, expected) => panic!("{ours:?} is not {expected}"),
    }
}
