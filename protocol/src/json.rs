//! JSON text byte for byte as Flux's C side writes it.
//!
//! Blobs are named by their digest, so trees and eventlogs that mean the same must also read the
//! same: compact, reals with 17 digits, control characters escaped in upper case hex.

use crate::real::format_json;
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};
use std::io;

/// Compact JSON. Keys stay in the order in which `value` gives them.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    let mut bytes = Vec::with_capacity(128);
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Jansson))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

struct Jansson;

impl Formatter for Jansson {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(format_json(value).as_bytes())
    }

    fn write_char_escape<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::AsciiControl(byte) => write!(writer, "\\u{byte:04X}"),
            other => CompactFormatter.write_char_escape(writer, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_written_as_jansson_writes_it() {
        let value = json!({"a": [1, 1.5, 0.0, null, true], "b": "\u{1b}\n\"\\/é\u{7f}"});
        assert_eq!(
            to_string(&value).unwrap(),
            "{\"a\":[1,1.5,0.0,null,true],\"b\":\"\\u001B\\n\\\"\\\\/é\u{7f}\"}"
        );
    }
}
