//! Cutting a stream of bytes into the pieces that become data events.

use bytes::{Buf as _, Bytes, BytesMut};

/// A line that is longer than this is cut.
const LINE_MAX: usize = 4 << 20;

/// How much of a stream to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffering {
    /// Until a line is complete.
    Line,
    /// Not at all, yet each line is a piece of its own.
    None,
}

#[derive(Debug)]
pub(crate) struct Lines {
    buffering: Buffering,
    rest: BytesMut,
    /// Bytes of `rest` in which there is no newline.
    searched: usize,
}

// === impl Lines ===

impl Lines {
    pub(crate) fn new(buffering: Buffering) -> Lines {
        Lines { buffering, rest: BytesMut::new(), searched: 0 }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        self.rest.extend_from_slice(data);
    }

    /// The next piece, with its newline if it has one.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let unsearched = self.rest.get(self.searched..).unwrap_or_default();
        let newline = unsearched.iter().position(|&byte| byte == b'\n');
        let end = match newline {
            Some(at) => self.searched + at + 1,
            None if self.rest.is_empty() => return None,
            None if self.buffering == Buffering::None || self.rest.len() >= LINE_MAX => {
                self.rest.len()
            }
            None => {
                self.searched = self.rest.len();
                return None;
            }
        };
        self.searched = 0;
        Some(self.rest.split_to(end).freeze())
    }

    /// What is left at the end of the stream.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        self.searched = 0;
        let rest = self.rest.copy_to_bytes(self.rest.remaining());
        (!rest.is_empty()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(buffering: Buffering, chunks: &[&str]) -> Vec<String> {
        let mut lines = Lines::new(buffering);
        let mut pieces = Vec::new();
        for chunk in chunks {
            lines.push(chunk.as_bytes());
            while let Some(piece) = lines.next() {
                pieces.push(String::from_utf8(piece.to_vec()).unwrap());
            }
        }
        pieces.extend(lines.finish().map(|rest| String::from_utf8(rest.to_vec()).unwrap()));
        pieces
    }

    #[test]
    fn lines_are_whole_when_buffered() {
        assert_eq!(pieces(Buffering::Line, &["a\nb", "c\n", "\nd"]), ["a\n", "bc\n", "\n", "d"]);
        assert_eq!(pieces(Buffering::Line, &["a\n"]), ["a\n"]);
    }

    #[test]
    fn nothing_waits_when_unbuffered_but_lines_stay_apart() {
        assert_eq!(pieces(Buffering::None, &["a\nb", "c\n"]), ["a\n", "b", "c\n"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = Lines::new(Buffering::Line);
        lines.push(&vec![b'x'; LINE_MAX]);
        assert_eq!(lines.next().map(|piece| piece.len()), Some(LINE_MAX));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_reordered(chunks in prop::collection::vec("[ab\\n]{0,9}", 0..9)) {
            let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
            for buffering in [Buffering::Line, Buffering::None] {
                prop_assert_eq!(pieces(buffering, &chunks).concat(), chunks.concat());
            }
        }
    }
}
