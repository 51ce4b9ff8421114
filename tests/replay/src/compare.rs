//! Compares one message with the captured one, and puts what was learnt into later requests.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use flux_protocol::message::{Flags, Kind, Message, Nodeid, text_payload};
use flux_protocol::payload::text;
use serde_json::Value;

use crate::rules::{Rules, covers};

/// Keys that differ in every run, whatever the service.
const ALWAYS_ANY: [&str; 2] = ["timestamp", "route"];
/// Keys that hold a user id; the captured instances belonged to root.
const USER_KEYS: [&str; 2] = ["userid", "owner"];
/// Brokers of the captured instances.
const CAPTURED_SIZE: u32 = 4;
/// Shorter strings are not looked for inside of others.
const SUBSTITUTE_MIN: usize = 4;

/// Compares messages; remembers the values of bound keys.
#[derive(Debug)]
pub(crate) struct Comparison {
    rules: Rules,
    bound: Bindings,
    owner: u32,
}

/// What stands in this run for the values that the broker chose in the captured one.
///
/// Clones are the same table, so that a test can add to it while a conversation is played: what
/// happened before the captured commands has ids as well.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    /// Captured value, as JSON text, to the value of this run.
    values: Rc<RefCell<BTreeMap<String, Value>>>,
}

impl Bindings {
    pub fn set(&self, captured: impl Into<Value>, now: impl Into<Value>) {
        self.values.borrow_mut().insert(captured.into().to_string(), now.into());
    }

    fn get(&self, captured: &Value) -> Option<Value> {
        self.values.borrow().get(&captured.to_string()).cloned()
    }
}

impl Comparison {
    pub(crate) fn new(rules: Rules) -> Comparison {
        let owner = nix::unistd::getuid().as_raw();
        Comparison { rules, bound: Bindings::default(), owner }
    }

    pub(crate) fn bindings(&self) -> Bindings {
        self.bound.clone()
    }

    pub(crate) fn is_unordered(&self, topic: &str) -> bool {
        self.rules.unordered.iter().any(|unordered| unordered == topic)
    }

    // --- requests ---

    /// A captured message of the client's, as it must be sent now.
    pub(crate) fn to_send(&self, captured: &Message) -> Message {
        let mut message = captured.clone();
        message.topic = self.substitute_text(&message.topic).into();
        if let (Kind::Request { nodeid, .. }, Some(rank)) = (&mut message.kind, self.rules.rank)
            && nodeid.0 < CAPTURED_SIZE
        {
            *nodeid = Nodeid(rank);
        }
        if let Some(mut value) = json(message.payload.as_ref()) {
            self.substitute(&mut value, &mut Vec::new());
            message.payload = Some(text_payload(&value.to_string()));
        }
        message
    }

