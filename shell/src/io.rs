//! Data of RFC 24 events: text where it is UTF-8, else base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flux_protocol::rpc::rexec::Io;

/// A piece of a stream; `None` is its end.
pub(crate) fn encode(stream: &str, rank: &str, data: Option<&[u8]>) -> Io {
    let (data, encoding, eof) = match data {
        None => (None, None, true),
        // C strings end at a NUL.
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => (Some(text.to_owned()), None, false),
            _ => (Some(STANDARD.encode(bytes)), Some("base64".to_owned()), false),
        },
    };
    Io { stream: stream.to_owned(), rank: rank.to_owned(), data, encoding, eof }
}

/// The bytes of a piece; `None` where it has none or they can't be decoded.
pub(crate) fn decode(io: &Io) -> Option<Vec<u8>> {
    let data = io.data.as_ref()?;
    match io.encoding.as_deref() {
        Some("base64") => STANDARD.decode(data).ok(),
        _ => Some(data.clone().into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_stays_text_and_the_rest_becomes_base64() {
        let json =
            |data: Option<&[u8]>| serde_json::to_string(&encode("stdout", "0", data)).unwrap();
        assert_eq!(json(Some(b"hi\n")), r#"{"stream":"stdout","rank":"0","data":"hi\n"}"#);
        assert_eq!(json(None), r#"{"stream":"stdout","rank":"0","eof":true}"#);
        for bytes in [&b"\xff"[..], b"a\0b"] {
            assert!(json(Some(bytes)).contains("\"encoding\":\"base64\""), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode("stderr", "1", Some(&bytes))), Some(bytes));
        }
    }
}
