//! A client of the PMI-1 wire protocol (RFC 13), which process launchers speak: `flux start`, the
//! job shell, `mpiexec.hydra`, `srun --mpi=pmi`-likes with `PMI_FD`.
//!
//! ```text
//! cmd=get kvsname=NAME key=KEY
//! cmd=get_result rc=0 value=VALUE
//! ```

use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::PmiError;

/// Longest line that is read.
const LINE_MAX: usize = 64 << 10;

/// What the environment says of the launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::boot) struct Launcher {
    fd: i32,
    rank: u32,
    size: u32,
}

/// A connection past its init.
#[derive(Debug)]
pub(in crate::boot) struct SimplePmi {
    stream: BufReader<UnixStream>,
    pub(super) rank: u32,
    pub(super) size: u32,
    pub(super) kvsname: String,
    /// With the terminating NUL of C clients.
    pub(super) value_max: usize,
}

// === impl Launcher ===

impl Launcher {
    /// Nothing when there are no PMI variables in the environment.
    pub(in crate::boot) fn from_env(
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Launcher>, PmiError> {
        let names = ["PMI_FD", "PMI_RANK", "PMI_SIZE"];
        let [Some(fd), Some(rank), Some(size)] = names.map(&get) else { return Ok(None) };
        let error = |name, value: &str| PmiError::Environment { name, value: value.to_owned() };
        let launcher = Launcher {
            fd: fd.parse().map_err(|_| error("PMI_FD", &fd))?,
            rank: rank.parse().map_err(|_| error("PMI_RANK", &rank))?,
            size: size.parse().map_err(|_| error("PMI_SIZE", &size))?,
        };
        if launcher.rank >= launcher.size {
            return Err(error("PMI_RANK", &rank));
        }
        Ok(Some(launcher))
    }

    pub(in crate::boot) async fn connect(self) -> Result<SimplePmi, PmiError> {
        let error = |error| PmiError::Io { command: "PMI_FD", error };
        let stream = StdUnixStream::from(crate::boot::sys::inherited(self.fd).map_err(error)?);
        stream.set_nonblocking(true).map_err(error)?;
        SimplePmi::init(self.rank, self.size, UnixStream::from_std(stream).map_err(error)?).await
    }
}

// === impl SimplePmi ===

impl SimplePmi {
    pub(in crate::boot) async fn init(
        rank: u32,
        size: u32,
        stream: UnixStream,
    ) -> Result<SimplePmi, PmiError> {
        let stream = BufReader::new(stream);
        let kvsname = String::new();
        let mut pmi = SimplePmi { stream, rank, size, kvsname, value_max: 0 };
        let reply = pmi.call("init", " pmi_version=1 pmi_subversion=1", "response_to_init").await?;
        if reply.get("pmi_version") != Some("1") {
            return Err(reply.unexpected("init"));
        }
        let reply = pmi.call("get_maxes", "", "maxes").await?;
        let max = reply.get("vallen_max").and_then(|max| max.parse().ok());
        pmi.value_max = max.ok_or_else(|| reply.unexpected("get_maxes"))?;
        let reply = pmi.call("get_my_kvsname", "", "my_kvsname").await?;
        let name = reply.get("kvsname").ok_or_else(|| reply.unexpected("get_my_kvsname"))?;
        pmi.kvsname = name.to_owned();
        Ok(pmi)
    }

    pub(super) async fn put(&mut self, key: &str, value: &str) -> Result<(), PmiError> {
        let arguments = format!(" kvsname={} key={key} value={value}", self.kvsname);
        self.call("put", &arguments, "put_result").await.map(|_| ())
    }

    pub(super) async fn get(&mut self, key: &str) -> Result<String, PmiError> {
        let arguments = format!(" kvsname={} key={key}", self.kvsname);
        let reply = self.call("get", &arguments, "get_result").await?;
        reply.tail("value").map(str::to_owned).ok_or_else(|| reply.unexpected("get"))
    }

    pub(super) async fn barrier(&mut self) -> Result<(), PmiError> {
        self.call("barrier_in", "", "barrier_out").await.map(|_| ())
    }

    pub(super) async fn finalize(mut self) -> Result<(), PmiError> {
        self.call("finalize", "", "finalize_ack").await.map(|_| ())
    }

    async fn call(
        &mut self,
        command: &'static str,
        arguments: &str,
        expected: &str,
    ) -> Result<Reply, PmiError> {
        let io = |error| PmiError::Io { command, error };
        let request = format!("cmd={command}{arguments}\n");
        self.stream.get_mut().write_all(request.as_bytes()).await.map_err(io)?;
        let reply = Reply { line: self.read_line(command).await? };
        if reply.get("cmd") != Some(expected) {
            return Err(reply.unexpected(command));
        }
        match reply.get("rc") {
            None | Some("0") => Ok(reply),
            Some(rc) => Err(PmiError::Refused { command, rc: rc.to_owned() }),
        }
    }

