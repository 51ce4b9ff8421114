//! The client of the PMI-1 simple wire protocol (RFC 13), and its stand-in for a single process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use crate::sys::inherited_fd;

/// Return code of PMI: the key does not exist.
const INVALID_KEY: i64 = 4;

/// A process among those that were launched together.
#[derive(Debug)]
pub(super) struct Pmi {
    method: Method,
    rank: u32,
    size: u32,
    name: String,
    trace: bool,
}

#[derive(Debug)]
enum Method {
    /// A server at the other end of a socket; `PMI_FD`, `PMI_RANK` and `PMI_SIZE` tell of it.
    Simple(BufReader<UnixStream>),
    /// Nobody else is there.
    Single(BTreeMap<String, String>),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PmiError {
    #[error("{0}: unknown PMI method: use simple or single")]
    Method(String),
    #[error("simple: {0} is not set to a number")]
    Environment(&'static str),
    #[error("simple: PMI_FD {0} is not an open file descriptor")]
    Descriptor(i32),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the PMI server closed the connection")]
    Closed,
    #[error("unexpected response '{0}'")]
    Unexpected(String),
    #[error("operation failed: rc={0}")]
    Failed(i64),
    #[error("key not found")]
    NoKey,
}

impl Pmi {
    /// By the method named, or by what the environment offers.
    pub(super) fn open(
        method: Option<&str>,
        env: impl Fn(&'static str) -> Option<String>,
        trace: bool,
    ) -> Result<Pmi, PmiError> {
        let single = || Pmi {
            method: Method::Single(BTreeMap::new()),
            rank: 0,
            size: 1,
            name: "single".to_owned(),
            trace,
        };
        match method {
            Some("single") => return Ok(single()),
            None if env("PMI_FD").is_none() => return Ok(single()),
            Some("simple") | None => {}
            Some(other) => return Err(PmiError::Method(other.to_owned())),
        }
        let number = |name: &'static str| {
            let value: Option<i32> = env(name).and_then(|value| value.parse().ok());
            value.ok_or(PmiError::Environment(name))
        };
        let unsigned = |name| u32::try_from(number(name)?).map_err(|_| PmiError::Environment(name));
        let fd = number("PMI_FD")?;
        let socket = inherited_fd(fd).ok_or(PmiError::Descriptor(fd))?;
        Ok(Pmi {
            method: Method::Simple(BufReader::new(UnixStream::from(socket))),
            rank: unsigned("PMI_RANK")?,
            size: unsigned("PMI_SIZE")?,
            name: "unknown".to_owned(),
            trace,
        })
    }

    pub(super) fn rank(&self) -> u32 {
        self.rank
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Of the space that all these processes share.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn initialize(&mut self) -> Result<(), PmiError> {
        if matches!(self.method, Method::Single(_)) {
            return Ok(());
        }
        self.call("init pmi_version=1 pmi_subversion=1", "response_to_init")?;
        self.call("get_maxes", "maxes")?;
        let response = self.call("get_my_kvsname", "my_kvsname")?;
        self.name = field(&response, "kvsname").unwrap_or_default().to_owned();
        Ok(())
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> Result<(), PmiError> {
        if let Method::Single(pairs) = &mut self.method {
            pairs.insert(key.to_owned(), value.to_owned());
            return Ok(());
        }
        let request = format!("put kvsname={} key={key} value={value}", self.name);
        self.call(&request, "put_result").map(drop)
    }

    pub(super) fn get(&mut self, key: &str) -> Result<String, PmiError> {
        if let Method::Single(pairs) = &self.method {
            return pairs.get(key).cloned().ok_or(PmiError::NoKey);
        }
        let request = format!("get kvsname={} key={key}", self.name);
        let response = match self.call(&request, "get_result") {
            Err(PmiError::Failed(INVALID_KEY)) => return Err(PmiError::NoKey),
            other => other?,
        };
        // The value is the rest of the line, blanks and all.
        let value = response.split_once("value=").map(|(_, value)| value.to_owned());
        value.ok_or(PmiError::Unexpected(response))
    }

    pub(super) fn barrier(&mut self) -> Result<(), PmiError> {
        match self.method {
            Method::Single(_) => Ok(()),
            Method::Simple(_) => self.call("barrier_in", "barrier_out").map(drop),
        }
    }

    /// Asks the launcher to end all processes; does not wait for that.
    pub(super) fn abort(&mut self, text: &str) -> Result<(), PmiError> {
        eprintln!("{text}");
        if let Method::Single(_) = self.method {
            std::process::exit(1);
        }
        self.send(&format!("abort exitcode=1 error_msg={text}"))
    }

    pub(super) fn finalize(&mut self) -> Result<(), PmiError> {
        match self.method {
            Method::Single(_) => Ok(()),
            Method::Simple(_) => self.call("finalize", "finalize_ack").map(drop),
        }
    }

    fn call(&mut self, request: &str, expected: &str) -> Result<String, PmiError> {
        self.send(request)?;
        let response = self.receive()?;
        if field(&response, "cmd") != Some(expected) {
            return Err(PmiError::Unexpected(response));
        }
        match field(&response, "rc").and_then(|rc| rc.parse().ok()).unwrap_or(0) {
            0 => Ok(response),
            rc => Err(PmiError::Failed(rc)),
        }
    }

    fn send(&mut self, request: &str) -> Result<(), PmiError> {
        if self.trace {
            eprintln!("{}: C: cmd={request}", self.rank);
        }
        if let Method::Simple(socket) = &mut self.method {
            socket.get_mut().write_all(format!("cmd={request}\n").as_bytes())?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<String, PmiError> {
        let mut line = String::new();
        if let Method::Simple(socket) = &mut self.method
            && socket.read_line(&mut line)? == 0
        {
            return Err(PmiError::Closed);
        }
        let line = line.trim_end_matches('\n').to_owned();
        if self.trace {
            eprintln!("{}: S: {line}", self.rank);
        }
        Ok(line)
    }
}

/// `value` of `name=value` in a line of such pairs.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_process_has_a_space_of_its_own() {
        let mut pmi = Pmi::open(None, |_| None, false).unwrap();
        pmi.initialize().unwrap();
        pmi.put("a", "b c").unwrap();
        pmi.barrier().unwrap();
        assert_eq!(pmi.get("a").unwrap(), "b c");
        assert!(matches!(pmi.get("x"), Err(PmiError::NoKey)));
        assert_eq!((pmi.rank(), pmi.size()), (0, 1));
    }

    #[test]
    fn fields_are_found_by_name() {
        let line = "cmd=get_result rc=0 value=(vector,(0,1,3))";
        assert_eq!(field(line, "rc"), Some("0"));
        assert_eq!(field(line, "c"), None);
    }

    #[test]
    fn environment_without_numbers_is_refused() {
        let env = |name: &'static str| Some(if name == "PMI_FD" { "99" } else { "x" }.to_owned());
        assert!(matches!(Pmi::open(None, env, false), Err(PmiError::Descriptor(99))));
        let error = Pmi::open(Some("magic"), |_| None, false).unwrap_err();
        assert_eq!(error.to_string(), "magic: unknown PMI method: use simple or single");
    }
}
