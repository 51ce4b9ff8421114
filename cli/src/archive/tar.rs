//! tar files, as far as dumps need them: regular files and symbolic links.
//!
//! Written in the ustar format with GNU's records for long names; read with those and with pax
//! records, which is what libarchive writes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

const BLOCK: usize = 512;
/// Names that are longer stand in a record of their own.
const NAME_MAX: usize = 100;
/// A record about the next entry is no longer than this: names and numbers are in it.
const RECORD_MAX: u64 = 1 << 20;
/// What a whole tar file is a multiple of.
const TAPE_RECORD: usize = 20 * BLOCK;
/// Fields of a header: where they begin and end.
const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..265;
const PREFIX: std::ops::Range<usize> = 345..500;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not a tar archive")]
    NoTar,
    #[error("damaged archive: {0}")]
    Damaged(&'static str),
    #[error("truncated archive")]
    Truncated,
}

/// What all entries of an archive have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

#[derive(Debug)]
pub(crate) struct Writer<W> {
    out: W,
    stamp: Stamp,
    written: usize,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W, stamp: Stamp) -> Writer<W> {
        Writer { out, stamp, written: 0 }
    }

    /// A regular file whose content is the pieces one after another.
    pub(crate) fn file(&mut self, path: &str, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let size = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        self.long_name(b'L', path)?;
        self.header(path, b'0', "", size)?;
        for piece in pieces {
            self.put(piece.as_ref())?;
        }
        self.pad(BLOCK)
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.long_name(b'K', target)?;
        self.long_name(b'L', path)?;
        self.header(path, b'2', target, 0)
    }

    /// Write the end of the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.put(&[0; 2 * BLOCK])?;
        self.pad(TAPE_RECORD)?;
        Ok(self.out)
    }

    fn long_name(&mut self, kind: u8, name: &str) -> io::Result<()> {
        if name.len() <= NAME_MAX {
            return Ok(());
        }
        self.header("././@LongLink", kind, "", name.len() + 1)?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad(BLOCK)
    }

    fn header(&mut self, path: &str, kind: u8, target: &str, size: usize) -> io::Result<()> {
        let Stamp { mtime, uid, gid } = self.stamp;
        let mut header = Vec::with_capacity(BLOCK);
        text_field(&mut header, path, 100);
        octal_field(&mut header, 0o644, 8);
        octal_field(&mut header, uid.into(), 8);
        octal_field(&mut header, gid.into(), 8);
        octal_field(&mut header, size as u64, 12);
        octal_field(&mut header, mtime, 12);
        // The sum is over the header with blanks in its own place.
        header.extend_from_slice(b"        ");
        header.push(kind);
        text_field(&mut header, target, 100);
        header.extend_from_slice(b"ustar  \0");
        header.resize(BLOCK, 0);
        let sum = header.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let sum = format!("{sum:06o}\0 ");
        if let Some(field) = header.get_mut(CHECKSUM) {
            field.copy_from_slice(sum.as_bytes());
        }
        self.put(&header)
    }

    fn put(&mut self, data: &[u8]) -> io::Result<()> {
        self.written += data.len();
        self.out.write_all(data)
    }

    fn pad(&mut self, to: usize) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; missing])
    }
}

fn text_field(header: &mut Vec<u8>, text: &str, width: usize) {
    let end = header.len() + width;
    header.extend(text.bytes().take(width));
    header.resize(end, 0);
}

/// Octal digits and a NUL; what is too large is written in base 256, as GNU does.
fn octal_field(header: &mut Vec<u8>, value: u64, width: usize) {
    let count = width - 1;
    let digits = format!("{value:0>count$o}\0");
    if digits.len() == width {
        return header.extend_from_slice(digits.as_bytes());
    }
    header.push(0x80);
    header.resize(header.len() + width.saturating_sub(9), 0);
    let bytes = value.to_be_bytes();
    let bytes = bytes.get(bytes.len().saturating_sub(width - 1)..).unwrap_or_default();
    header.extend_from_slice(bytes);
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    /// With its target.
    Symlink(String),
    /// Directories, devices: dumps have none.
    Other,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Bytes that [`Reader::data`] can read.
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
}

#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    /// Of the current entry: data not read yet, and what fills its last block.
    left: u64,
    padding: u64,
    at_begin: bool,
}

