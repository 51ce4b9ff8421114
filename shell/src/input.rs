//! Standard input of tasks: from the job's input service, or from a file.
//!
//! The leader answers `UID-shell-ID.stdin`, records what comes in the job's input log, and gives
//! it to its own tasks at once; the other shells watch the log.

use std::fs::File;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::idset::Idset;
use flux_protocol::rpc::rexec::Io;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::fatal::{Fatal, reason};
use crate::io;
use crate::job::Job;
use crate::journal::{INPUT, Journal};
use crate::log::Log;
use crate::options::{format_size, seconds, size};

const BATCH_TIMEOUT: Duration = Duration::from_millis(500);
const LIMIT: u64 = 10 << 20;
const LIMIT_MOST: u64 = 32 << 20;

#[derive(Debug)]
pub(crate) struct Input {
    source: Source,
    patience: Duration,
    /// Tasks whose stdin may still get something.
    open: Idset,
    limit: u64,
    bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Service,
    File(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    stdin: RawStdin,
    limit: Option<Value>,
    #[serde(rename = "batch-timeout")]
    batch_timeout: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawStdin {
    #[serde(rename = "type")]
    kind: Option<String>,
    path: Option<String>,
}

#[derive(Serialize)]
struct Header {
    version: u32,
    encoding: Stdin<&'static str>,
    count: Stdin<u32>,
    options: BTreeMap<&'static str, Value>,
}

#[derive(Serialize)]
struct Stdin<T> {
    stdin: T,
}

#[derive(Serialize)]
struct Redirect<'a> {
    stream: &'a str,
    rank: &'a str,
    path: &'a str,
}

/// Why input was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// An answer to the sender.
    Errno(Errno),
    /// There is too much of it for the job to go on.
    Fatal(Fatal),
}

/// Which tasks a piece of input is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    All,
    Tasks(Idset),
}

// === impl Input ===

impl Input {
    /// Read the `input` option; the leader also begins the log.
    pub(crate) fn new(job: &Job, log: &Log, journal: &mut Journal) -> Result<Input, Fatal> {
        let raw: Raw = job.jobspec.options.parse_object("input")?.unwrap_or_default();
        let source = match raw.stdin.kind.as_deref() {
            None | Some("service") => Source::Service,
            Some("file") => {
                let path = raw.stdin.path.ok_or_else(|| {
                    Fatal::new("input.file", "path for stdin file input not specified")
                })?;
                readable(&path)?;
                Source::File(path)
            }
            Some(kind) => {
                let text = format!("input.stdin.type={kind} invalid");
                return Err(Fatal::new("input.service", text));
            }
        };
        let limit = match &raw.limit {
            None => LIMIT,
            Some(value) => match size(value) {
                Some(bytes) if (1..=LIMIT_MOST).contains(&bytes) => bytes,
                _ => {
                    let text = format!("Invalid KVS input.limit={value}");
                    return Err(Fatal::new("input.util", text));
                }
            },
        };
        let patience = match &raw.batch_timeout {
            None => BATCH_TIMEOUT,
            Some(value) => seconds(value)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .ok_or_else(|| Fatal::new("input.util", "invalid input.batch-timeout option"))?,
        };
        let input = Input {
            source,
            patience,
            open: Idset::first_n(job.layout.total_ntasks),
            limit,
            bytes: 0,
        };
        if job.is_leader() {
            let seconds = input.patience.as_secs_f64();
            log.debug("input.util", format_args!("input batch timeout = {seconds:.3}s"));
            input.begin(journal);
        }
        Ok(input)
    }

    /// The file that is every task's stdin, if it is one.
    pub(crate) fn open_file(&self) -> Option<Result<File, String>> {
        match &self.source {
            Source::Service => None,
            Source::File(path) => Some(
                File::open(path)
                    .map_err(|e| format!("error opening input file '{path}': {}", reason(&e))),
            ),
        }
    }

    pub(crate) fn is_service(&self) -> bool {
        self.source == Source::Service
    }

    /// Record a piece of input that came to the service. EPIPE: its tasks have had their end.
    pub(crate) fn record(&mut self, io: &Io, journal: &mut Journal) -> Result<Target, Refusal> {
        let target = Target::of(io).ok_or(Refusal::Errno(Errno::EPROTO))?;
        let is_open = match &target {
            Target::All => !self.open.is_empty(),
            Target::Tasks(ids) => !ids.is_empty() && ids.is_subset(&self.open),
        };
        if !self.is_service() {
            return Err(Refusal::Errno(Errno::ENOSYS));
        }
        if !is_open {
            return Err(Refusal::Errno(Errno::EPIPE));
        }
        self.bytes += io::decode(io).map_or(0, |data| data.len() as u64);
        if self.bytes > self.limit {
            let text = format!(
                "stdin exceeds {} limit. Try file input (flux submit --input=FILE) or redirect \
                 input to your command to avoid the KVS for large amounts of input",
                format_size(self.limit)
            );
            return Err(Refusal::Fatal(Fatal::new("input.util", text)));
        }
        journal.append(INPUT, "data", io, self.patience);
        if io.eof {
            journal.flush();
            match &target {
                Target::All => self.open = Idset::new(),
                Target::Tasks(ids) => self.open.subtract(ids),
            }
        }
        Ok(target)
    }

    fn begin(&self, journal: &mut Journal) {
        let header = Header {
            version: 1,
            encoding: Stdin { stdin: "UTF-8" },
            count: Stdin { stdin: 1 },
            options: BTreeMap::new(),
        };
        journal.append(INPUT, "header", &header, self.patience);
        if let Source::File(path) = &self.source {
            let redirect = Redirect { stream: "stdin", rank: "all", path };
            journal.append(INPUT, "redirect", &redirect, self.patience);
        }
    }
}

// === impl Target ===

impl Target {
    /// `None`: the piece does not say.
    pub(crate) fn of(io: &Io) -> Option<Target> {
        match io.rank.as_str() {
            "all" => Some(Target::All),
            ranks => Idset::decode(ranks).ok().map(Target::Tasks),
        }
    }

    pub(crate) fn contains(&self, rank: u32) -> bool {
        match self {
            Target::All => true,
            Target::Tasks(ids) => ids.contains(rank),
        }
    }
}

/// One error now is better than one of each task.
fn readable(path: &str) -> Result<(), Fatal> {
    use nix::unistd::{AccessFlags, access};
    access(path, AccessFlags::R_OK).map_err(|errno| {
        let reason = reason(&std::io::Error::from_raw_os_error(errno as i32));
        Fatal::new("input.file", format!("error opening input file '{path}': {reason}"))
    })
}
