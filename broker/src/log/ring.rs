//! The circular buffer: the latest lines, each with its number.

use std::collections::VecDeque;

use bytes::Bytes;

/// Lines in RFC 5424 form with a NUL, as they are sent.
#[derive(Debug, Default)]
pub(super) struct Ring {
    lines: VecDeque<Bytes>,
    /// Number of the first line that is still there.
    first: u64,
}

impl Ring {
    /// Add a line and forget the oldest beyond `size`.
    pub(super) fn push(&mut self, line: Bytes, size: usize) {
        self.lines.push_back(line);
        self.trim(size);
    }

    pub(super) fn trim(&mut self, size: usize) {
        let excess = self.lines.len().saturating_sub(size);
        self.lines.drain(..excess);
        self.first += excess as u64;
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Number that the next line will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    /// The line with this number, or the first after it that is still there.
    pub(super) fn at(&self, number: u64) -> Option<(u64, Bytes)> {
        let number = number.max(self.first);
        let line = self.lines.get(usize::try_from(number - self.first).ok()?)?;
        Some((number, line.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_are_forgotten_and_numbers_go_on() {
        let mut ring = Ring::default();
        for text in ["a", "b", "c", "d"] {
            ring.push(Bytes::from(text), 2);
        }
        assert_eq!((ring.len(), ring.next()), (2, 4));
        assert_eq!(ring.at(0), Some((2, Bytes::from("c"))));
        assert_eq!(ring.at(3), Some((3, Bytes::from("d"))));
        assert_eq!(ring.at(4), None);
        ring.trim(0);
        assert_eq!((ring.len(), ring.next(), ring.at(0)), (0, 4, None));
    }
}