    fn substitute(&self, value: &mut Value, path: &mut Vec<String>) {
        if covers(&self.rules.bind, path)
            && let Some(bound) = self.bound.get(value)
        {
            *value = bound;
            return;
        }
        match value {
            Value::String(text) => *text = self.substitute_text(text),
            Value::Object(object) => {
                for (key, value) in object {
                    path.push(key.clone());
                    self.substitute(value, path);
                    path.pop();
                }
            }
            Value::Array(array) => {
                for (at, value) in array.iter_mut().enumerate() {
                    path.push(at.to_string());
                    self.substitute(value, path);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    fn substitute_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (placeholder, value) in &self.rules.places {
            text = text.replace(placeholder, value);
        }
        for (captured, bound) in self.bound.values.borrow().iter() {
            let captured = captured.trim_matches('"');
            let bound = bound.as_str().map_or_else(|| bound.to_string(), str::to_owned);
            if captured.len() >= SUBSTITUTE_MIN {
                text = text.replace(captured, &bound);
            }
        }
        text
    }

    // --- answers ---

    /// What differs between the captured message and the one that came; nothing when they are
    /// equal. Values of bound keys are remembered when they are.
    pub(crate) fn compare(&mut self, captured: &Message, message: &Message) -> Vec<String> {
        let mut found = Vec::new();
        let mut learnt = BTreeMap::new();
        let mut differ = |what: &str, captured: String, now: String| {
            if captured != now {
                found.push(format!("{what}: captured {captured}, now {now}"));
            }
        };
        differ("errnum", captured.errnum().to_string(), message.errnum().to_string());
        let flags = |message: &Message| {
            let mut flags = message.flags;
            // Whether routes are left over in events depends on where the publisher was.
            flags.clear(Flags::ROUTE);
            format!("{flags:?}")
        };
        differ("flags", flags(captured), flags(message));
        let userid = match captured.cred.userid.0 {
            0 => self.owner,
            userid => userid,
        };
        differ("userid", userid.to_string(), message.cred.userid.to_string());
        let roles = |message: &Message| format!("{:?}", message.cred.rolemask);
        if self.rules.rank.is_none() {
            differ("rolemask", roles(captured), roles(message));
        }
        let (left, right) = (captured.payload.as_ref(), message.payload.as_ref());
        match (json(left), json(right)) {
            (Some(left), Some(right)) => {
                self.compare_json(&left, &right, &mut Vec::new(), &mut found, &mut learnt);
            }
            _ => differ("payload", self.shown(left), self.shown(right)),
        }
        if found.is_empty() {
            self.bound.values.borrow_mut().extend(learnt);
        }
        found
    }

    fn shown(&self, payload: Option<&Bytes>) -> String {
        match (payload, text(payload)) {
            (None, _) => "none".to_owned(),
            (_, Ok(text)) => format!("{:?}", self.normal_text(text)),
            (Some(bytes), _) => format!("{bytes:?}"),
        }
    }

    fn normal_text(&self, text: &str) -> String {
        let text = self.substitute_text(text);
        self.rules.text.as_ref().map_or(text.clone(), |normalize| normalize(&text))
    }

    fn compare_json(
        &self,
        captured: &Value,
        now: &Value,
        path: &mut Vec<String>,
        found: &mut Vec<String>,
        learnt: &mut BTreeMap<String, Value>,
    ) {
        if self.is_free(path) || is_trimmed(captured) {
            if kind(captured) != kind(now) {
                found.push(format!("{}: captured {captured}, now {now}", path.join(".")));
            }
            return;
        }
        if covers(&self.rules.bind, path) {
            let key = captured.to_string();
            let expected = self.bound.get(captured).or_else(|| learnt.get(&key).cloned());
            let equal =
                expected.as_ref().map_or(kind(captured) == kind(now), |expected| expected == now);
            if equal {
                learnt.insert(key, now.clone());
            } else {
                let expected = expected.unwrap_or_else(|| captured.clone());
                found.push(format!("{}: captured {expected}, now {now}", path.join(".")));
            }
            return;
        }
        match (captured, now) {
            (Value::Object(left), Value::Object(right)) => {
                let missing = left.keys().filter(|key| !right.contains_key(*key));
                let added = right.keys().filter(|key| !left.contains_key(*key));
                let keys = missing.map(|k| ("missing", k)).chain(added.map(|k| ("added", k)));
                for (what, key) in keys {
                    path.push(key.clone());
                    if !covers(&self.rules.optional, path) {
                        found.push(format!("{}: {what}", path.join(".")));
                    }
                    path.pop();
                }
                for (key, left) in left {
                    let Some(right) = right.get(key) else { continue };
                    path.push(key.clone());
                    if !covers(&self.rules.optional, path) {
                        self.compare_json(left, right, path, found, learnt);
                    }
                    path.pop();
                }
            }
            (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
                for (at, (left, right)) in left.iter().zip(right).enumerate() {
                    path.push(at.to_string());
                    self.compare_json(left, right, path, found, learnt);
                    path.pop();
                }
            }
            _ if self.equal(captured, now, path) => {}
            _ => found.push(format!("{}: captured {captured}, now {now}", path.join("."))),
        }
    }

    fn is_free(&self, path: &[String]) -> bool {
        covers(&self.rules.any, path)
            || path.last().is_some_and(|key| ALWAYS_ANY.contains(&key.as_str()))
    }

    fn equal(&self, captured: &Value, now: &Value, path: &[String]) -> bool {
        match (captured, now) {
            (Value::String(left), Value::String(right)) => {
                self.normal_text(left) == self.normal_text(right)
            }
            (Value::Number(left), Value::Number(right)) => {
                let user = path.last().is_some_and(|key| USER_KEYS.contains(&key.as_str()));
                left == right
                    || left.as_f64() == right.as_f64()
                    || (user
                        && left.as_u64() == Some(0)
                        && right.as_u64() == Some(self.owner.into()))
            }
            _ => captured == now,
        }
    }
}

/// Would `message` be the answer that `captured` was: same type, topic and matchtag?
pub(crate) fn same_place(captured: &Message, message: &Message) -> bool {
    captured.typemask() == message.typemask()
        && captured.topic == message.topic
        && captured.matchtag() == message.matchtag()
}

fn json(payload: Option<&Bytes>) -> Option<Value> {
    let text = text(payload).ok()?;
    matches!(text.trim_start().chars().next()?, '{' | '[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Long strings and lists were cut when the files were made.
fn is_trimmed(captured: &Value) -> bool {
    match captured {
        Value::String(text) => text.contains("<$TRIMMED"),
        Value::Array(array) => array.iter().any(|value| value.is_string() && is_trimmed(value)),
        _ => false,
    }
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}
