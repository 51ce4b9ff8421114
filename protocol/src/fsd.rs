//! Durations in Flux Standard Duration, RFC 23: `30s`, `1.5h`, `100ms`, `infinity`.
//!
//! Flux has two implementations that differ in the margins: that of its C library, which reads
//! configuration and formats messages, and that of its Python commands, which reads options such as
//! `--time-limit` and formats columns such as `{runtime!F}`. Both are here: [`parse`]/[`format`] and
//! [`python_parse`]/[`python_format`].

mod python;
mod strtod;

pub use python::{PythonFsdError, python_format, python_parse};

use crate::real::format_g;

/// A string or number that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FsdError {
    #[error("invalid Flux standard duration '{0}'")]
    Text(String),
    #[error("a duration cannot be {0}")]
    Value(String),
}

/// Seconds from text: a number as C reads it and one of `ms s m h d`, seconds without a unit.
/// Infinity takes no unit.
pub fn parse(text: &str) -> Result<f64, FsdError> {
    let invalid = || FsdError::Text(text.to_owned());
    let (value, unit) = strtod::strtod(text);
    let scale = match unit {
        "" => 1.0,
        _ if value.is_infinite() => return Err(invalid()),
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(invalid()),
    };
    // Not `value < 0.0`: that would let NaN pass.
    if value >= 0.0 { Ok(value * scale) } else { Err(invalid()) }
}

/// Text for a number of seconds with six significant digits, in the largest unit of which it has at
/// least one (milliseconds only below 0.1 s).
pub fn format(seconds: f64) -> Result<String, FsdError> {
    format_with_precision(seconds, 6)
}

/// As [`format`] with `precision` significant digits.
pub fn format_with_precision(seconds: f64, precision: usize) -> Result<String, FsdError> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(FsdError::Value(seconds.to_string()));
    }
    if seconds.is_infinite() {
        return Ok("infinity".into());
    }
    let (value, unit) = match seconds {
        s if s < 0.1 && s != 0.0 => (s * 1000.0, "ms"),
        s if s < 60.0 => (s, "s"),
        s if s < 3600.0 => (s / 60.0, "m"),
        s if s < 86400.0 => (s / 3600.0, "h"),
        s => (s / 86400.0, "d"),
    };
    Ok(format_g(value, precision) + unit)
}
