//! A client of munged, the daemon that vouches for who made a credential.
//!
//! One request and one response over munged's socket, in its own format (version 4); munged learns
//! who asks from the kernel. Numbers are big-endian:
//!
//! ```text
//! header  magic u32, version u8, type u8, retry u8, length u32
//! encode  cipher u8, mac u8, zip u8, realm, ttl u32, uid u32, gid u32, data
//! decode  data
//! encoded error u8, text, data
//! decoded error u8, text, cipher u8, mac u8, zip u8, realm, ttl u32, address, encoded-at u32,
//!         decoded-at u32, uid u32, gid u32, for-uid u32, for-gid u32, data
//! ```
//!
//! where realm, text and address have a length of one byte, data of four. The protocol rather than
//! libmunge, so that the IMP need not load a library as root.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::secure::reason;

/// Where Debian's and Red Hat's munged listen.
pub const SOCKET: &str = "/run/munge/munge.socket.2";

const MAGIC: u32 = 0x0060_6d4b;
const VERSION: u8 = 4;
const ENCODE_REQUEST: u8 = 2;
const ENCODE_RESPONSE: u8 = 3;
const DECODE_REQUEST: u8 = 4;
const DECODE_RESPONSE: u8 = 5;
/// Let munged choose the cipher, and so on.
const DEFAULT: u8 = 1;
/// Whoever may decode it: `uid` and `gid` of the encode request.
const ANYONE: u32 = u32::MAX;
/// Longest response that is read.
const MAX_RESPONSE: u32 = 1 << 20;
/// munged answers in less than a millisecond; one that hangs must not hang a job.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Its errors of decoding that come with a credential that is genuine.
const EXPIRED: u8 = 15;
const REPLAYED: u8 = 17;

/// What a genuine credential says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    pub uid: u32,
    /// Seconds since 1970 by the encoding host's clock.
    pub encoded_at: u32,
    pub data: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MungeError {
    /// No socket, and why.
    Access(PathBuf, String),
    NotASocket(PathBuf),
    Connect(PathBuf, String),
    Io(String),
    /// It is not munged that answers.
    Protocol(&'static str),
    /// What munged says.
    Refused(String),
}

impl fmt::Display for MungeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MungeError::Access(path, reason) => write!(
                f,
                "Failed to access \"{}\": {reason} (Did you start munged?)",
                path.display()
            ),
            MungeError::NotASocket(path) => {
                write!(f, "Invalid file type for socket \"{}\"", path.display())
            }
            MungeError::Connect(path, reason) => write!(
                f,
                "Failed to connect to \"{}\": {reason} (Did you start munged?)",
                path.display()
            ),
            MungeError::Io(reason) => write!(f, "Failed to talk to munged: {reason}"),
            MungeError::Protocol(what) => write!(f, "Invalid response of munged: {what}"),
            MungeError::Refused(text) => f.write_str(text),
        }
    }
}

/// A credential of this process's user for `data`.
pub fn encode(socket: &Path, data: &[u8]) -> Result<String, MungeError> {
    let mut body = vec![DEFAULT, DEFAULT, DEFAULT, 0];
    for word in [0, ANYONE, ANYONE] {
        body.extend_from_slice(&u32::to_be_bytes(word));
    }
    put_data(&mut body, data);
    let response = exchange(socket, ENCODE_REQUEST, ENCODE_RESPONSE, &body)?;
    let mut fields = Fields(&response);
    let (error, text) = (fields.byte()?, fields.short()?);
    if error != 0 {
        return Err(refused(error, text));
    }
    // It is a string of C's.
    let data = fields.long()?;
    let text = std::str::from_utf8(data.strip_suffix(&[0]).unwrap_or(data));
    let text = text.map_err(|_| MungeError::Protocol("credential"))?;
    match text.contains(['.', '\0']) {
        true => Err(MungeError::Protocol("credential")),
        false => Ok(text.trim_end().to_owned()),
    }
}

