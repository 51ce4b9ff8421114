//! Standard input, read no faster than the processes take it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flux_protocol::rpc::rexec::Io;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

const CHUNK: usize = 64 << 10;

/// Chunks of standard input; an empty one is its end.
pub(super) fn stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sink, chunks) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        loop {
            let mut chunk = vec![0; CHUNK];
            // What can't be read is at its end for the processes.
            let n = stdin.read(&mut chunk).await.unwrap_or(0);
            chunk.truncate(n);
            if sink.send(chunk).await.is_err() || n == 0 {
                return;
            }
        }
    });
    chunks
}

/// A piece of standard input, or its end where there are no bytes.
pub(super) fn io(bytes: &[u8]) -> Io {
    let (data, encoding) = match std::str::from_utf8(bytes) {
        _ if bytes.is_empty() => (None, None),
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (Some(STANDARD.encode(bytes)), Some("base64".to_owned())),
    };
    // The rank has no meaning for input.
    Io { stream: "stdin".to_owned(), rank: "0".to_owned(), data, encoding, eof: bytes.is_empty() }
}

/// The bytes of a piece of output.
pub(crate) fn bytes(io: &Io) -> Vec<u8> {
    let data = io.data.as_deref().unwrap_or_default();
    match io.encoding.as_deref() {
        Some("base64") => STANDARD.decode(data).unwrap_or_default(),
        _ => data.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_travel_as_base64() {
        assert_eq!(io(b"abc").encoding, None);
        assert_eq!(bytes(&io(b"\xff\x00")), b"\xff\x00");
        assert_eq!(bytes(&io("ƒ".as_bytes())), "ƒ".as_bytes());
        assert!(io(b"").eof && !io(b"x").eof);
    }
}
