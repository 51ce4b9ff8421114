//! `flux kvs eventlog`: append to an eventlog, print it, wait for an event.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use flux_client::kvs::{self, Root, Transaction};
use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::{self, Event};
use flux_protocol::rpc::kvs::lookup;
use flux_protocol::rpc::kvs_watch;
use flux_protocol::treeobj::Treeobj;
use serde_json::value::RawValue;

use super::NamespaceOption;
use crate::args::{duration, within};
use crate::context::Context;
use crate::eventlog::{Formatter, TimeFormat};
use crate::failure::{Failure, Outcome};
use crate::json_text::quote;
use crate::term::Color;
use crate::{outln, output};

#[derive(Debug, Args)]
pub(crate) struct Eventlog {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Append to eventlog
    Append(Append),
    /// Get eventlog
    Get(Get),
    /// Wait for an event
    WaitEvent(WaitEvent),
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs eventlog append [-N ns] [-t SECONDS] key name [context ...]")]
struct Append {
    #[command(flatten)]
    namespace: NamespaceOption,
    /// Specify timestamp in seconds since epoch
    #[arg(short, long, value_name = "SECONDS")]
    timestamp: Option<f64>,
    key: String,
    name: String,
    /// A JSON object, or KEY=VALUE pairs
    context: Vec<String>,
}

#[derive(Debug, Args)]
struct FormatOptions {
    /// Show event in RFC 18 form
    #[arg(short, long)]
    unformatted: bool,
    /// Display human-readable output
    #[arg(short = 'H', long)]
    human: bool,
    #[command(flatten)]
    color: Color,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs eventlog get [-N ns] [-u] [-W] [-w] [-c COUNT] [-H] [-S]  \
                            [-L auto|always|never] key")]
struct Get {
    #[command(flatten)]
    namespace: NamespaceOption,
    /// Wait for creation to occur on watch
    #[arg(short = 'W', long)]
    waitcreate: bool,
    /// Monitor eventlog
    #[arg(short, long)]
    watch: bool,
    /// Display at most COUNT events
    #[arg(short, long)]
    count: Option<u64>,
    #[command(flatten)]
    format: FormatOptions,
    /// Return potentially large values in multiple responses.
    #[arg(short = 'S', long)]
    stream: bool,
    key: String,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "flux-kvs eventlog wait-event [-N ns] [-t seconds] [-u] [-W] [-q] [-v] \
                            [-L auto|always|never] key event"
)]
struct WaitEvent {
    #[command(flatten)]
    namespace: NamespaceOption,
    /// Wait for creation to occur on eventlog
    #[arg(short = 'W', long)]
    waitcreate: bool,
    /// timeout after DURATION
    #[arg(short, long, value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    format: FormatOptions,
    /// Do not output matched event
    #[arg(short, long)]
    quiet: bool,
    /// Output all events before matched event
    #[arg(short, long)]
    verbose: bool,
    key: String,
    event: String,
}

impl Eventlog {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        match self.command {
            Command::Append(command) => command.run(context).await,
            Command::Get(command) => command.run(context).await,
            Command::WaitEvent(command) => command.run(context).await,
        }
    }
}

impl Append {
    async fn run(self, context: &Context) -> Outcome {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = self.timestamp.filter(|t| *t != 0.0).unwrap_or(now.as_secs_f64());
        let mut event = Event::new(timestamp, self.name);
        if !self.context.is_empty() {
            event = event
                .with_context(&object(&self.context)?)
                .map_err(|e| Failure::of("eventlog_entry_create", e))?;
        }
        let line = event.encode().map_err(|e| Failure::of("eventlog_entry_create", e))?;
        let flux = context.connect().await?;
        Transaction::new()
            .append(&self.key, line.as_bytes())
            .commit(&flux, self.namespace.get(context), 0)
            .await
            .map_err(|e| Failure::of("flux_kvs_commit", e.errno()))?;
        Ok(0)
    }
}

impl FormatOptions {
    fn formatter(&self) -> Result<Formatter, Failure> {
        if self.unformatted && self.human {
            return Err(Failure::new("Do not specify --unformatted with --human"));
        }
        let mut formatter = Formatter::default();
        formatter.json = self.unformatted;
        formatter.color = self.color.stdout();
        if self.human {
            formatter.time = TimeFormat::Human;
        }
        Ok(formatter)
    }
}

