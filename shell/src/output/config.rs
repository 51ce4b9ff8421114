//! The `output` option.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::fatal::Fatal;
use crate::job::Tags;
use crate::log::Log;
use crate::options::{Options, seconds};
use crate::task::lines::Buffering;

const COMPONENT: &str = "output.config";
const BATCH_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) stdout: StreamConfig,
    pub(crate) stderr: StreamConfig,
    /// Append to files rather than truncate them.
    pub(crate) append: bool,
    /// How long output waits for more before it is committed.
    pub(crate) patience: Duration,
    pub(crate) credits: Credits,
}

#[derive(Debug, Clone)]
pub(crate) struct StreamConfig {
    pub(crate) destination: Destination,
    /// Begin each line in a file with the task's rank.
    pub(crate) label: bool,
    pub(crate) buffering: Buffering,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    Log,
    /// `per_shell`: each shell or task has its own.
    File {
        template: String,
        per_shell: bool,
    },
}

/// Messages that a shell may send to the leader before it gets an answer, and how many may be left
/// when it asks for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credits {
    pub(crate) low: i64,
    pub(crate) high: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    mode: Option<String>,
    client: RawCredits,
    stdout: RawStream,
    stderr: RawStream,
    #[serde(rename = "batch-timeout")]
    batch_timeout: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawCredits {
    lwm: Option<i64>,
    hwm: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawStream {
    #[serde(rename = "type")]
    kind: Option<String>,
    path: Option<String>,
    label: Option<bool>,
    buffer: RawBuffer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawBuffer {
    #[serde(rename = "type")]
    kind: Option<String>,
}

// === impl Config ===

impl Config {
    pub(crate) fn new(options: &Options, tags: Tags<'_>, log: &Log) -> Result<Config, Fatal> {
        let raw: Raw = options.parse_object("output")?.unwrap_or_default();
        let credits =
            Credits { low: raw.client.lwm.unwrap_or(100), high: raw.client.hwm.unwrap_or(1000) };
        if credits.low < 0 || credits.low >= credits.high {
            return Err(Fatal::new(COMPONENT, "invalid client.lwm and/or client.hwm specified"));
        }
        let patience = match &raw.batch_timeout {
            None => BATCH_TIMEOUT,
            Some(value) => seconds(value)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .ok_or_else(|| Fatal::new("output.kvs", "invalid output.batch-timeout option"))?,
        };
        let append = match raw.mode.as_deref() {
            None | Some("truncate") => false,
            Some("append") => true,
            Some(mode) => {
                log.warn("output.task", format_args!("ignoring invalid output.mode={mode}"));
                false
            }
        };
        let default = StreamConfig {
            destination: Destination::Log,
            label: false,
            buffering: Buffering::Line,
        };
        let stdout = raw.stdout.over(default, tags, log)?;
        // Standard error goes where standard output goes, but is not held back.
        let inherited = StreamConfig { buffering: Buffering::None, ..stdout.clone() };
        let stderr = raw.stderr.over(inherited, tags, log)?;
        Ok(Config { stdout, stderr, append, patience, credits })
    }
}

impl RawStream {
    /// What is said of this stream, else what is there for it.
    fn over(
        self,
        inherited: StreamConfig,
        tags: Tags<'_>,
        log: &Log,
    ) -> Result<StreamConfig, Fatal> {
        let StreamConfig { mut destination, label, mut buffering } = inherited;
        let path = self.path.map(|template| {
            let per_shell = tags.is_per_shell(&template);
            Destination::File { template, per_shell }
        });
        match (self.kind.as_deref(), path) {
            (Some("kvs"), _) => destination = Destination::Log,
            (_, Some(path)) => destination = path,
            (Some("file"), None) if destination == Destination::Log => {
                return Err(Fatal::new("output.task", "path for file output not specified"));
            }
            (_, None) => {}
        }
        match self.buffer.kind.map(|kind| kind.to_ascii_lowercase()).as_deref() {
            Some("none") => buffering = Buffering::None,
            Some("line") => buffering = Buffering::Line,
            Some(other) => {
                log.error(COMPONENT, format_args!("invalid buffer type specified: {other}"));
                buffering = Buffering::Line;
            }
            None => {}
        }
        Ok(StreamConfig { destination, label: self.label.unwrap_or(label), buffering })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use serde_json::json;

    fn config(output: Value) -> Result<Config, Fatal> {
        let job = job(0, json!({"output": output}));
        Config::new(&job.jobspec.options, Tags::of(&job, None), &Log::new())
    }

    #[test]
    fn stderr_follows_stdout_unless_it_has_its_own() {
        let both = config(json!({"stdout": {"type": "file", "path": "o", "label": true}})).unwrap();
        assert_eq!(both.stderr.destination, both.stdout.destination);
        assert!(both.stderr.label);
        let own = config(json!({"stdout": {"path": "o"}, "stderr": {"type": "kvs"}})).unwrap();
        assert_eq!(own.stderr.destination, Destination::Log);
        let own =
            config(json!({"stdout": {"path": "o"}, "stderr": {"path": "{{taskid}}"}})).unwrap();
        let expected = Destination::File { template: "{{taskid}}".to_owned(), per_shell: true };
        assert_eq!(own.stderr.destination, expected);
    }

    #[test]
    fn stdout_waits_for_lines_and_stderr_for_nothing() {
        let plain = config(json!({})).unwrap();
        assert_eq!(
            (plain.stdout.buffering, plain.stderr.buffering),
            (Buffering::Line, Buffering::None)
        );
        let none = config(json!({"stdout": {"buffer": {"type": "NONE"}}})).unwrap();
        assert_eq!(none.stdout.buffering, Buffering::None);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            json!({"stdout": {"type": "file"}}),
            json!({"client": {"lwm": 5, "hwm": 5}}),
            json!({"batch-timeout": "x"}),
            json!({"stdout": 1}),
        ] {
            assert!(config(bad.clone()).is_err(), "{bad}");
        }
    }
}
