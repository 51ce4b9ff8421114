//! Eventlogs of jobs: eventlog, wait-event.

use std::time::Duration;

use clap::{Args, ValueEnum};
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::{self, Event};
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::job_info::{self, watch};
use serde_json::value::RawValue;

use crate::args::{duration, within};
use crate::context::Context;
use crate::eventlog::{Formatter, TimeFormat};
use crate::failure::{Failure, Outcome};
use crate::json_text::{compact, unquote};
use crate::term::Color;
use crate::{jobid, jobwatch, outln, output};

// Doc comments of flattened arguments would become those of the command.
#[derive(Debug, Args)]
struct FormatOptions {
    /// Specify output format: text, json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    format: String,
    /// Specify time format: raw, iso, offset
    #[arg(short = 'T', long, value_name = "FORMAT", default_value = "raw")]
    time_format: String,
    /// Display human-readable output. See also --color, --format, and --time-format.
    #[arg(short = 'H', long)]
    human: bool,
    #[command(flatten)]
    color: Color,
    /// Specify alternate eventlog name or path suffix (e.g. "exec", "output", or
    /// "guest.exec.eventlog")
    #[arg(short, long, value_name = "PATH", default_value = "eventlog")]
    path: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job eventlog [OPTIONS] id")]
pub(super) struct Eventlog {
    #[command(flatten)]
    options: FormatOptions,
    /// Follow events until job is inactive.
    #[arg(short = 'F', long)]
    follow: bool,
    #[arg(required = true)]
    id: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job wait-event [OPTIONS] id event")]
pub(super) struct WaitEvent {
    #[command(flatten)]
    options: FormatOptions,
    /// timeout after DURATION
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// match key=val in context
    #[arg(short, long, value_name = "KEY=VAL")]
    match_context: Option<String>,
    /// required number of matches (default 1)
    #[arg(short, long, default_value_t = 1, allow_negative_numbers = true)]
    count: i64,
    /// Do not output matched event
    #[arg(short, long)]
    quiet: bool,
    /// Output all events before matched event
    #[arg(short, long)]
    verbose: bool,
    /// If path does not exist, wait for its creation
    #[arg(short = 'W', long)]
    waitcreate: bool,
    #[arg(required = true)]
    id: String,
    #[arg(required = true)]
    event: String,
}

/// An event to wait for.
struct Wanted<'a> {
    name: &'a str,
    /// Member of the context, and its value as text.
    context: Option<(&'a str, &'a str)>,
    count: i64,
    /// Print the event.
    print: bool,
    /// Print what comes before it.
    print_others: bool,
}

impl Eventlog {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let id = jobid::parse(&self.id)?;
        let (path, end) = path_of(&self.options.path);
        let mut formatter = self.options.formatter()?;
        if self.follow {
            // A log that has no last event of its own ends with the job.
            let wanted = Wanted {
                name: end.unwrap_or_default(),
                context: None,
                count: 1,
                print: true,
                print_others: true,
            };
            let log = Log { flux: &flux, id, name: &self.id, path };
            let found = wanted.wait(&log, watch::WAITCREATE, &mut formatter).await?;
            if !found && end.is_some() {
                return Err(never_received(wanted.name));
            }
            return Ok(0);
        }
        let log = lookup(&flux, id, &self.id, path).await?;
        for event in eventlog::decode(&log).map_err(|e| Failure::of("eventlog_decode", e))? {
            outln!("{}", formatter.format(&event));
        }
        Ok(0)
    }
}

async fn lookup(flux: &Client, id: JobId, name: &str, path: &str) -> Result<String, Failure> {
    let request = job_info::LookupRequest { id, keys: vec![path.to_owned()], flags: 0 };
    match flux.rpc::<job_info::Lookup>(flux_protocol::message::Nodeid::ANY, &request).await {
        Ok(response) => {
            Ok(response.get(path).and_then(|log| log.as_str()).unwrap_or_default().to_owned())
        }
        Err(e) => Err(not_found(&e, name, path, "flux_job_eventlog_lookup_get")),
    }
}

