//! Standard output and error of tasks: to the job's output log (RFC 24), or to files.
//!
//! The leader writes the log and the files of the whole job; other shells send it what is for
//! those, and write themselves the files that are theirs alone.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flux_client::Client;
use flux_protocol::payload::PayloadError;
use flux_protocol::rpc::rexec::Io;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fatal::Fatal;
use crate::io;
use crate::job::{Job, Tags};
use crate::journal::{Journal, OUTPUT};
use crate::log::{Entry, Level, Log};
use crate::task::Stream;
use crate::task::lines::Lines;

pub(crate) mod config;
mod files;
mod limit;
mod remote;

use config::{Config, Destination};
use files::{FileId, Files};
use limit::Limit;
pub(crate) use remote::{Credit, Remote};

/// How long log entries wait for others.
const LOG_PATIENCE: Duration = Duration::from_millis(10);

pub(crate) struct Output {
    log: Log,
    config: Config,
    files: Files,
    tasks: Vec<TaskOutput>,
    /// Where entries of the whole job go, log entries among them.
    shared: BTreeMap<&'static str, FileId>,
    limit: Limit,
    remote: Option<Remote>,
}

/// Request of another shell to the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WriteRequest {
    pub(crate) name: String,
    pub(crate) shell_rank: i64,
    pub(crate) context: Box<RawValue>,
}

struct TaskOutput {
    rank: String,
    stdout: StreamOutput,
    stderr: StreamOutput,
}

struct StreamOutput {
    lines: Lines,
    /// `None`: the job's log.
    file: Option<FileId>,
}

#[derive(Serialize)]
struct Header {
    version: u32,
    encoding: Streams<&'static str>,
    count: Streams<u32>,
    options: BTreeMap<&'static str, Value>,
}

#[derive(Serialize)]
struct Streams<T> {
    stdout: T,
    stderr: T,
}

#[derive(Serialize)]
struct Redirect<'a> {
    stream: &'a str,
    rank: String,
    path: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct LogContext<'a> {
    #[serde(default = "unknown")]
    rank: i64,
    level: i64,
    message: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    component: Option<std::borrow::Cow<'a, str>>,
}

// === impl Output ===

impl Output {
    /// Open files; the leader also begins the log.
    pub(crate) fn new(
        job: &Job,
        tags: Tags<'_>,
        flux: &Client,
        log: &Log,
        journal: &mut Journal,
    ) -> Result<Output, Fatal> {
        let config = Config::new(&job.jobspec.options, tags, log)?;
        let remote = (!job.is_leader()).then(|| Remote::new(flux, job, config.credits));
        let mut output = Output {
            log: log.clone(),
            limit: Limit::new(job, log)?,
            files: Files::new(config.append),
            tasks: Vec::new(),
            shared: BTreeMap::new(),
            remote,
            config,
        };
        for task in job.tasks() {
            let task_output = output.open(tags.task(task), task.rank)?;
            output.tasks.push(task_output);
        }
        if let Some(first) = output.tasks.first() {
            for (name, stream) in [("stdout", &first.stdout), ("stderr", &first.stderr)] {
                if let Some(file) = stream.file {
                    output.shared.insert(name, file);
                }
            }
        }
        if job.is_leader() {
            output.begin(job, tags, journal);
        }
        Ok(output)
    }

    /// A piece of a task's output has been read.
    pub(crate) fn data(
        &mut self,
        index: usize,
        stream: Stream,
        data: &[u8],
        journal: &mut Journal,
    ) {
        let Some(lines) = self.stream(index, stream).map(|stream| &mut stream.lines) else {
            return;
        };
        lines.push(data);
        while let Some(piece) = self.stream(index, stream).and_then(|stream| stream.lines.next()) {
            self.write(index, stream, Some(piece), journal);
        }
    }

    /// A task's terminal shows something.
    pub(crate) fn terminal_data(&mut self, index: usize, data: Bytes, journal: &mut Journal) {
        self.write(index, Stream::Stdout, Some(data), journal);
    }

    /// A stream of a task has ended.
    pub(crate) fn eof(&mut self, index: usize, stream: Stream, journal: &mut Journal) {
        let rest = self.stream(index, stream).and_then(|stream| stream.lines.finish());
        if rest.is_some() {
            self.write(index, stream, rest, journal);
        }
        self.write(index, stream, None, journal);
    }

    /// Another shell sends output or log entries.
    pub(crate) fn write_remote(
        &mut self,
        request: &WriteRequest,
        journal: &mut Journal,
    ) -> Result<(), PayloadError> {
        let text = request.context.get();
        match request.name.as_str() {
            "data" => {
                let context: Io = serde_json::from_str(text)?;
                let data = io::decode(&context).unwrap_or_default();
                if let Some(file) = self.shared.get(context.stream.as_str()) {
                    self.files.write(*file, &context.rank, &data, &self.log);
                } else {
                    self.record(&context, data.len(), journal);
                }
            }
            "log" => {
                let context: LogContext<'_> = serde_json::from_str(text)?;
                match self.shared.get("stderr") {
                    Some(file) => {
                        let line = log_line(&context);
                        self.files.write_line(*file, &line, &self.log);
                    }
                    None => journal.append(OUTPUT, "log", &context, LOG_PATIENCE),
                }
            }
            name => {
                let context: &RawValue = &request.context;
                journal.append(OUTPUT, name, context, self.config.patience);
            }
        }
        Ok(())
    }

