//! JSON as text: taken apart and laid out anew with the order of its keys and the digits of its
//! numbers as they came.

use std::fmt;

use flux_client::{Client, Request, RpcError};
use flux_protocol::payload;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The response to a request, as it came.
pub(crate) async fn request(flux: &Client, request: Request) -> Result<Box<RawValue>, RpcError> {
    let message = flux.rpc_raw(request).await?;
    let text = payload::text(message.payload.as_ref())?;
    Ok(RawValue::from_string(text.to_owned()).map_err(payload::PayloadError::Json)?)
}

/// The members of an object, in order.
#[derive(Debug)]
pub(crate) struct Members<'a>(pub Vec<(String, &'a RawValue)>);

/// Anything, with one level taken apart.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    Object(Vec<(String, &'a RawValue)>),
    Array(Vec<&'a RawValue>),
    /// A string, number, boolean or null, as its JSON text.
    Scalar(&'a str),
}

/// Take one level apart.
pub(crate) fn node(raw: &RawValue) -> Node<'_> {
    let text = raw.get();
    let taken_apart = match text.as_bytes().first() {
        Some(b'{') => {
            serde_json::from_str::<Members<'_>>(text).map(|Members(all)| Node::Object(all))
        }
        Some(b'[') => serde_json::from_str(text).map(Node::Array),
        _ => Ok(Node::Scalar(text)),
    };
    taken_apart.unwrap_or(Node::Scalar(text))
}

/// The text without blanks between tokens.
pub(crate) fn compact(raw: &RawValue) -> String {
    let mut text = String::with_capacity(raw.get().len());
    write(raw, Layout::Compact, 0, &mut text);
    text
}

/// One line with a blank behind each comma and colon.
pub(crate) fn spaced(raw: &RawValue) -> String {
    let mut text = String::with_capacity(raw.get().len() * 5 / 4);
    write(raw, Layout::Spaced, 0, &mut text);
    text
}

/// One member or element per line, each level indented by `indent` blanks.
pub(crate) fn pretty(raw: &RawValue, indent: usize) -> String {
    let mut text = String::new();
    write(raw, Layout::Indented(indent), 0, &mut text);
    text
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Compact,
    Spaced,
    /// By so many blanks per level.
    Indented(usize),
}

fn write(raw: &RawValue, layout: Layout, level: usize, out: &mut String) {
    match node(raw) {
        Node::Scalar(text) => out.push_str(text),
        Node::Object(members) if members.is_empty() => out.push_str("{}"),
        Node::Array(elements) if elements.is_empty() => out.push_str("[]"),
        Node::Object(members) => {
            out.push('{');
            for (n, (key, value)) in members.iter().enumerate() {
                begin_item(n, layout, level, out);
                out.push_str(&quote(key));
                out.push_str(if layout == Layout::Compact { ":" } else { ": " });
                write(value, layout, level + 1, out);
            }
            end_items(layout, level, out);
            out.push('}');
        }
        Node::Array(elements) => {
            out.push('[');
            for (n, value) in elements.iter().enumerate() {
                begin_item(n, layout, level, out);
                write(value, layout, level + 1, out);
            }
            end_items(layout, level, out);
            out.push(']');
        }
    }
}

fn begin_item(n: usize, layout: Layout, level: usize, out: &mut String) {
    if n > 0 {
        out.push(',');
    }
    match layout {
        Layout::Spaced if n > 0 => out.push(' '),
        Layout::Compact | Layout::Spaced => {}
        Layout::Indented(indent) => {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * (level + 1)));
        }
    }
}

fn end_items(layout: Layout, level: usize, out: &mut String) {
    if let Layout::Indented(indent) = layout {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent * level));
    }
}

/// A JSON string.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What a string holds, or nothing for anything else.
pub(crate) fn unquote(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Follow a path of member names.
pub(crate) fn find<'a>(raw: &'a RawValue, path: &str) -> Option<&'a RawValue> {
    path.split('.').try_fold(raw, |raw, name| match node(raw) {
        Node::Object(members) => {
            members.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
        }
        _ => None,
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn order_and_digits_are_kept() {
        let raw = raw(r#"{"z": 1.10, "a": [ 1,"x\n" ], "e": {}}"#);
        assert_eq!(compact(&raw), r#"{"z":1.10,"a":[1,"x\n"],"e":{}}"#);
        assert_eq!(
            pretty(&raw, 1),
            "{\n \"z\": 1.10,\n \"a\": [\n  1,\n  \"x\\n\"\n ],\n \"e\": {}\n}"
        );
    }

    #[test]
    fn paths_lead_through_objects() {
        let raw = raw(r#"{"a":{"b":{"c":"d"}}}"#);
        assert_eq!(find(&raw, "a.b.c").and_then(unquote).as_deref(), Some("d"));
        assert!(find(&raw, "a.c").is_none());
        assert!(find(&raw, "a.b.c.d").is_none());
    }
}
