//! The server of the PMI-1 simple wire protocol (RFC 13), as `flux start` and `flux-shell` offer
//! it to the programs that they start. No I/O: lines in, lines out. [`client`] is the other side;
//! `library`, of the feature of this name, is the other side of launchers with a library.
//!
//! A client sends `cmd=NAME key=value ...` lines on the socket whose number is in `PMI_FD`:
//!
//! ```text
//! cmd=init pmi_version=1 pmi_subversion=1
//! cmd=put kvsname=NAME key=KEY value=VALUE...
//! cmd=barrier_in
//! ```
#![deny(unsafe_code)]

use std::collections::BTreeMap;

pub mod client;
mod code;
#[cfg(feature = "library")]
pub mod library;

pub use code::Failed;

/// Longest name of a key-value space, key, and value, with the terminating NUL of C clients.
const NAME_MAX: usize = 64;
const KEY_MAX: usize = 64;
const VALUE_MAX: usize = 1024;
const PMI_SUCCESS: i32 = 0;
const PMI_FAIL: i32 = Failed::FAIL.0;
const PMI_ERR_INVALID_KEY: i32 = Failed::INVALID_KEY.0;
const PMI_ERR_INVALID_VAL: i32 = Failed::INVALID_VAL.0;
const PMI_ERR_INVALID_KEY_LENGTH: i32 = Failed::INVALID_KEY_LENGTH.0;
const PMI_ERR_INVALID_VAL_LENGTH: i32 = Failed::INVALID_VAL_LENGTH.0;

/// What the caller has to do after a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a line, without its newline, to the client that sent the request.
    Reply(String),
    /// The client waits until the barrier is released; nothing is sent yet.
    Wait,
    /// All local clients are in the barrier. Exchange [`Server::take_puts`] with other servers of
    /// the program if there are any, then call [`Server::release`].
    Complete,
    /// The client has finished: send the line; a close of its socket is no error after that.
    Finalized(String),
    /// The client gives up the program; nothing is sent.
    Abort { exit_code: i32, text: String },
}

/// A line that is not of the protocol; the client is to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("PMI request without a command: {0:?}")]
    NoCommand(String),
    #[error("unknown PMI command {0:?}")]
    Unknown(String),
}

/// One program's server for the clients on this node.
#[derive(Debug)]
pub struct Server {
    kvsname: String,
    universe_size: u32,
    local_size: u32,
    pairs: BTreeMap<String, String>,
    /// Put since the last barrier.
    puts: BTreeMap<String, String>,
    entered: u32,
}

impl Server {
    /// For `local_size` clients here of `universe_size` in all.
    pub fn new(kvsname: impl Into<String>, universe_size: u32, local_size: u32) -> Server {
        Server {
            kvsname: kvsname.into(),
            universe_size,
            local_size,
            pairs: BTreeMap::new(),
            puts: BTreeMap::new(),
            entered: 0,
        }
    }

    /// Offer a key that all clients may get from the start.
    pub fn preset(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.pairs.insert(key.into(), value.into());
    }

    /// What clients have put since the last call, for other nodes' servers.
    pub fn take_puts(&mut self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.puts)
    }

    /// End the barrier, with what other servers' clients have put. Send the line that is returned
    /// to every local client.
    pub fn release(&mut self, others: impl IntoIterator<Item = (String, String)>) -> String {
        self.pairs.extend(others);
        self.entered = 0;
        format!("cmd=barrier_out rc={PMI_SUCCESS}")
    }

    /// End the barrier with a failure.
    pub fn release_failed(&mut self) -> String {
        self.entered = 0;
        format!("cmd=barrier_out rc={PMI_FAIL}")
    }

    /// Take a line, without its newline, of one client.
    pub fn request(&mut self, line: &str) -> Result<Action, ProtocolError> {
        let request = Request(line);
        let command =
            request.get("cmd").ok_or_else(|| ProtocolError::NoCommand(line.to_owned()))?;
        Ok(Action::Reply(match command {
            "init" => self.init(&request),
            "get_maxes" => format!(
                "cmd=maxes rc=0 kvsname_max={NAME_MAX} keylen_max={KEY_MAX} vallen_max={VALUE_MAX}"
            ),
            "get_appnum" => "cmd=appnum rc=0 appnum=0".to_owned(),
            "get_my_kvsname" => format!("cmd=my_kvsname rc=0 kvsname={}", self.kvsname),
            "get_universe_size" => {
                format!("cmd=universe_size rc=0 size={}", self.universe_size)
            }
            "put" => format!("cmd=put_result rc={}", self.put(&request)),
            "get" => self.get(&request),
            "barrier_in" => {
                self.entered += 1;
                let complete = self.entered >= self.local_size;
                return Ok(if complete { Action::Complete } else { Action::Wait });
            }
            "finalize" => return Ok(Action::Finalized("cmd=finalize_ack rc=0".to_owned())),
            "abort" => return Ok(abort(&request)),
            // PMI-1 without MPI's dynamic processes, which then say so themselves.
            "spawn" | "mcmd" => format!("cmd=spawn_result rc={PMI_FAIL}"),
            "publish_name" | "unpublish_name" | "lookup_name" => {
                format!("cmd={}_result rc={PMI_FAIL}", command.trim_end_matches("_name"))
            }
            _ => return Err(ProtocolError::Unknown(command.to_owned())),
        }))
    }

    fn init(&self, request: &Request<'_>) -> String {
        let rc = match request.get("pmi_version") {
            Some("1") => PMI_SUCCESS,
            _ => PMI_FAIL,
        };
        format!("cmd=response_to_init rc={rc} pmi_version=1 pmi_subversion=1")
    }

    fn put(&mut self, request: &Request<'_>) -> i32 {
        let Some(key) = request.get("key") else { return PMI_ERR_INVALID_KEY };
        let Some(value) = request.tail("value") else { return PMI_ERR_INVALID_VAL };
        if request.get("kvsname") != Some(self.kvsname.as_str()) || key.is_empty() {
            return PMI_ERR_INVALID_KEY;
        }
        if key.len() >= KEY_MAX {
            return PMI_ERR_INVALID_KEY_LENGTH;
        }
        if value.len() >= VALUE_MAX {
            return PMI_ERR_INVALID_VAL_LENGTH;
        }
        self.pairs.insert(key.to_owned(), value.to_owned());
        self.puts.insert(key.to_owned(), value.to_owned());
        PMI_SUCCESS
    }

    fn get(&self, request: &Request<'_>) -> String {
        match request.get("key").and_then(|key| self.pairs.get(key)) {
            Some(value) => format!("cmd=get_result rc={PMI_SUCCESS} value={value}"),
            None => format!("cmd=get_result rc={PMI_ERR_INVALID_KEY}"),
        }
    }
}

