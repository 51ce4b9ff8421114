//! Eventlogs, RFC 18: one JSON object and a newline per event, in the order of their happening.

use crate::json;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since the Unix epoch.
    #[serde(serialize_with = "as_real")]
    pub timestamp: f64,
    pub name: String,
    /// What else there is to say about the event; its shape depends on the name.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub context: Option<Context>,
}

/// A JSON object, kept as the text that it came as.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Context(Box<RawValue>);

#[derive(Debug, thiserror::Error)]
pub enum EventlogError {
    #[error("event {number}: {source}")]
    Event { number: usize, source: Box<EventlogError> },
    #[error("the eventlog does not end in a newline")]
    NoNewline,
    #[error("a newline inside of an event")]
    Newline,
    #[error("not an event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("an event needs a name")]
    NoName,
    #[error("an event cannot be at {0}")]
    Timestamp(f64),
    #[error("an event's context must be a JSON object")]
    NotAnObject,
}

/// Read a whole log. Text after the last newline is not looked at.
pub fn decode(log: &str) -> Result<Vec<Event>, EventlogError> {
    if !log.is_empty() && !log.contains('\n') {
        return Err(EventlogError::NoNewline);
    }
    events(log).collect()
}

/// The events of a log one by one. Text after the last newline is not looked at.
pub fn events(log: &str) -> impl Iterator<Item = Result<Event, EventlogError>> {
    let complete = log.rfind('\n').and_then(|end| log.get(..=end)).unwrap_or_default();
    complete.split_terminator('\n').enumerate().map(|(n, line)| {
        Event::decode(line).map_err(|e| EventlogError::Event { number: n + 1, source: Box::new(e) })
    })
}

/// The text of a whole log.
pub fn encode<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<String, EventlogError> {
    events.into_iter().map(Event::encode).collect()
}

// === impl Event ===

impl Event {
    /// An event without context at `timestamp` seconds since the epoch.
    pub fn new(timestamp: f64, name: impl Into<String>) -> Self {
        Self { timestamp, name: name.into(), context: None }
    }

    /// The event with `context`, which must serialize to a JSON object.
    pub fn with_context<T: Serialize + ?Sized>(self, context: &T) -> Result<Self, EventlogError> {
        Ok(Self { context: Some(Context::new(context)?), ..self })
    }

    /// Read one line; one newline at its end is allowed.
    pub fn decode(line: &str) -> Result<Self, EventlogError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        if line.contains('\n') {
            return Err(EventlogError::Newline);
        }
        Ok(serde_json::from_str(line)?)
    }

    /// One line with its newline.
    pub fn encode(&self) -> Result<String, EventlogError> {
        if self.name.is_empty() {
            return Err(EventlogError::NoName);
        }
        if !self.timestamp.is_finite() || self.timestamp < 0.0 {
            return Err(EventlogError::Timestamp(self.timestamp));
        }
        Ok(json::to_string(self)? + "\n")
    }

    /// The context as a type of the caller's; an event without context reads as `{}`.
    pub fn context_as<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.context.as_ref().map_or("{}", Context::get))
    }
}

fn as_real<S: Serializer>(timestamp: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*timestamp)
}

/// An explicit null is not the same as no context.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Context>, D::Error> {
    Context::deserialize(deserializer).map(Some)
}

// === impl Context ===

impl Context {
    /// The JSON text of `value`, which must be an object.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, EventlogError> {
        let raw = RawValue::from_string(json::to_string(value)?)?;
        Self::from_raw(raw).ok_or(EventlogError::NotAnObject)
    }

    /// The JSON text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The members by name, each as its JSON text.
    pub fn members(&self) -> serde_json::Result<BTreeMap<String, &RawValue>> {
        serde_json::from_str(self.get())
    }

    fn from_raw(raw: Box<RawValue>) -> Option<Self> {
        // An eventlog is split at newlines, so blanks between tokens must not be any.
        if !raw.get().starts_with('{') {
            return None;
        }
        if raw.get().contains('\n') {
            let compact: serde_json::Value = serde_json::from_str(raw.get()).ok()?;
            return Some(Self(RawValue::from_string(json::to_string(&compact).ok()?).ok()?));
        }
        Some(Self(raw))
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_raw(raw).ok_or_else(|| D::Error::custom(EventlogError::NotAnObject))
    }
}
