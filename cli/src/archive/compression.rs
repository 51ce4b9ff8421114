//! Files that are compressed on the way: gzip here, other formats by their programs.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Chain, Cursor, Read, Seek as _, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::failure::{Failure, strerror};

/// Endings of file names with the program that such a file goes through.
const ENDINGS: [(&str, Filter); 9] = [
    (".tar", Filter::None),
    (".tgz", Filter::Gzip),
    (".tar.gz", Filter::Gzip),
    (".tar.bz2", Filter::Program("bzip2")),
    (".tbz", Filter::Program("bzip2")),
    (".tar.xz", Filter::Program("xz")),
    (".txz", Filter::Program("xz")),
    (".tar.zst", Filter::Program("zstd")),
    (".tar.lz4", Filter::Program("lz4")),
];
/// How compressed files begin.
const MAGICS: [(&[u8], Filter); 5] = [
    (b"\x1f\x8b", Filter::Gzip),
    (b"BZh", Filter::Program("bzip2")),
    (b"\xfd7zXZ\0", Filter::Program("xz")),
    (b"\x28\xb5\x2f\xfd", Filter::Program("zstd")),
    (b"\x04\x22\x4d\x18", Filter::Program("lz4")),
];
const MAGIC_LEN: u64 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    None,
    Gzip,
    /// Compresses its input with `-c`, and expands it with `-dc`.
    Program(&'static str),
}

/// A file to write to. [`Sink::finish`] must be called.
#[derive(Debug)]
pub(crate) enum Sink {
    Stdout(io::Stdout),
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Program { name: &'static str, child: Child, stdin: BufWriter<ChildStdin>, file: File },
}

/// A file to read from.
#[derive(Debug)]
pub(crate) enum Source {
    Plain(Input),
    Gzip(MultiGzDecoder<Input>),
    Program { name: &'static str, child: Child, stdout: ChildStdout, ended: bool },
}

/// What was read to find out the format, then the rest.
type Input = Chain<Cursor<Vec<u8>>, BufReader<Box<dyn ReadDebug>>>;

pub(crate) trait ReadDebug: Read + std::fmt::Debug {}
impl<R: Read + std::fmt::Debug> ReadDebug for R {}

impl Sink {
    /// `-` is standard output, without compression. An archive is for its owner alone: the values
    /// in it are.
    pub(crate) fn create(path: &str) -> Result<Sink, Failure> {
        use std::os::unix::fs::OpenOptionsExt;
        if path == "-" {
            return Ok(Sink::Stdout(io::stdout()));
        }
        let filter = ENDINGS.iter().find(|(ending, _)| path.ends_with(ending));
        let Some((_, filter)) = filter else {
            let endings: Vec<&str> = ENDINGS.iter().map(|(ending, _)| *ending).collect();
            let text = format!("No such format '{path}': it must end in {}", endings.join(", "));
            return Err(Failure::new(text));
        };
        let open = || {
            let mut options = File::options();
            options.write(true).create(true).truncate(true).mode(0o600).open(path)
        };
        let file = open()
            .map_err(|e| Failure::new(format!("Failed to open '{path}': {}", strerror(&e))))?;
        Ok(match filter {
            Filter::None => Sink::Plain(BufWriter::new(file)),
            Filter::Gzip => {
                Sink::Gzip(GzEncoder::new(BufWriter::new(file), Compression::default()))
            }
            Filter::Program(name) => {
                let copy = file.try_clone().map_err(|e| Failure::of(path, strerror(&e)))?;
                let (child, stdin) =
                    compressor(name, copy).map_err(|e| Failure::of(name, strerror(&e)))?;
                Sink::Program { name, child, stdin: BufWriter::new(stdin), file }
            }
        })
    }

