//! The client: a process that was started with a socket to the server.

use std::io::{BufRead, BufReader, Read, Write};

use crate::{Failed, Request};

/// Longest line of a server that is read.
const LINE_MAX: u64 = 64 << 10;
/// What some versions of MPICH's `mpiexec` say after a value.
const FOUND: &str = " found=TRUE";

/// What the environment of a process says of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Number of the socket.
    pub fd: i32,
    pub rank: u32,
    pub size: u32,
    /// Not zero in a process that others of its kind have started.
    pub spawned: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    #[error("{0} not found in environ")]
    Unset(&'static str),
    #[error("{0} in environ is invalid")]
    Invalid(&'static str),
}

/// What a server takes, with the terminating NUL of C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maxes {
    pub name: i32,
    pub key: i32,
    pub value: i32,
}

/// A conversation past its beginning.
#[derive(Debug)]
pub struct Client<S> {
    stream: BufReader<S>,
    launch: Launch,
    maxes: Maxes,
    name: Option<String>,
}

// === impl Launch ===

impl Launch {
    pub fn from_env(get: impl Fn(&'static str) -> Option<String>) -> Result<Launch, LaunchError> {
        let number = |name| {
            let value = get(name).ok_or(LaunchError::Unset(name))?;
            let value: Option<i32> = value.trim().parse().ok();
            value.ok_or(LaunchError::Invalid(name))
        };
        let count = |name| u32::try_from(number(name)?).map_err(|_| LaunchError::Invalid(name));
        let (fd, rank, size) = (number("PMI_FD")?, count("PMI_RANK")?, count("PMI_SIZE")?);
        if fd < 0 {
            return Err(LaunchError::Invalid("PMI_FD"));
        }
        if size == 0 {
            return Err(LaunchError::Invalid("PMI_SIZE"));
        }
        let spawned = match number("PMI_SPAWNED") {
            Err(LaunchError::Unset(_)) => 0,
            other => other?,
        };
        Ok(Launch { fd, rank, size, spawned })
    }
}

// === impl Client ===

impl<S: Read + Write> Client<S> {
    /// Begin the conversation, over what [`Launch::fd`] is the number of.
    pub fn new(launch: Launch, stream: S) -> Result<Client<S>, Failed> {
        let maxes = Maxes { name: 0, key: 0, value: 0 };
        let mut client = Client { stream: BufReader::new(stream), launch, maxes, name: None };
        let reply = client.call("cmd=init pmi_version=1 pmi_subversion=1", "response_to_init")?;
        let version = (reply.number("pmi_version"), reply.number("pmi_subversion"));
        if version != (Ok(1), Ok(1)) {
            return Err(Failed::FAIL);
        }
        let reply = client.call("cmd=get_maxes", "maxes")?;
        client.maxes = Maxes {
            name: reply.number("kvsname_max")?,
            key: reply.number("keylen_max")?,
            value: reply.number("vallen_max")?,
        };
        Ok(client)
    }

    pub fn launch(&self) -> Launch {
        self.launch
    }

    pub fn maxes(&self) -> Maxes {
        self.maxes
    }

    /// Of the key-value space of all these processes.
    pub fn name(&mut self) -> Result<&str, Failed> {
        let name = match self.name.take() {
            Some(name) => name,
            None => {
                let reply = self.call("cmd=get_my_kvsname", "my_kvsname")?;
                reply.request().get("kvsname").ok_or(Failed::FAIL)?.to_owned()
            }
        };
        Ok(self.name.insert(name))
    }

    pub fn universe_size(&mut self) -> Result<i32, Failed> {
        self.call("cmd=get_universe_size", "universe_size")?.number("size")
    }

    pub fn appnum(&mut self) -> Result<i32, Failed> {
        self.call("cmd=get_appnum", "appnum")?.number("appnum")
    }

    /// Offer a value to all; they may get it after the next barrier.
    pub fn put(&mut self, name: &str, key: &str, value: &str) -> Result<(), Failed> {
        one_word(name, Failed::INVALID_ARG)?;
        one_word(key, Failed::INVALID_KEY)?;
        if value.contains('\n') {
            return Err(Failed::INVALID_VAL);
        }
        let request = format!("cmd=put kvsname={name} key={key} value={value}");
        self.call(&request, "put_result").map(drop)
    }

    pub fn get(&mut self, name: &str, key: &str) -> Result<String, Failed> {
        one_word(name, Failed::INVALID_ARG)?;
        one_word(key, Failed::INVALID_KEY)?;
        let reply = self.call(&format!("cmd=get kvsname={name} key={key}"), "get_result")?;
        let value = reply.request().tail("value").ok_or(Failed::FAIL)?;
        Ok(value.strip_suffix(FOUND).unwrap_or(value).to_owned())
    }

    /// Wait until all processes are here.
    pub fn barrier(&mut self) -> Result<(), Failed> {
        self.call("cmd=barrier_in", "barrier_out").map(drop)
    }

    /// Have the server end all processes; the caller has to end by itself.
    pub fn abort(&mut self, exit_code: i32, text: Option<&str>) -> Result<(), Failed> {
        let text = text.map(|text| format!(" error_msg={}", text.replace('\n', " ")));
        self.send(&format!("cmd=abort exitcode={exit_code}{}", text.unwrap_or_default()))
    }

    /// End the conversation.
    pub fn finalize(mut self) -> Result<(), Failed> {
        self.call("cmd=finalize", "finalize_ack").map(drop)
    }