/// What records tell of the entry behind them.
#[derive(Debug, Default)]
struct Overrides {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    mtime: Option<u64>,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R) -> Reader<R> {
        Reader { input, left: 0, padding: 0, at_begin: true }
    }

    /// The next entry; nothing at the end. Data of the one before that was not read is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut overrides = Overrides::default();
        loop {
            self.skip(self.left + self.padding)?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = overrides.size.unwrap_or(number(&header, SIZE)?);
            self.left = size;
            self.padding = size.next_multiple_of(BLOCK as u64) - size;
            match header.get(TYPE).copied().unwrap_or_default() {
                b'L' => overrides.path = Some(self.name_record()?),
                b'K' => overrides.link = Some(self.name_record()?),
                b'x' => self.pax_record(&mut overrides)?,
                // For all entries; flux has nothing to say there.
                b'g' => {}
                kind => return Ok(Some(entry(&header, kind, size, overrides)?)),
            }
        }
    }

    /// The data of the current entry.
    pub(crate) fn data(&mut self) -> Result<Vec<u8>, TarError> {
        let size = std::mem::take(&mut self.left);
        let mut data = Vec::new();
        self.input.by_ref().take(size).read_to_end(&mut data)?;
        if data.len() as u64 == size { Ok(data) } else { Err(TarError::Truncated) }
    }

    fn header(&mut self) -> Result<Option<Vec<u8>>, TarError> {
        let mut header = Vec::with_capacity(BLOCK);
        self.input.by_ref().take(BLOCK as u64).read_to_end(&mut header)?;
        let first = std::mem::replace(&mut self.at_begin, false);
        if header.len() < BLOCK {
            return Err(if first { TarError::NoTar } else { TarError::Truncated });
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |(at, byte): (usize, &u8)| match CHECKSUM.contains(&at) {
            true => u64::from(b' '),
            false => u64::from(*byte),
        };
        let expected: u64 = header.iter().enumerate().map(sum).sum();
        if number(&header, CHECKSUM).ok() != Some(expected) {
            return Err(if first { TarError::NoTar } else { TarError::Damaged("checksum") });
        }
        Ok(Some(header))
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        let skipped = io::copy(&mut self.input.by_ref().take(count), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == count { Ok(()) } else { Err(TarError::Truncated) }
    }

    fn record(&mut self) -> Result<Vec<u8>, TarError> {
        if self.left > RECORD_MAX {
            return Err(TarError::Damaged("a name is too long"));
        }
        self.data()
    }

    fn name_record(&mut self) -> Result<String, TarError> {
        let name = self.record()?;
        text(name.split(|byte| *byte == 0).next().unwrap_or_default())
    }

    /// Lines `LENGTH KEY=VALUE`.
    fn pax_record(&mut self, overrides: &mut Overrides) -> Result<(), TarError> {
        let record = self.record()?;
        for (key, value) in pax_fields(&record)? {
            match key.as_str() {
                "path" => overrides.path = Some(value),
                "linkpath" => overrides.link = Some(value),
                "size" => {
                    let size = value.parse().map_err(|_| TarError::Damaged("size"))?;
                    overrides.size = Some(size);
                }
                // With a fraction.
                "mtime" => {
                    overrides.mtime =
                        value.split('.').next().and_then(|seconds| seconds.parse().ok());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn pax_fields(mut record: &[u8]) -> Result<BTreeMap<String, String>, TarError> {
    let bad = || TarError::Damaged("pax record");
    let mut fields = BTreeMap::new();
    while !record.is_empty() {
        let blank = record.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = record.get(..blank).and_then(|digits| std::str::from_utf8(digits).ok());
        let length: usize = length.and_then(|digits| digits.parse().ok()).ok_or_else(bad)?;
        let line = record.get(blank + 1..length).ok_or_else(bad)?;
        let line = line.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = line.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let key = text(line.get(..equals).unwrap_or_default())?;
        // Values of other keys need not be text.
        if let Ok(value) = text(line.get(equals + 1..).unwrap_or_default()) {
            fields.insert(key, value);
        }
        record = record.get(length..).unwrap_or_default();
    }
    Ok(fields)
}

fn entry(header: &[u8], kind: u8, size: u64, overrides: Overrides) -> Result<Entry, TarError> {
    let path = match overrides.path {
        Some(path) => path,
        None => short_path(header)?,
    };
    let kind = match kind {
        b'0' | 0 | b'7' if !path.ends_with('/') => Kind::File,
        b'2' => Kind::Symlink(match overrides.link {
            Some(target) => target,
            None => field(header, LINK)?,
        }),
        _ => Kind::Other,
    };
    let mtime = overrides.mtime.map_or_else(|| number(header, MTIME), Ok)?;
    Ok(Entry { path, kind, size, mtime })
}

fn short_path(header: &[u8]) -> Result<String, TarError> {
    let name = field(header, NAME)?;
    // GNU has other things in the place of ustar's prefix.
    let is_ustar = header.get(MAGIC).is_some_and(|magic| magic.starts_with(b"ustar\0"));
    let prefix = if is_ustar { field(header, PREFIX)? } else { String::new() };
    Ok(if prefix.is_empty() { name } else { format!("{prefix}/{name}") })
}

fn field(header: &[u8], range: std::ops::Range<usize>) -> Result<String, TarError> {
    let bytes = header.get(range).unwrap_or_default();
    text(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

fn text(bytes: &[u8]) -> Result<String, TarError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| TarError::Damaged("a name is not UTF-8"))
}

fn number(header: &[u8], range: std::ops::Range<usize>) -> Result<u64, TarError> {
    let bytes = header.get(range).unwrap_or_default();
    if let Some((first, rest)) = bytes.split_first()
        && first & 0x80 != 0
    {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if first & 0x7f != 0 || high.iter().any(|byte| *byte != 0) {
            return Err(TarError::Damaged("a number is too large"));
        }
        return Ok(low.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let digits: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let digits = digits.trim_matches([' ', '\0']);
    match digits {
        "" => Ok(0),
        digits => u64::from_str_radix(digits, 8).map_err(|_| TarError::Damaged("a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { mtime: 1_700_000_000, uid: 3_000_000, gid: 7 };

    fn read_all(bytes: &[u8]) -> Result<Vec<(String, Kind, Vec<u8>)>, TarError> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            let data = reader.data()?;
            assert_eq!(data.len() as u64, entry.size);
            assert_eq!(entry.mtime, STAMP.mtime);
            entries.push((entry.path, entry.kind, data));
        }
        Ok(entries)
    }

    #[test]
    fn what_is_written_is_read_with_names_of_any_length() {
        let long = "directory/".repeat(40) + "ä";
        let mut writer = Writer::new(Vec::new(), STAMP);
        let wanted = [
            ("a".to_owned(), Kind::File, vec![1; 512]),
            (long.clone(), Kind::File, b"text".to_vec()),
            ("b/empty".to_owned(), Kind::File, Vec::new()),
            ("x".repeat(100), Kind::Symlink(long.clone()), Vec::new()),
            (long + "y", Kind::Symlink("ns::a.b".to_owned()), Vec::new()),
        ];
        for (path, kind, data) in &wanted {
            match kind {
                Kind::Symlink(target) => writer.symlink(path, target).unwrap(),
                _ => {
                    writer.file(path, &[&data[..data.len() / 2], &data[data.len() / 2..]]).unwrap()
                }
            }
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % TAPE_RECORD, 0);
        assert_eq!(read_all(&bytes).unwrap(), wanted);
        // Every cut before the end is found.
        for cut in [0, 1, 511, 512, 700, 1024, 2048, 2560] {
            assert!(read_all(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut damaged = bytes;
        damaged[1024 + 3] ^= 1;
        assert!(matches!(read_all(&damaged), Err(TarError::Damaged("checksum"))));
    }

    #[test]
    fn names_and_sizes_of_pax_records_count() {
        let record = |key: &str, value: &str| {
            let line = format!(" {key}={value}\n");
            let length = line.len() + 2;
            format!("{length}{line}")
        };
        let long = "p".repeat(60);
        let pax = record("path", &long) + &record("mtime", "1700000000.25");
        let mut writer = Writer::new(Vec::new(), Stamp { mtime: 5, ..STAMP });
        writer.header("PaxHeader", b'x', "", pax.len()).unwrap();
        writer.put(pax.as_bytes()).unwrap();
        writer.pad(BLOCK).unwrap();
        writer.file("short", &[b"data"]).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(read_all(&bytes).unwrap(), [(long, Kind::File, b"data".to_vec())]);
    }

    #[test]
    fn numbers_too_large_for_octal_digits_are_kept() {
        for value in [0, 0o7777777, 0o10000000, u64::from(u32::MAX)] {
            let mut header = Vec::new();
            octal_field(&mut header, value, 8);
            assert_eq!((header.len(), number(&header, 0..8).unwrap()), (8, value));
        }
        let mut header = Vec::new();
        octal_field(&mut header, 1 << 40, 12);
        assert_eq!(number(&header, 0..12).unwrap(), 1 << 40);
    }

    #[test]
    fn anything_else_is_no_archive() {
        assert!(matches!(read_all(b"hello"), Err(TarError::NoTar)));
        assert!(matches!(read_all(&[b'x'; 2048]), Err(TarError::NoTar)));
        assert_eq!(read_all(&[0; 1024]).unwrap(), []);
    }
}