impl Get {
    async fn run(self, context: &Context) -> Outcome {
        let mut formatter = self.format.formatter()?;
        let flux = context.connect().await?;
        let namespace = self.namespace.get(context);
        if !self.watch && !self.stream {
            let treeobj = self.get(&flux, namespace).await.map_err(lookup_failure)?;
            print(&mut formatter, &decode(&treeobj)?);
            return Ok(0);
        }
        let mut flags = 0;
        if self.watch {
            flags |= lookup::WATCH | lookup::WATCH_APPEND;
        }
        if self.waitcreate {
            flags |= lookup::WAITCREATE;
        }
        if self.stream {
            flags |= lookup::STREAM;
        }
        let mut stream = kvs::watch(&flux, namespace, &self.key, flags).map_err(lookup_failure)?;
        let mut left = self.count.filter(|count| *count > 0 && self.watch);
        while let Some(response) = stream.next().await.map_err(lookup_failure)? {
            let mut events = decode(&response.val)?;
            if let Some(left) = &mut left {
                if *left == 0 {
                    continue;
                }
                events.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= events.len() as u64;
            }
            print(&mut formatter, &events);
            if left == Some(0) {
                stream.cancel::<kvs_watch::Cancel>()?;
            }
        }
        Ok(0)
    }

    async fn get(&self, flux: &Client, namespace: &str) -> Result<Treeobj, RpcError> {
        if self.waitcreate {
            kvs::wait_create(flux, namespace, &self.key, 0).await
        } else {
            kvs::lookup(flux, Root::Namespace(namespace), &self.key, 0).await
        }
    }
}

impl WaitEvent {
    async fn run(self, context: &Context) -> Outcome {
        let mut formatter = self.format.formatter()?;
        let flux = context.connect().await?;
        let mut flags = lookup::WATCH | lookup::WATCH_APPEND;
        if self.waitcreate {
            flags |= lookup::WAITCREATE;
        }
        let failed = |e: RpcError| match e.errno() {
            Errno::ENOENT => Failure::new(format_args!("eventlog path {} not found", self.key)),
            _ => lookup_failure(e),
        };
        let mut stream =
            kvs::watch(&flux, self.namespace.get(context), &self.key, flags).map_err(failed)?;
        let mut found = false;
        loop {
            let response = within(self.timeout, stream.next()).await.ok_or_else(|| {
                Failure::new(format_args!("wait-event timeout on event '{}'", self.event))
            })?;
            let Some(response) = response.map_err(failed)? else { break };
            // After the event only the end of the stream is waited for.
            let events = if found { Vec::new() } else { decode(&response.val)? };
            for event in &events {
                formatter.see(event.timestamp);
                found = event.name == self.event;
                if (found && !self.quiet) || (!found && self.verbose) {
                    outln!("{}", formatter.format(event));
                }
                if found {
                    stream.cancel::<kvs_watch::Cancel>()?;
                    break;
                }
            }
            output::flush();
        }
        match found {
            true => Ok(0),
            false => Err(Failure::new(format_args!("event '{}' never received", self.event))),
        }
    }
}

fn print(formatter: &mut Formatter, events: &[Event]) {
    for event in events {
        outln!("{}", formatter.format(event));
    }
    output::flush();
}

fn decode(treeobj: &Treeobj) -> Result<Vec<Event>, Failure> {
    let bad = || Failure::new("cannot decode improperly formatted eventlog");
    let value = kvs::value(treeobj)?;
    eventlog::decode(std::str::from_utf8(&value).map_err(|_| bad())?).map_err(|_| bad())
}

fn lookup_failure(error: RpcError) -> Failure {
    Failure::of("flux_kvs_lookup_get", error.errno())
}

/// The context of an event from words that make up a JSON object, or are KEY=VALUE pairs.
fn object(words: &[String]) -> Result<Box<RawValue>, Failure> {
    let text = words.join(" ");
    let object = if text.starts_with('{') {
        text.clone()
    } else {
        let members: Option<Vec<String>> = words
            .iter()
            .map(|word| {
                let (key, value) = word.split_once('=')?;
                let is_json = serde_json::from_str::<&RawValue>(value).is_ok();
                let value = if is_json { value.to_owned() } else { quote(value) };
                Some(format!("{}:{value}", quote(key)))
            })
            .collect();
        format!("{{{}}}", members.unwrap_or_default().join(","))
    };
    match RawValue::from_string(object) {
        Ok(raw) if raw.get() != "{}" || text == "{}" => Ok(raw),
        _ => Err(Failure::new(format_args!("context '{text}' is neither JSON nor key=value"))),
    }
}
