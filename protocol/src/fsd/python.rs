//! Durations as the Python commands of Flux read and write them.

use crate::real::format_g;

/// Why a Python command refuses a duration, with the text that Python gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PythonFsdError {
    #[error("invalid Flux standard duration")]
    Invalid,
    /// The text of Python's OverflowError.
    #[error("{0}")]
    Overflow(String),
}

/// Seconds from text. Numbers are read as Python's `float` reads them; those with a unit other than
/// seconds are rounded to microseconds.
pub fn python_parse(text: &str) -> Result<f64, PythonFsdError> {
    if ["inf", "infinity", "INF", "INFINITY"].contains(&text) {
        return Ok(f64::INFINITY);
    }
    let (number, unit) = split_unit(text);
    let value = python_float(number).ok_or(PythonFsdError::Invalid)?;
    let seconds = match unit {
        "m" => timedelta_seconds(value, 60.0)?,
        "h" => timedelta_seconds(value, 3600.0)?,
        "d" => timedelta_seconds(value, 86400.0)?,
        "ms" => timedelta_seconds(value, 0.001)?,
        _ => value,
    };
    if seconds >= 0.0 && seconds.is_finite() { Ok(seconds) } else { Err(PythonFsdError::Invalid) }
}

/// Text for a number of seconds; anything below a millisecond is `0s`.
pub fn python_format(seconds: f64) -> String {
    if seconds.is_infinite() {
        return "inf".into();
    }
    match seconds {
        s if s < 1.0e-3 => "0s".into(),
        s if s < 10.0 => format!("{s:.3}s"),
        s if s < 60.0 => format_g(s, 4) + "s",
        s if s < 3600.0 => format_g(s / 60.0, 4) + "m",
        s if s < 86400.0 => format_g(s / 3600.0, 4) + "h",
        s => format_g(s / 86400.0, 4) + "d",
    }
}

/// The number and its unit; one newline may follow the unit.
fn split_unit(text: &str) -> (&str, &str) {
    let line = text.strip_suffix('\n').unwrap_or(text);
    for unit in ["ms", "s", "m", "h", "d"] {
        if let Some(number) = line.strip_suffix(unit)
            && !number.contains('\n')
        {
            return (number, unit);
        }
    }
    (text, "s")
}

/// Python's `float(str)`: blanks around it, digits of any script, single underscores between digits.
fn python_float(text: &str) -> Option<f64> {
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c));
    let mut plain = String::with_capacity(trimmed.len());
    let mut after_digit = false;
    let mut chars = trimmed.chars().map(|c| ascii_digit(c).unwrap_or(c)).peekable();
    while let Some(c) = chars.next() {
        if c == '_' {
            let before_digit = chars.peek().is_some_and(char::is_ascii_digit);
            if !(after_digit && before_digit) {
                return None;
            }
        } else {
            plain.push(c);
        }
        after_digit = c.is_ascii_digit();
    }
    plain.parse().ok()
}

/// Zeros of the decimal digits in Unicode's blocks of ten.
#[rustfmt::skip]
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
    0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50,
    0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0,
    0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0,
    0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce,
    0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

fn ascii_digit(c: char) -> Option<char> {
    let code = u32::from(c);
    let before = ZEROS.partition_point(|&zero| zero <= code).checked_sub(1)?;
    char::from_digit(code - ZEROS.get(before)?, 10)
}

/// `timedelta(...).total_seconds()` of `value` units of `unit` seconds.
fn timedelta_seconds(value: f64, unit: f64) -> Result<f64, PythonFsdError> {
    if value.is_nan() {
        return Err(PythonFsdError::Invalid);
    }
    if value.is_infinite() {
        let text = "cannot convert float infinity to integer";
        return Err(PythonFsdError::Overflow(text.into()));
    }
    let seconds = value * unit;
    let days = (seconds / 86400.0).floor();
    if days.abs() > f64::from(i32::MAX) {
        let text = "Python int too large to convert to C int";
        return Err(PythonFsdError::Overflow(text.into()));
    }
    if days.abs() > 999_999_999.0 {
        let text = format!("days={days:.0}; must have magnitude <= 999999999");
        return Err(PythonFsdError::Overflow(text));
    }
    Ok((seconds * 1e6).round_ties_even() / 1e6)
}