fn abort(request: &Request<'_>) -> Action {
    let exit_code = request.get("exitcode").and_then(|code| code.parse().ok()).unwrap_or(1);
    let text = request.tail("error_msg").unwrap_or("").to_owned();
    Action::Abort { exit_code, text }
}

/// `key=value` words; the value of the last key may have spaces in it.
struct Request<'a>(&'a str);

impl<'a> Request<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.split_ascii_whitespace().find_map(|word| {
            let (name, value) = word.split_once('=')?;
            (name == key).then_some(value)
        })
    }

    /// From `key=` to the end of the line.
    fn tail(&self, key: &str) -> Option<&'a str> {
        let start = self.0.match_indices(key).find(|(at, _)| {
            let before = self.0.get(..*at).unwrap_or("");
            let after = self.0.get(at + key.len()..).unwrap_or("");
            (before.is_empty() || before.ends_with(' ')) && after.starts_with('=')
        })?;
        self.0.get(start.0 + key.len() + 1..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(server: &mut Server, line: &str) -> String {
        match server.request(line).unwrap() {
            Action::Reply(reply) => reply,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_conversation_of_a_broker_is_answered_as_a_real_server_does() {
        let mut server = Server::new("-", 1, 1);
        server.preset("PMI_process_mapping", "(vector,(0,1,1))");
        for (request, response) in [
            (
                "cmd=init pmi_version=1 pmi_subversion=1",
                "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1",
            ),
            ("cmd=get_maxes", "cmd=maxes rc=0 kvsname_max=64 keylen_max=64 vallen_max=1024"),
            ("cmd=get_my_kvsname", "cmd=my_kvsname rc=0 kvsname=-"),
            ("cmd=get kvsname=- key=flux.instance-level", "cmd=get_result rc=4"),
            (
                "cmd=get kvsname=- key=PMI_process_mapping",
                "cmd=get_result rc=0 value=(vector,(0,1,1))",
            ),
            (r#"cmd=put kvsname=- key=0 value={"host":"a b","k=v":[]}"#, "cmd=put_result rc=0"),
            ("cmd=get kvsname=- key=0", r#"cmd=get_result rc=0 value={"host":"a b","k=v":[]}"#),
        ] {
            assert_eq!(reply(&mut server, request), response);
        }
        assert_eq!(server.request("cmd=barrier_in"), Ok(Action::Complete));
        assert_eq!(server.release([]), "cmd=barrier_out rc=0");
        assert_eq!(
            server.request("cmd=finalize"),
            Ok(Action::Finalized("cmd=finalize_ack rc=0".to_owned()))
        );
    }

    #[test]
    fn the_barrier_is_complete_when_the_last_local_client_enters() {
        let mut server = Server::new("k", 5, 3);
        assert_eq!(server.request("cmd=barrier_in"), Ok(Action::Wait));
        assert_eq!(server.request("cmd=barrier_in"), Ok(Action::Wait));
        assert_eq!(server.request("cmd=barrier_in"), Ok(Action::Complete));
        server.release([("other".to_owned(), "node".to_owned())]);
        assert_eq!(
            reply(&mut server, "cmd=get kvsname=k key=other"),
            "cmd=get_result rc=0 value=node"
        );
        assert_eq!(server.request("cmd=barrier_in"), Ok(Action::Wait));
    }

    #[test]
    fn only_what_was_put_since_the_last_barrier_is_exchanged() {
        let mut server = Server::new("k", 2, 1);
        reply(&mut server, "cmd=put kvsname=k key=a value=1");
        assert_eq!(server.take_puts().len(), 1);
        assert!(server.take_puts().is_empty());
    }

    #[test]
    fn keys_and_values_that_are_too_long_are_refused() {
        let mut server = Server::new("k", 1, 1);
        let key = format!("cmd=put kvsname=k key={} value=1", "k".repeat(64));
        assert_eq!(reply(&mut server, &key), "cmd=put_result rc=5");
        let value = format!("cmd=put kvsname=k key=a value={}", "v".repeat(1024));
        assert_eq!(reply(&mut server, &value), "cmd=put_result rc=7");
        assert_eq!(reply(&mut server, "cmd=put kvsname=x key=a value=1"), "cmd=put_result rc=4");
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error() {
        let mut server = Server::new("k", 1, 1);
        assert!(server.request("hello").is_err());
        assert!(server.request("cmd=nonsense").is_err());
    }

    proptest! {
        #[test]
        fn no_line_makes_the_server_panic(line in "\\PC{0,200}") {
            let _ = Server::new("k", 2, 1).request(&line);
        }
    }
}