    async fn read_line(&mut self, command: &'static str) -> Result<String, PmiError> {
        let io = |error| PmiError::Io { command, error };
        let mut line = Vec::new();
        loop {
            let available = self.stream.fill_buf().await.map_err(io)?;
            if available.is_empty() || line.len() > LINE_MAX {
                return Err(PmiError::Closed { command });
            }
            let (part, used) = match available.iter().position(|byte| *byte == b'\n') {
                Some(end) => (available.get(..end).unwrap_or_default(), end + 1),
                None => (available, available.len()),
            };
            let complete = used > part.len();
            line.extend_from_slice(part);
            self.stream.consume(used);
            if complete {
                return Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
            }
        }
    }
}

/// `key=value` words, of which the last may hold blanks.
struct Reply {
    line: String,
}

impl Reply {
    fn get(&self, key: &str) -> Option<&str> {
        self.line.split_ascii_whitespace().find_map(|word| {
            let (name, value) = word.split_once('=')?;
            (name == key).then_some(value)
        })
    }

    /// From behind `key=` to the end of the line.
    fn tail(&self, key: &str) -> Option<&str> {
        let start = self.line.match_indices(key).map(|(at, _)| at).find(|at| {
            let before = self.line.get(..*at).unwrap_or("");
            let after = self.line.get(at + key.len()..).unwrap_or("");
            (before.is_empty() || before.ends_with(' ')) && after.starts_with('=')
        })?;
        self.line.get(start + key.len() + 1..)
    }

    fn unexpected(&self, command: &'static str) -> PmiError {
        PmiError::Unexpected { command, line: self.line.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pmi;
    use super::*;

    /// A launcher that gives these answers, whatever it is asked.
    async fn scripted(answers: &str) -> (Result<SimplePmi, PmiError>, UnixStream) {
        let (client, mut server) = UnixStream::pair().unwrap();
        server.write_all(answers.as_bytes()).await.unwrap();
        (SimplePmi::init(0, 1, client).await, server)
    }

    #[tokio::test]
    async fn hydra_answers_without_rc_are_understood() {
        let (pmi, _server) = scripted(
            "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n\
             cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024\n\
             cmd=my_kvsname kvsname=kvs_4242_0\n\
             cmd=put_result rc=0 msg=success\n\
             cmd=get_result rc=0 msg=success value=a b=c {\"d\"}\n\
             cmd=get_result rc=-1 msg=key_x_not_found value=unknown\n\
             cmd=barrier_out\n",
        )
        .await;
        let mut pmi = Pmi::Simple(pmi.unwrap());
        assert_eq!(pmi.kvsname(), "kvs_4242_0");
        pmi.put("0", "x").await.unwrap();
        assert_eq!(pmi.get("0").await.unwrap(), "a b=c {\"d\"}");
        assert_eq!(pmi.lookup("x").await.unwrap(), None);
        pmi.barrier().await.unwrap();
    }

    #[tokio::test]
    async fn launchers_that_fail_are_told_by_command() {
        let error = |answers| async move { scripted(answers).await.0.unwrap_err().to_string() };
        assert_eq!(
            error("cmd=response_to_init rc=-1\n").await,
            "simple: init: the launcher failed it (rc=-1)"
        );
        assert_eq!(error("hello\n").await, "simple: init: unexpected response 'hello'");
        assert_eq!(
            error("cmd=response_to_init rc=0 pmi_version=2 pmi_subversion=0\n").await,
            "simple: init: unexpected response 'cmd=response_to_init rc=0 pmi_version=2 \
             pmi_subversion=0'"
        );
    }

    #[tokio::test]
    async fn launcher_that_goes_away_is_an_error() {
        let (client, server) = UnixStream::pair().unwrap();
        drop(server);
        assert!(SimplePmi::init(0, 1, client).await.is_err());
    }

    #[test]
    fn environment_is_checked() {
        let from = |fd: &'static str, rank: &'static str, size: &'static str| {
            Launcher::from_env(move |name| {
                let value = match name {
                    "PMI_FD" => fd,
                    "PMI_RANK" => rank,
                    _ => size,
                };
                (!value.is_empty()).then(|| value.to_owned())
            })
            .map_err(|error| error.to_string())
        };
        assert_eq!(from("", "", ""), Ok(None));
        assert_eq!(from("5", "1", "3"), Ok(Some(Launcher { fd: 5, rank: 1, size: 3 })));
        assert_eq!(from("x", "1", "3").unwrap_err(), "simple: PMI_FD=x is invalid");
        assert_eq!(from("5", "3", "3").unwrap_err(), "simple: PMI_RANK=3 is invalid");
        assert_eq!(from("5", "0", "0").unwrap_err(), "simple: PMI_RANK=0 is invalid");
    }
}
