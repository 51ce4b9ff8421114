//! The way out of a process: bytes become lines.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use super::{Event, Stream};

/// Bytes that are read at once.
const READ_SIZE: usize = 64 << 10;

/// Read a stream to its end, which is an event as well.
pub(super) async fn read(
    name: Rc<str>,
    mut stream: impl AsyncRead + Unpin,
    mode: Stream,
    line_max: usize,
    events: mpsc::Sender<Event>,
) {
    let mut buf = BytesMut::new();
    loop {
        buf.reserve(READ_SIZE);
        // A channel whose other end was killed with data unread is reset: the end as well.
        let ended = !matches!(stream.read_buf(&mut buf).await, Ok(1..));
        while let Some(data) = next(&mut buf, mode, line_max, ended) {
            let event = Event::Output { stream: name.clone(), data };
            if events.send(event).await.is_err() {
                return;
            }
        }
        if ended {
            let _ = events.send(Event::Eof { stream: name }).await;
            return;
        }
    }
}

/// Take the next line, or piece, off the buffer.
fn next(buf: &mut BytesMut, mode: Stream, line_max: usize, ended: bool) -> Option<Bytes> {
    if buf.is_empty() {
        return None;
    }
    let newline = buf.iter().position(|byte| *byte == b'\n');
    let length = match (mode, newline) {
        (Stream::Pieces, _) => buf.len(),
        (Stream::Lines, Some(newline)) => newline + 1,
        (Stream::Lines, None) if ended || buf.len() >= line_max => buf.len(),
        (Stream::Lines, None) => return None,
    };
    Some(buf.split_to(length).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, mode: Stream, line_max: usize, ended: bool) -> Vec<String> {
        let mut buf = BytesMut::from(text);
        let mut pieces = Vec::new();
        while let Some(piece) = next(&mut buf, mode, line_max, ended) {
            pieces.push(String::from_utf8(piece.to_vec()).unwrap());
        }
        pieces
    }

    #[test]
    fn lines_come_whole_and_the_rest_at_the_end() {
        assert_eq!(all("a\nb\nrest", Stream::Lines, 100, false), ["a\n", "b\n"]);
        assert_eq!(all("a\nrest", Stream::Lines, 100, true), ["a\n", "rest"]);
        assert_eq!(all("abcdef", Stream::Lines, 4, false), ["abcdef"]);
        assert_eq!(all("a\nb", Stream::Pieces, 100, false), ["a\nb"]);
    }
}
