//! Keys and values (RFC 38): `key NUL type value NUL`, one after the other, without nesting.
//!
//! ```text
//! version\0i1\0mechanism\0snone\0userid\0i1000\0
//! ```

use std::collections::BTreeSet;

/// A value; times and floats are known and passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Int(i64),
    Str(&'a [u8]),
    Bool(bool),
    /// `d` or `t`, as written.
    Other(&'a [u8]),
}

/// It is no list of keys and values, or it names a key twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Callers see to it that there is no NUL in keys and values.
pub fn encode(pairs: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        out.extend_from_slice(key.as_bytes());
        out.push(0);
        match value {
            Value::Int(n) => out.extend_from_slice(format!("i{n}").as_bytes()),
            Value::Bool(b) => out.extend_from_slice(format!("b{b}").as_bytes()),
            Value::Str(text) => {
                out.push(b's');
                out.extend_from_slice(text);
            }
            Value::Other(text) => out.extend_from_slice(text),
        }
        out.push(0);
    }
    out
}

pub fn decode(bytes: &[u8]) -> Result<Vec<(&str, Value<'_>)>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = bytes.strip_suffix(&[0]).ok_or(Malformed)?;
    let mut words = bytes.split(|byte| *byte == 0);
    let (mut pairs, mut seen) = (Vec::new(), BTreeSet::new());
    while let Some(key) = words.next() {
        let key = std::str::from_utf8(key).map_err(|_| Malformed)?;
        if key.is_empty() || !seen.insert(key) {
            return Err(Malformed);
        }
        pairs.push((key, value(words.next().ok_or(Malformed)?)?));
    }
    Ok(pairs)
}

fn value(word: &[u8]) -> Result<Value<'_>, Malformed> {
    let (kind, text) = word.split_first().ok_or(Malformed)?;
    match kind {
        b's' => Ok(Value::Str(text)),
        b'i' => integer(text).map(Value::Int).ok_or(Malformed),
        b'b' if text == b"true" => Ok(Value::Bool(true)),
        b'b' if text == b"false" => Ok(Value::Bool(false)),
        b'd' | b't' if std::str::from_utf8(text).is_ok() => Ok(Value::Other(word)),
        _ => Err(Malformed),
    }
}

/// As it is written, and no other way: no sign but minus, no leading zero.
fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_vectors_of_the_rfc_decode() {
        let cases: [(&[u8], &str, Value<'_>); 7] = [
            (b"PATH\0s/bin:/usr/bin\0", "PATH", Value::Str(b"/bin:/usr/bin")),
            (b"EMPTY_STRING\0s\0", "EMPTY_STRING", Value::Str(b"")),
            (b"INT_MINUS\0i-42\0", "INT_MINUS", Value::Int(-42)),
            (b"INT64_MAX\0i9223372036854775807\0", "INT64_MAX", Value::Int(i64::MAX)),
            (b"INT64_MIN\0i-9223372036854775808\0", "INT64_MIN", Value::Int(i64::MIN)),
            (b"FALSE\0bfalse\0", "FALSE", Value::Bool(false)),
            (b"T\0t2023-08-18T14:59:45Z\0", "T", Value::Other(b"t2023-08-18T14:59:45Z")),
        ];
        for (bytes, key, value) in cases {
            assert_eq!(decode(bytes), Ok(vec![(key, value)]));
            assert_eq!(encode(&[(key, value)]), bytes);
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let cases: [&[u8]; 9] = [
            b"a",
            b"a\0",
            b"a\0s",
            b"\0s1\0",
            b"a\0\0",
            b"a\0x1\0",
            b"a\0i\0",
            b"a\0bTrue\0",
            b"a\0s1\0a\0s2\0",
        ];
        for case in cases {
            assert_eq!(decode(case), Err(Malformed), "{}", case.escape_ascii());
        }
        for number in ["+1", "01", "1 ", "-0", "9223372036854775808", "0x1"] {
            assert_eq!(decode(format!("a\0i{number}\0").as_bytes()), Err(Malformed), "{number}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(number: i64, text in "[^\0]{0,20}") {
            let pairs = [("n", Value::Int(number)), ("s", Value::Str(text.as_bytes()))];
            let bytes = encode(&pairs);
            prop_assert_eq!(decode(&bytes), Ok(pairs.to_vec()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
