//! Pieces of a stream as they travel (RFC 24 data events without the event).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flux_protocol::rpc::rexec::Io;

/// Text as it is, anything else in base64. Nothing with `eof` is the end alone.
pub(super) fn encode(stream: &str, rank: u32, data: &[u8], eof: bool) -> Io {
    let (data, encoding) = match std::str::from_utf8(data) {
        Ok("") => (None, None),
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (Some(BASE64_STANDARD.encode(data)), Some("base64".to_owned())),
    };
    Io { stream: stream.to_owned(), rank: rank.to_string(), data, encoding, eof }
}

/// Nothing when it is not what `encoding` says.
pub(super) fn decode(io: &Io) -> Option<Vec<u8>> {
    let data = io.data.as_deref().unwrap_or_default();
    match io.encoding.as_deref() {
        None | Some("UTF-8") => Some(data.as_bytes().to_vec()),
        Some("base64") => BASE64_STANDARD.decode(data).ok(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_way() {
        for data in [&b"text\n"[..], b"\xff\xfe\0", b""] {
            assert_eq!(decode(&encode("stdout", 3, data, false)).unwrap(), data);
        }
        assert_eq!(encode("stdout", 3, b"\xff", false).encoding.as_deref(), Some("base64"));
        assert_eq!(encode("stdout", 3, b"x", false).rank, "3");
    }
}
