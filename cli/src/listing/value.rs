//! Values of fields, and conversions of them.

use flux_protocol::fluid::JobId;
use flux_protocol::fsd;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::SpecError;
use super::number::float_text;

/// The value of a field of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// There is none: an empty text whatever the specification.
    None,
    Text(String),
    Int(i64),
    /// A number; seconds since 1970 for times, seconds for durations.
    Float(f64),
    Bool(bool),
    /// Shown in F58 without a specification.
    Id(JobId),
    /// Seconds since 1970, after `!d`.
    Time(f64),
}

/// What stands behind `!`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conversion {
    /// `d`
    Time,
    /// `D`
    Iso,
    /// `F`
    Duration,
    /// `H`
    Hours,
    /// `P`
    Percent,
    /// `s`
    Text,
    /// `r` and `a`
    Quoted,
}

/// Texts of values that say nothing.
pub(super) fn is_blank(text: &str) -> bool {
    matches!(text, "" | "0s" | "0.0" | "0:00:00" | "1970-01-01T00:00:00")
        || local_time(0.0, "%FT%T").is_ok_and(|epoch| epoch == text)
}

/// Local time by a strftime(3) format.
pub(crate) fn local_time(timestamp: f64, format: &str) -> Result<String, SpecError> {
    // Microseconds are what a double since 1970 is good for.
    let time = Timestamp::from_microsecond((timestamp * 1e6).round() as i64)
        .map_err(|_| SpecError::Time(timestamp.to_string()))?;
    jiff::fmt::strtime::format(format, &time.to_zoned(TimeZone::system()))
        .map_err(|e| SpecError::TimeFormat(e.to_string()))
}

// === impl Value ===

impl Value {
    /// As a scheduler or user put it into JSON; objects and lists are shown as JSON.
    pub(crate) fn from_json(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(flag) => Value::Bool(*flag),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => Value::Int(number),
                None => Value::Float(number.as_f64().unwrap_or_default()),
            },
            serde_json::Value::Object(members) if members.is_empty() => Value::None,
            other => Value::Text(python_json(other)),
        }
    }

    /// The text without any specification.
    pub(crate) fn text(&self) -> String {
        match self {
            Value::None => String::new(),
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => float_text(*number),
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            Value::Id(id) => crate::jobid::f58(*id),
            Value::Time(seconds) if *seconds == 0.0 => String::new(),
            Value::Time(seconds) => local_time(*seconds, "%FT%T").unwrap_or_default(),
        }
    }

    /// Nothing or an empty text.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Value::None => true,
            Value::Text(text) => text.is_empty(),
            _ => false,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Value::Int(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
            Value::Id(id) => Some(id.0 as f64),
            Value::None | Value::Text(_) | Value::Time(_) => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Float(number)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::None, Into::into)
    }
}

// === impl Conversion ===

impl Conversion {
    pub(super) fn of(letter: char) -> Result<Conversion, SpecError> {
        Ok(match letter {
            'd' => Conversion::Time,
            'D' => Conversion::Iso,
            'F' => Conversion::Duration,
            'H' => Conversion::Hours,
            'P' => Conversion::Percent,
            's' => Conversion::Text,
            'r' | 'a' => Conversion::Quoted,
            other => return Err(SpecError::Conversion(other)),
        })
    }

    pub(super) fn apply(self, value: Value) -> Result<Value, SpecError> {
        match self {
            Conversion::Text => return Ok(Value::Text(value.text())),
            Conversion::Quoted => {
                return Ok(Value::Text(match value {
                    Value::Text(text) => quoted(&text),
                    other => other.text(),
                }));
            }
            _ => {}
        }
        let Some(number) = value.number() else {
            return match (value.is_empty(), self) {
                (true, Conversion::Time) => Ok(Value::Time(0.0)),
                (true, _) => Ok(Value::Text(String::new())),
                (false, _) => Err(SpecError::NoNumber(value.text())),
            };
        };
        Ok(match self {
            Conversion::Time => Value::Time(number),
            Conversion::Iso if number == 0.0 => Value::Text(String::new()),
            Conversion::Iso => Value::Text(local_time(number.trunc(), "%FT%T")?),
            Conversion::Duration => Value::Text(fsd::python_format(number)),
            Conversion::Hours => Value::Text(hours(number)),
            _ => Value::Text(percent(number)),
        })
    }
}

/// `H:MM:SS`, days in front. What is not nothing has at least a second.
fn hours(seconds: f64) -> String {
    let seconds = if 0.0 < seconds && seconds < 1.0 { 1.0 } else { seconds.round_ties_even() };
    let seconds = seconds as i64;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let time = format!("{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => time,
        1 | -1 => format!("{days} day, {time}"),
        _ => format!("{days} days, {time}"),
    }
}

fn percent(number: f64) -> String {
    let percent = number * 100.0;
    if 0.0 < percent && percent < 1.0 {
        format!("{percent:.2}%")
    } else {
        format!("{}%", flux_protocol::real::format_g(percent, 3))
    }
}

/// As Python shows a string in its own notation.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// JSON with a blank behind commas and colons.
fn python_json(json: &serde_json::Value) -> String {
    match serde_json::value::RawValue::from_string(json.to_string()) {
        Ok(raw) => crate::json_text::spaced(&raw),
        Err(_) => json.to_string(),
    }
}
