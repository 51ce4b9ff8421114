//! Every row of tests/vectors/tables/fsd.json: the C library's answers and the Python helper's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/table.rs"]
mod table;

use flux_protocol::fsd;
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn every_captured_row_gives_the_real_answer() {
    table::check("fsd.json", |row| match row.op() {
        "parse" => {
            let input = row.input().as_str().unwrap();
            c_answer(row, fsd::parse(input).map(number))?;
            let python = match fsd::python_parse(input) {
                Ok(seconds) => number(seconds),
                Err(e) => {
                    let error = match e {
                        fsd::PythonFsdError::Invalid => "ValueError",
                        fsd::PythonFsdError::Overflow(_) => "OverflowError",
                    };
                    json!({"error": error, "errmsg": e.to_string()})
                }
            };
            table::same("python_parse_fsd", &python, row.get("python_parse_fsd").unwrap())
        }
        "format" => {
            let seconds = seconds(row.input());
            c_answer(row, fsd::format(seconds).map(Value::from))?;
            if row.out().is_some() {
                let short = fsd::format_with_precision(seconds, 2).unwrap();
                table::same("precision2", &json!(short), row.get("precision2").unwrap())?;
            }
            let python = json!(fsd::python_format(seconds));
            table::same("python_fsd", &python, row.get("python_fsd").unwrap())
        }
        op => Err(format!("unknown op {op}")),
    });
}

fn c_answer(row: &table::Row, ours: Result<Value, fsd::FsdError>) -> Result<(), String> {
    match (ours, row.out()) {
        (Ok(ours), Some(real)) => table::same("out", &ours, real),
        (Err(_), None) => table::same("errno", &json!(22), row.get("errno").unwrap()),
        (ours, real) => Err(format!("ours {ours:?}, real {real:?}")),
    }
}

/// The captures write numbers that JSON cannot hold as strings.
fn number(value: f64) -> Value {
    if value.is_infinite() { json!("inf") } else { json!(value) }
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

proptest! {
    #[test]
    fn formatting_keeps_six_digits(seconds in 0.0..1e9f64) {
        let again = fsd::parse(&fsd::format(seconds).unwrap()).unwrap();
        prop_assert!((again - seconds).abs() <= seconds * 1e-5, "{} {}", again, seconds);
        let python = fsd::python_parse(&fsd::python_format(seconds)).unwrap();
        prop_assert!((python - seconds).abs() <= seconds * 1e-3 + 1e-3, "{} {}", python, seconds);
    }

    #[test]
    fn durations_are_never_negative_or_nan(text in "[+-]?(0x)?[0-9a-f.]{0,9}([ep][+-]?[0-9]{0,11})?(ms|s|m|h|d)?|\\PC*|[0-9_\n ]{0,9}m?\n?") {
        if let Ok(seconds) = fsd::parse(&text) {
            prop_assert!(seconds >= 0.0);
        }
        if let Ok(seconds) = fsd::python_parse(&text) {
            prop_assert!(seconds >= 0.0);
        }
    }
}