    /// When this returns, all is on the disk.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Sink::Stdout(mut stdout) => stdout.flush(),
            Sink::Plain(file) => file.into_inner()?.sync_all(),
            Sink::Gzip(encoder) => encoder.finish()?.into_inner()?.sync_all(),
            Sink::Program { name, mut child, mut stdin, file } => {
                stdin.flush()?;
                drop(stdin);
                check(name, child.wait()?)?;
                file.sync_all()
            }
        }
    }
}

fn compressor(name: &str, file: File) -> io::Result<(Child, ChildStdin)> {
    let mut child =
        Command::new(name).arg("-c").stdin(Stdio::piped()).stdout(Stdio::from(file)).spawn()?;
    let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((child, stdin))
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Stdout(out) => out.write(data),
            Sink::Plain(out) => out.write(data),
            Sink::Gzip(out) => out.write(data),
            Sink::Program { stdin, .. } => stdin.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Stdout(out) => out.flush(),
            Sink::Plain(out) => out.flush(),
            Sink::Gzip(out) => out.flush(),
            Sink::Program { stdin, .. } => stdin.flush(),
        }
    }
}

impl Source {
    /// `-` is standard input. The format is found out from the content.
    pub(crate) fn open(path: &str) -> io::Result<Source> {
        let file: Box<dyn ReadDebug> = match path {
            "-" => Box::new(io::stdin()),
            path => Box::new(File::open(path)?),
        };
        let mut input = BufReader::new(file);
        let mut begin = Vec::new();
        input.by_ref().take(MAGIC_LEN).read_to_end(&mut begin)?;
        let filter = MAGICS.iter().find(|(magic, _)| begin.starts_with(magic));
        let input = Cursor::new(begin).chain(input);
        match filter.map_or(Filter::None, |(_, filter)| *filter) {
            Filter::None => Ok(Source::Plain(input)),
            Filter::Gzip => Ok(Source::Gzip(MultiGzDecoder::new(input))),
            Filter::Program(name) => expander(name, path, input),
        }
    }
}

/// The program reads the file by itself; from a pipe, what has been read can't be given back, so that
/// all of it goes to a file without a name first.
fn expander(name: &'static str, path: &str, mut input: Input) -> io::Result<Source> {
    let file = match path {
        "-" => {
            let mut copy = tempfile::tempfile()?;
            io::copy(&mut input, &mut copy)?;
            copy.rewind()?;
            copy
        }
        path => File::open(path)?,
    };
    let mut child = Command::new(name).arg("-dc").stdin(file).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok(Source::Program { name, child, stdout, ended: false })
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(input) => input.read(buffer),
            Source::Gzip(input) => input.read(buffer),
            Source::Program { name, child, stdout, ended } => {
                let count = stdout.read(buffer)?;
                if count == 0 && !buffer.is_empty() && !std::mem::replace(ended, true) {
                    check(name, child.wait()?)?;
                }
                Ok(count)
            }
        }
    }
}

fn check(name: &str, status: std::process::ExitStatus) -> io::Result<()> {
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{name} failed ({status})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compressed_by_their_names_and_read_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let data = b"some text ".repeat(1000);
        for (ending, filter) in ENDINGS {
            if let Filter::Program(name) = filter
                && Command::new(name).arg("--version").output().is_err()
            {
                continue;
            }
            let path = dir.path().join(format!("file{ending}"));
            let path = path.to_str().unwrap();
            let mut sink = Sink::create(path).unwrap();
            sink.write_all(&data).unwrap();
            sink.finish().unwrap();
            let size = std::fs::metadata(path).unwrap().len() as usize;
            assert_eq!(size < data.len(), filter != Filter::None, "{ending}: {size}");
            // Under a name that says nothing.
            let moved = dir.path().join("moved");
            std::fs::rename(path, &moved).unwrap();
            let mut found = Vec::new();
            Source::open(moved.to_str().unwrap()).unwrap().read_to_end(&mut found).unwrap();
            assert!(found == data, "{ending}");
        }
        assert!(Sink::create(dir.path().join("file.doc").to_str().unwrap()).is_err());
    }
}