/// Who made a credential, when, and for what. That munged has seen it before, or holds it for too
/// old by its own, short measure, says nothing against it (RFC 39).
pub fn decode(socket: &Path, credential: &str) -> Result<Decoded, MungeError> {
    let mut body = Vec::new();
    let mut text = credential.as_bytes().to_vec();
    text.push(0);
    put_data(&mut body, &text);
    let response = exchange(socket, DECODE_REQUEST, DECODE_RESPONSE, &body)?;
    let mut fields = Fields(&response);
    let (error, text) = (fields.byte()?, fields.short()?);
    if !matches!(error, 0 | EXPIRED | REPLAYED) {
        return Err(refused(error, text));
    }
    fields.take(3)?;
    fields.short()?;
    fields.word()?;
    fields.short()?;
    let encoded_at = fields.word()?;
    fields.word()?;
    let uid = fields.word()?;
    fields.take(12)?;
    Ok(Decoded { uid, encoded_at, data: fields.long()?.to_vec() })
}

fn refused(error: u8, text: &[u8]) -> MungeError {
    let text: String =
        String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(200).collect();
    MungeError::Refused(if text.is_empty() { format!("munge error {error}") } else { text })
}

fn exchange(socket: &Path, request: u8, response: u8, body: &[u8]) -> Result<Vec<u8>, MungeError> {
    let io = |error: std::io::Error| MungeError::Io(reason(&error));
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(io)?;
    let length = u32::try_from(body.len()).map_err(|_| MungeError::Protocol("length"))?;
    let mut message = MAGIC.to_be_bytes().to_vec();
    message.extend_from_slice(&[VERSION, request, 0]);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(body);
    stream.write_all(&message).map_err(io)?;

    let mut header = [0; 11];
    stream.read_exact(&mut header).map_err(io)?;
    let mut fields = Fields(&header);
    if fields.word()? != MAGIC {
        return Err(MungeError::Protocol("magic"));
    }
    if fields.byte()? != VERSION {
        return Err(MungeError::Protocol("version"));
    }
    if fields.byte()? != response {
        return Err(MungeError::Protocol("type"));
    }
    fields.byte()?;
    let length = fields.word()?;
    if length > MAX_RESPONSE {
        return Err(MungeError::Protocol("length"));
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).map_err(io)?;
    Ok(body)
}

fn connect(socket: &Path) -> Result<UnixStream, MungeError> {
    let meta = std::fs::metadata(socket)
        .map_err(|error| MungeError::Access(socket.to_owned(), reason(&error)))?;
    if !meta.file_type().is_socket() {
        return Err(MungeError::NotASocket(socket.to_owned()));
    }
    UnixStream::connect(socket)
        .map_err(|error| MungeError::Connect(socket.to_owned(), reason(&error)))
}

fn put_data(body: &mut Vec<u8>, data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(data);
}

/// What is left of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], MungeError> {
        let short = MungeError::Protocol("it ends early");
        let (taken, rest) = self.0.split_at_checked(length).ok_or(short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, MungeError> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn word(&mut self) -> Result<u32, MungeError> {
        Ok(self.take(4)?.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    /// Bytes with a length of one byte.
    fn short(&mut self) -> Result<&'a [u8], MungeError> {
        let length = self.byte()?;
        self.take(length.into())
    }

    /// Bytes with a length of four.
    fn long(&mut self) -> Result<&'a [u8], MungeError> {
        let length = self.word()?;
        self.take(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_is_not_there_is_named_by_its_socket() {
        let error = encode(Path::new("/nonexistent/munge.socket.2"), b"").unwrap_err();
        let text = "Failed to access \"/nonexistent/munge.socket.2\": \
            No such file or directory (Did you start munged?)";
        assert_eq!(error.to_string(), text);
        let error = encode(Path::new("/etc/passwd"), b"").unwrap_err();
        assert_eq!(error.to_string(), "Invalid file type for socket \"/etc/passwd\"");
    }

    #[test]
    fn a_response_that_lies_about_its_lengths_is_an_error() {
        assert!(Fields(&[0, 0, 0, 9, 1]).long().is_err());
        assert!(Fields(&[3, 1]).short().is_err());
        assert!(Fields(&[]).byte().is_err());
        assert_eq!(Fields(&[0, 0, 1, 2]).word(), Ok(258));
    }
}