    /// Write what the shell itself has to say.
    pub(crate) fn log(&mut self, entry: &Entry, journal: &mut Journal) {
        let context = log_context(entry);
        if self.config.stderr.destination == Destination::Log {
            let patience = LOG_PATIENCE;
            journal.append_at(entry.timestamp, OUTPUT, "log", &context, patience);
        } else if let Some(file) = self.shared.get("stderr") {
            self.files.write_line(*file, &log_line(&context), &self.log);
        } else if let Some(remote) = &mut self.remote {
            remote.send("log", &context, &self.log);
        }
    }

    /// All output has been written: tell of what has not.
    pub(crate) fn finish(&mut self) {
        self.limit.report(&self.log);
    }

    /// Whether there is room for more output: the leader has given credit.
    pub(crate) fn has_room(&self) -> bool {
        self.remote.as_ref().is_none_or(Remote::has_credit)
    }

    pub(crate) fn remote(&mut self) -> Option<&mut Remote> {
        self.remote.as_mut()
    }

    fn stream(&mut self, index: usize, stream: Stream) -> Option<&mut StreamOutput> {
        let task = self.tasks.get_mut(index)?;
        Some(match stream {
            Stream::Stdout => &mut task.stdout,
            Stream::Stderr => &mut task.stderr,
        })
    }

    /// Write a piece, or the end, of a task's stream.
    fn write(&mut self, index: usize, stream: Stream, data: Option<Bytes>, journal: &mut Journal) {
        let Some(task) = self.tasks.get(index) else { return };
        let file = match stream {
            Stream::Stdout => task.stdout.file,
            Stream::Stderr => task.stderr.file,
        };
        if let Some(file) = file {
            if let Some(data) = data {
                self.files.write(file, &task.rank, &data, &self.log);
            }
            return;
        }
        let context = io::encode(stream.name(), &task.rank, data.as_deref());
        match &mut self.remote {
            Some(remote) => remote.send("data", &context, &self.log),
            None => self.record(&context, data.map_or(0, |data| data.len()), journal),
        }
    }

    /// Append to the job's log, unless there is too much in it.
    fn record(&mut self, context: &Io, len: usize, journal: &mut Journal) {
        let admitted = self.limit.admit(&context.stream, len, &self.log);
        if admitted || context.eof {
            journal.append(OUTPUT, "data", context, self.config.patience);
        }
    }

    fn open(&mut self, tags: Tags<'_>, rank: u32) -> Result<TaskOutput, Fatal> {
        let is_leader = self.remote.is_none();
        let mut open = |stream: &config::StreamConfig| {
            let file = match &stream.destination {
                Destination::Log => None,
                Destination::File { template, per_shell } if is_leader || *per_shell => {
                    let path = tags.render(template);
                    let opened = self.files.open(&path, stream.label);
                    Some(opened.map_err(|text| Fatal::new("output", text))?)
                }
                Destination::File { .. } => None,
            };
            Ok(StreamOutput { lines: Lines::new(stream.buffering), file })
        };
        let stdout = open(&self.config.stdout)?;
        let stderr = open(&self.config.stderr)?;
        Ok(TaskOutput { rank: rank.to_string(), stdout, stderr })
    }

    /// Write the log's header, and where output is if not in the log.
    fn begin(&mut self, job: &Job, tags: Tags<'_>, journal: &mut Journal) {
        let count = job.layout.total_ntasks;
        let header = Header {
            version: 1,
            encoding: Streams { stdout: "UTF-8", stderr: "UTF-8" },
            count: Streams { stdout: count, stderr: count },
            options: BTreeMap::new(),
        };
        let patience = self.config.patience;
        journal.append(OUTPUT, "header", &header, patience);
        for (stream, config) in [("stdout", &self.config.stdout), ("stderr", &self.config.stderr)] {
            if let Destination::File { template, .. } = &config.destination {
                let rank = match count {
                    1 => "0".to_owned(),
                    _ => format!("[0-{}]", count.saturating_sub(1)),
                };
                // A node that does not exist: tags of nodes and tasks stay as they are.
                let path = tags.node(job.size()).render(template);
                journal.append(OUTPUT, "redirect", &Redirect { stream, rank, path }, patience);
            }
        }
    }
}

fn log_context(entry: &Entry) -> LogContext<'_> {
    LogContext {
        rank: entry.rank,
        level: entry.level as i64,
        message: entry.message.as_str().into(),
        component: entry.component.map(Into::into),
    }
}

/// A log entry as it stands in a file.
fn log_line(context: &LogContext<'_>) -> String {
    let rank = match context.rank {
        rank if rank >= 0 => format!("[{rank}]"),
        _ => String::new(),
    };
    let level = Level::from_number(context.level).name();
    let component = match &context.component {
        Some(component) => format!("{component}: "),
        None => String::new(),
    };
    format!("flux-shell{rank}: {level}: {component}{}\n", context.message)
}

fn unknown() -> i64 {
    -1
}

/// Write a log entry straight to the job's log: before there is an [`Output`].
pub(crate) fn log_early(entry: &Entry, journal: &mut Journal) {
    journal.append_at(entry.timestamp, OUTPUT, "log", &log_context(entry), LOG_PATIENCE);
}