    fn call(&mut self, request: &str, expected: &str) -> Result<Reply, Failed> {
        self.send(request)?;
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(LINE_MAX);
        limited.read_until(b'\n', &mut line).map_err(|_| Failed::FAIL)?;
        let reply = Reply(String::from_utf8(line).map_err(|_| Failed::FAIL)?);
        // Without its end the line is one that a server began before it went away.
        if !reply.0.ends_with('\n') || reply.request().get("cmd") != Some(expected) {
            return Err(Failed::FAIL);
        }
        match reply.number("rc") {
            Ok(0) => Ok(reply),
            Ok(rc) => Err(Failed(rc)),
            // Of some servers a reply without `rc` is a success.
            Err(_) => Ok(reply),
        }
    }

    fn send(&mut self, request: &str) -> Result<(), Failed> {
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|_| Failed::FAIL)
    }
}

/// A line of the server, with its newline.
struct Reply(String);

impl Reply {
    fn request(&self) -> Request<'_> {
        Request(self.0.trim_end_matches('\n'))
    }

    fn number(&self, key: &str) -> Result<i32, Failed> {
        self.request().get(key).and_then(|value| value.parse().ok()).ok_or(Failed::FAIL)
    }
}

/// What has blanks would be read as something else.
fn one_word(text: &str, error: Failed) -> Result<(), Failed> {
    let refused = text.is_empty() || text.contains(|c: char| c.is_ascii_whitespace());
    if refused { Err(error) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{Action, Server};

    const LAUNCH: Launch = Launch { fd: 3, rank: 0, size: 1, spawned: 0 };

    /// A client, with a server of this crate at the other end.
    fn served() -> Client<UnixStream> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut server = Server::new("space", 7, 1);
            let mut lines = BufReader::new(theirs);
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
                let reply = match server.request(line.trim_end_matches('\n')) {
                    Ok(Action::Reply(reply) | Action::Finalized(reply)) => reply,
                    Ok(Action::Complete) => server.release([]),
                    _ => return,
                };
                writeln!(lines.get_mut(), "{reply}").unwrap();
                line.clear();
            }
        });
        Client::new(LAUNCH, ours).unwrap()
    }

    /// A client whose server says these lines, whatever is asked.
    fn told(lines: &str) -> Result<(Client<UnixStream>, UnixStream), Failed> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(lines.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        Ok((Client::new(LAUNCH, ours)?, theirs))
    }

    #[test]
    fn client_and_server_understand_each_other() {
        let mut client = served();
        assert_eq!(client.maxes(), Maxes { name: 64, key: 64, value: 1024 });
        assert_eq!(client.universe_size(), Ok(7));
        assert_eq!(client.appnum(), Ok(0));
        let name = client.name().unwrap().to_owned();
        assert_eq!(name, "space");
        client.put(&name, "a", "b c=d").unwrap();
        client.barrier().unwrap();
        assert_eq!(client.get(&name, "a").as_deref(), Ok("b c=d"));
        assert_eq!(client.get(&name, "b"), Err(Failed::INVALID_KEY));
        assert_eq!(client.put(&name, "k", &"v".repeat(1024)), Err(Failed::INVALID_VAL_LENGTH));
        assert_eq!(client.put(&name, &"k".repeat(64), "v"), Err(Failed::INVALID_KEY_LENGTH));
        client.finalize().unwrap();
    }

    #[test]
    fn what_would_be_read_as_something_else_is_not_sent() {
        let mut client = served();
        assert_eq!(client.put("space", "a b", "c"), Err(Failed::INVALID_KEY));
        assert_eq!(client.put("space", "", "c"), Err(Failed::INVALID_KEY));
        assert_eq!(client.put("space", "a", "c\ncmd=abort"), Err(Failed::INVALID_VAL));
        assert_eq!(client.get("sp ace", "a"), Err(Failed::INVALID_ARG));
        client.finalize().unwrap();
    }

    #[test]
    fn servers_that_fail_or_go_away_are_failures() {
        let init = "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n";
        let maxes = "cmd=maxes rc=0 kvsname_max=9 keylen_max=9 vallen_max=9\n";
        for (lines, error) in [
            (String::new(), Failed::FAIL),
            ("cmd=response_to_init rc=2\n".to_owned(), Failed(2)),
            (format!("{init}cmd=maxes rc=0 kvsname_max=9"), Failed::FAIL),
            (init.replace("version=1", "version=2") + maxes, Failed::FAIL),
            ("x".repeat(70_000), Failed::FAIL),
        ] {
            assert_eq!(told(&lines).unwrap_err(), error, "{lines:.60}");
        }
        let found = format!("{init}{maxes}cmd=get_result rc=0 value=a b found=TRUE\n");
        let (mut client, _server) = told(&found).unwrap();
        assert_eq!(client.get("n", "k").as_deref(), Ok("a b"));
    }

    #[test]
    fn environments_without_a_server_are_told_from_broken_ones() {
        let launch = |fd: &str, rank: &str, size: &str| {
            let vars = [("PMI_FD", fd), ("PMI_RANK", rank), ("PMI_SIZE", size)]
                .map(|(n, v)| (n, v.to_owned()));
            Launch::from_env(move |name| {
                vars.iter().find(|(n, v)| *n == name && !v.is_empty()).map(|(_, v)| v.clone())
            })
        };
        assert_eq!(launch("5", "1", "2"), Ok(Launch { fd: 5, rank: 1, size: 2, spawned: 0 }));
        assert_eq!(launch("", "1", "2"), Err(LaunchError::Unset("PMI_FD")));
        assert_eq!(launch("x", "1", "2"), Err(LaunchError::Invalid("PMI_FD")));
        assert_eq!(launch("5", "-1", "2"), Err(LaunchError::Invalid("PMI_RANK")));
        assert_eq!(launch("5", "0", "0"), Err(LaunchError::Invalid("PMI_SIZE")));
    }
}
