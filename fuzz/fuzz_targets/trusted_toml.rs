#![no_main]

use flux_sign::toml::{self, Value};

// The files that the IMP trusts: what its own parser takes means the same as TOML.
libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(table) = toml::parse(text) else { return };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.parse::<toml_crate::Table>() {
        Ok(expected) => assert_same(&Value::Table(table), &toml_crate::Value::Table(expected)),
        // Tables that dotted keys have made may be added to, as those of another file may.
        Err(error) => assert!(error.message().contains("duplicate key"), "{error}"),
    }
});

fn assert_same(ours: &Value, expected: &toml_crate::Value) {
    match (ours, expected) {
        (Value::Table(ours), toml_crate::Value::Table(expected)) => {
            assert!(ours.keys().eq(expected.keys()));
            ours.values().zip(expected.values()).for_each(|(a, b)| assert_same(a, b));
        }
        (Value::Array(ours), toml_crate::Value::Array(expected)) => {
            assert_eq!(ours.len(), expected.len());
            ours.iter().zip(expected).for_each(|(a, b)| assert_same(a, b));
        }
        (Value::Str(ours), toml_crate::Value::String(expected)) => assert_eq!(ours, expected),
        (Value::Int(ours), toml_crate::Value::Integer(expected)) => assert_eq!(ours, expected),
        (Value::Bool(ours), toml_crate::Value::Boolean(expected)) => assert_eq!(ours, expected),
        (ours, expected) => panic!("{ours:?} is not {expected:?}"),
    }
}