impl WaitEvent {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let id = jobid::parse(&self.id)?;
        let (path, _) = path_of(&self.options.path);
        if self.count <= 0 {
            return Err(Failure::new("count must be > 0"));
        }
        let mut formatter = self.options.formatter()?;
        let matched = match &self.match_context {
            Some(text) => Some(
                text.split_once('=')
                    .ok_or_else(|| Failure::new("must specify a context test as key=value"))?,
            ),
            None => None,
        };
        let wanted = Wanted {
            name: &self.event,
            context: matched,
            count: self.count,
            print: !self.quiet,
            print_others: self.verbose,
        };
        let flux = context.connect().await?;
        let flags = if self.waitcreate { watch::WAITCREATE } else { 0 };
        let log = Log { flux: &flux, id, name: &self.id, path };
        let waiting = wanted.wait(&log, flags, &mut formatter);
        match within(self.timeout, waiting).await {
            Some(Ok(true)) => Ok(0),
            Some(Ok(false)) => Err(never_received(&self.event)),
            Some(Err(e)) => Err(e),
            None => Err(Failure::new(format_args!("wait-event timeout on event '{}'", self.event))),
        }
    }
}

/// A log of a job.
struct Log<'a> {
    flux: &'a Client,
    id: JobId,
    /// The id as the user wrote it.
    name: &'a str,
    path: &'a str,
}

impl Wanted<'_> {
    /// Returns whether the event came before the log's end.
    async fn wait(
        &self,
        log: &Log<'_>,
        flags: u32,
        formatter: &mut Formatter,
    ) -> Result<bool, Failure> {
        let failed = |e| not_found(&e, log.name, log.path, "flux_job_event_watch_get");
        let mut events = jobwatch::watch(log.flux, log.id, log.path, flags)?;
        let mut count = 0;
        while let Some(event) = events.next().await.map_err(failed)? {
            formatter.see(event.timestamp);
            count += i64::from(self.matches(&event));
            let found = count == self.count;
            if if found { self.print } else { self.print_others } {
                outln!("{}", formatter.format(&event));
                output::flush();
            }
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn matches(&self, event: &Event) -> bool {
        if event.name != self.name {
            return false;
        }
        let Some((key, wanted)) = self.context else { return true };
        let Some(context) = &event.context else { return false };
        let members = context.members().unwrap_or_default();
        members.get(key).is_some_and(|value: &&RawValue| {
            compact(value) == wanted || unquote(value).as_deref() == Some(wanted)
        })
    }
}

impl FormatOptions {
    fn formatter(&self) -> Result<Formatter, Failure> {
        let json = match self.format.to_lowercase().as_str() {
            _ if self.human => false,
            "text" => false,
            "json" => true,
            _ => {
                let format = &self.format;
                return Err(Failure::new(format_args!("invalid format type '{format}'")));
            }
        };
        let time = match TimeFormat::from_str(&self.time_format, true) {
            _ if self.human => TimeFormat::Human,
            Ok(time) => time,
            Err(_) => {
                let format = &self.time_format;
                return Err(Failure::new(format_args!("invalid time-format type '{format}'")));
            }
        };
        let mut formatter = Formatter::default();
        (formatter.time, formatter.json, formatter.color) = (time, json, self.color.stdout());
        Ok(formatter)
    }
}

/// The path of a log by its short name, and the event that ends it where there is one.
fn path_of(name: &str) -> (&str, Option<&'static str>) {
    match name {
        "eventlog" => ("eventlog", Some("clean")),
        "exec" | "guest.exec.eventlog" => ("guest.exec.eventlog", Some("done")),
        "output" => ("guest.output", None),
        "input" => ("guest.input", None),
        other => (other, None),
    }
}

fn never_received(event: &str) -> Failure {
    Failure::new(format_args!("event '{event}' never received"))
}

fn not_found(error: &flux_client::RpcError, name: &str, path: &str, call: &str) -> Failure {
    match error.errno() {
        Errno::ENOENT if path == "eventlog" => Failure::new(format_args!("job {name} not found")),
        Errno::ENOENT => Failure::new(format_args!("eventlog path {path} not found")),
        errno => Failure::of(call, errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_match_by_name_and_context() {
        let event = Event::decode(
            r#"{"timestamp":1.0,"name":"exception","context":{"type":"cancel","severity":0}}"#,
        )
        .unwrap();
        let wanted =
            |name, context| Wanted { name, context, count: 1, print: true, print_others: false };
        assert!(wanted("exception", None).matches(&event));
        assert!(!wanted("clean", None).matches(&event));
        assert!(wanted("exception", Some(("severity", "0"))).matches(&event));
        assert!(wanted("exception", Some(("type", "cancel"))).matches(&event));
        assert!(wanted("exception", Some(("type", "\"cancel\""))).matches(&event));
        assert!(!wanted("exception", Some(("note", "x"))).matches(&event));
    }

    #[test]
    fn logs_have_short_names() {
        assert_eq!(path_of("exec"), ("guest.exec.eventlog", Some("done")));
        assert_eq!(path_of("output"), ("guest.output", None));
        assert_eq!(path_of("guest.x"), ("guest.x", None));
    }
}
