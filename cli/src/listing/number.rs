//! Numbers laid out as Python's format specifications say.

use flux_protocol::real::format_g;

use super::SpecError;
use super::spec::Spec;

/// Digits of a number without its sign, in the notation that `spec` asks for.
pub(super) fn int_digits(number: i64, spec: &Spec) -> Result<String, SpecError> {
    let magnitude = number.unsigned_abs();
    let unknown = |kind| Err(SpecError::Code(kind, "int"));
    if let Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') = spec.kind {
        return float_digits(magnitude as f64, spec);
    }
    if spec.precision.is_some() {
        return Err(SpecError::Precision);
    }
    let prefix = |prefix: &str, digits: String| {
        if spec.alternate { format!("{prefix}{digits}") } else { digits }
    };
    Ok(match spec.kind {
        None | Some('d' | 'n') => group(&magnitude.to_string(), spec.grouping, 3),
        Some('b') => prefix("0b", format!("{magnitude:b}")),
        Some('o') => prefix("0o", format!("{magnitude:o}")),
        Some('x') => prefix("0x", format!("{magnitude:x}")),
        Some('X') => prefix("0X", format!("{magnitude:X}")),
        Some('c') => match u32::try_from(magnitude).ok().and_then(char::from_u32) {
            Some(c) => c.to_string(),
            None => return unknown('c'),
        },
        Some(kind) => return unknown(kind),
    })
}

/// Digits of a number that is not negative.
pub(super) fn float_digits(number: f64, spec: &Spec) -> Result<String, SpecError> {
    if !number.is_finite() {
        return Ok(if number.is_nan() { "nan" } else { "inf" }.to_owned());
    }
    let precision = spec.precision.unwrap_or(6);
    let text = match spec.kind {
        None => match spec.precision {
            None => float_text(number),
            Some(precision) => short(number, precision.max(1)),
        },
        Some('f' | 'F') => format!("{number:.precision$}"),
        Some('e') => exponential(number, precision),
        Some('E') => exponential(number, precision).to_uppercase(),
        Some('g' | 'n') => format_g(number, precision),
        Some('G') => format_g(number, precision).to_uppercase(),
        Some('%') => format!("{:.precision$}%", number * 100.0),
        Some(kind) => return Err(SpecError::Code(kind, "float")),
    };
    Ok(group(&text, spec.grouping, 3))
}

/// A float as Python shows it: the shortest text that means the same, recognizable as a float.
pub(super) fn float_text(number: f64) -> String {
    if !number.is_finite() {
        let text = if number.is_nan() { "nan" } else { "inf" };
        return if number < 0.0 { format!("-{text}") } else { text.to_owned() };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) || number == 0.0 {
        let text = format!("{number}");
        return if text.contains('.') { text } else { text + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// At most `precision` significant digits, one of them behind the point.
fn short(number: f64, precision: usize) -> String {
    let scientific = format!("{number:.*e}", precision - 1);
    let exponent = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok());
    let exponent: i64 = exponent.unwrap_or_default();
    let last = i64::try_from(precision).unwrap_or(i64::MAX) - 2;
    if number != 0.0 && exponent > last && exponent >= 0 {
        let text = exponential(number, precision - 1);
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        let digits = if digits.contains('.') {
            digits.trim_end_matches('0').trim_end_matches('.')
        } else {
            digits
        };
        return format!("{digits}e{exponent}");
    }
    let text = format_g(number, precision);
    if text.contains(['.', 'e']) { text } else { text + ".0" }
}

/// Two digits of exponent at least, with its sign.
fn exponential(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// Put a separator between groups of digits in front of the point.
fn group(text: &str, separator: Option<char>, size: usize) -> String {
    let Some(separator) = separator else { return text.to_owned() };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(size) {
            out.push(separator);
        }
        out.push(digit);
    }
    out + rest
}
