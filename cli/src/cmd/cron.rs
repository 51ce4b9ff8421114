//! `flux cron`: commands that run at times and on events.

use std::io::Read;
use std::path::PathBuf;
use std::process::Command as Process;

use clap::{Args, Subcommand};
use flux_client::{Client, Request, RpcError};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{self, Object};
use flux_protocol::rpc::cron as rpc;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::context::Context;
use crate::eventlog::local;
use crate::failure::{Failure, Outcome, strerror};
use crate::{json_text, outln};

mod show;
mod time;

use time::parse_time;

#[derive(Debug, Args)]
#[command(override_usage = "flux-cron [OPTIONS] COMMAND [OPTIONS...]")]
pub(crate) struct Cron {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// run COMMAND once every INTERVAL
    Interval(Interval),
    /// run COMMAND on every event matching TOPIC
    Event(Event),
    /// Schedule cron jobs using crontab(5) format
    #[command(override_usage = "flux-cron tab [OPTIONS] [FILE]")]
    Tab {
        #[command(flatten)]
        options: Options,
        file: Option<PathBuf>,
    },
    /// Schedule a cron job at a given date and time
    #[command(override_usage = "flux-cron at [OPTIONS] TIME COMMAND")]
    At {
        #[command(flatten)]
        options: Options,
        time: String,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// List registered and stopped flux-cron jobs
    List,
    /// Stop a flux cron job from executing
    Stop {
        #[arg(required = true)]
        id: Vec<u64>,
    },
    /// Start a stopped flux cron job
    Start {
        #[arg(required = true)]
        id: Vec<u64>,
    },
    /// Delete flux cron entries
    Delete {
        /// Also kill any currently running task associated with this entry
        #[arg(short, long)]
        kill: bool,
        #[arg(required = true)]
        id: Vec<u64>,
    },
    /// Dump values from a cron entry
    Dump {
        /// Print only KEY from the entry
        #[arg(short, long)]
        key: Option<String>,
        id: u64,
    },
    /// Query and modify sync-on-event behavior for flux-cron
    Sync {
        /// Disable cron sync-event
        #[arg(short, long)]
        disable: bool,
        /// Set amount of time after a sync-event that jobs are still allowed to be run.
        #[arg(short, long, value_name = "TIME", value_parser = parse_time)]
        epsilon: Option<f64>,
        topic: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// Comma separated list of key=value options to set in request
    #[arg(short, long, value_name = "OPTS")]
    options: Option<String>,
    /// Use current environment for cron command
    #[arg(short = 'E', long)]
    preserve_env: bool,
    /// Set working director for cron command
    #[arg(short = 'd', long, value_name = "DIR")]
    working_dir: Option<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-cron interval [OPTIONS] INTERVAL COMMAND")]
struct Interval {
    /// Repeat COMMAND at most N times
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Name cron job string S instead of default
    #[arg(short = 'N', long, value_name = "S")]
    name: Option<String>,
    /// Set INTERVAL for initial timer
    #[arg(short, long, value_name = "INTERVAL", value_parser = parse_time)]
    after: Option<f64>,
    #[command(flatten)]
    options: Options,
    interval: String,
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-cron event [OPTIONS] TOPIC COMMAND")]
struct Event {
    /// Run command every Nth matching event
    #[arg(short, long, value_name = "N")]
    nth: Option<u64>,
    /// Run command the first time only after N events
    #[arg(short, long, value_name = "N")]
    after: Option<u64>,
    /// Set minimum interval at which two cron jobs will execute
    #[arg(short = 'i', long, value_name = "T", value_parser = parse_time)]
    min_interval: Option<f64>,
    /// Repeat COMMAND at most N times
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Name cron job string S instead of default
    #[arg(short = 'N', long, value_name = "S")]
    name: Option<String>,
    #[command(flatten)]
    options: Options,
    topic: String,
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// A schedule of one kind, before it has an entry.
struct Schedule<'a> {
    kind: &'static str,
    args: Vec<(&'static str, Value)>,
    command: String,
    name: Option<String>,
    repeat: Option<u64>,
    options: &'a Options,
}

impl Cron {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let name = self.command.name();
        let flux = context.connect().await?;
        self.command
            .run(&flux, &context)
            .await
            .map_err(|failure| failure.prefix(format!("flux-cron {name}")))
    }
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Command::Interval(_) => "interval",
            Command::Event(_) => "event",
            Command::Tab { .. } => "tab",
            Command::At { .. } => "at",
            Command::List => "list",
            Command::Stop { .. } => "stop",
            Command::Start { .. } => "start",
            Command::Delete { .. } => "delete",
            Command::Dump { .. } => "dump",
            Command::Sync { .. } => "sync",
        }
    }

    async fn run(self, flux: &Client, context: &Context) -> Outcome {
        match self {
            Command::Interval(interval) => interval.run(flux, context).await,
            Command::Event(event) => event.run(flux, context).await,
            Command::Tab { options, file } => tab(flux, context, &options, file).await,
            Command::At { options, time, command } => {
                at(flux, context, &options, &time, &command.join(" ")).await
            }
            Command::List => {
                show::list(&entries(flux).await?);
                Ok(0)
            }
            Command::Stop { id } => {
                for id in id {
                    flux.rpc::<rpc::Stop>(Nodeid::ANY, &rpc::IdRequest { id })
                        .await
                        .map_err(failed)?;
                    outln!("Stopped cron-{id}");
                }
                Ok(0)
            }
            Command::Start { id } => {
                for id in id {
                    flux.rpc::<rpc::Start>(Nodeid::ANY, &rpc::IdRequest { id })
                        .await
                        .map_err(failed)?;
                    outln!("Started cron-{id}");
                }
                Ok(0)
            }
            Command::Delete { kill, id } => {
                for id in id {
                    let entry = flux
                        .rpc::<rpc::Delete>(Nodeid::ANY, &rpc::DeleteRequest { id, kill })
                        .await
                        .map_err(failed)?;
                    outln!("Removed cron-{id}: {}{}", entry.name, show::last_run(&entry));
                }
                Ok(0)
            }
            Command::Dump { key, id } => dump(flux, id, key.as_deref()).await,
            Command::Sync { disable, epsilon, topic } => sync(flux, disable, epsilon, topic).await,
        }
    }
}

impl Interval {
    async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let interval = parse_time(&self.interval).map_err(Failure::new)?;
        let mut args = vec![("interval", number(interval))];
        args.extend(self.after.map(|after| ("after", number(after))));
        let schedule = Schedule {
            kind: "interval",
            args,
            command: self.command.join(" "),
            name: self.name,
            repeat: self.count,
            options: &self.options,
        };
        let entry = schedule.create(flux, context).await?;
        outln!("interval: cron-{} created", entry.id);
        Ok(0)
    }
}

impl Event {
    async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let mut args = vec![("topic", Value::from(self.topic))];
        args.extend(self.nth.map(|nth| ("nth", Value::from(nth))));
        args.extend(self.after.map(|after| ("after", Value::from(after))));
        args.extend(self.min_interval.map(|seconds| ("min_interval", number(seconds))));
        let schedule = Schedule {
            kind: "event",
            args,
            command: self.command.join(" "),
            name: self.name,
            repeat: self.count,
            options: &self.options,
        };
        let entry = schedule.create(flux, context).await?;
        outln!("event: cron-{} created", entry.id);
        Ok(0)
    }
}

impl Schedule<'_> {
    async fn create(self, flux: &Client, context: &Context) -> Result<rpc::Entry, Failure> {
        let first_word = self.command.split_whitespace().next().unwrap_or_default().to_owned();
        let request = rpc::CreateRequest {
            kind: self.kind.to_owned(),
            name: self.name.unwrap_or(first_word),
            command: self.command,
            args: self.args.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            repeat: self.repeat,
            cwd: self.options.working_dir.clone(),
            environ: self.options.preserve_env.then(|| context.env.all().clone()),
            ..rpc::CreateRequest::default()
        };
        // Whatever numbers the service knows may be set by name.
        let mut object: Object = serde_json::to_value(&request)
            .and_then(serde_json::from_value)
            .map_err(Failure::new)?;
        for option in self.options.options.iter().flat_map(|text| text.split(',')) {
            let parsed = option
                .split_once('=')
                .and_then(|(key, value)| Some((key.to_owned(), number(value.parse().ok()?))));
            let (key, value) = parsed.ok_or_else(|| {
                Failure::new(format_args!("option '{option}' is not of the form key=NUMBER"))
            })?;
            object.insert(key, value);
        }
        let request = Request::new("cron.create")
            .payload(payload::encode_json(&object).map_err(Failure::new)?);
        flux.start_raw(request)?.decode::<rpc::Entry>().await.map_err(failed)
    }
}

async fn tab(
    flux: &Client,
    context: &Context,
    options: &Options,
    file: Option<PathBuf>,
) -> Outcome {
    let text = match file.filter(|file| file.as_os_str() != "-") {
        Some(file) => {
            std::fs::read_to_string(&file).map_err(|e| Failure::of(file.display(), strerror(&e)))?
        }
        None => {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .read_to_string(&mut text)
                .map_err(|e| Failure::of("stdin", strerror(&e)))?;
            text
        }
    };
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (args, command) = time::crontab(line)
            .ok_or_else(|| Failure::new(format_args!("Failed to process crontab line: {line}")))?;
        let schedule =
            Schedule { kind: "datetime", args, command, name: None, repeat: None, options };
        scheduled("tab", &schedule.create(flux, context).await?);
    }
    Ok(0)
}

async fn at(
    flux: &Client,
    context: &Context,
    options: &Options,
    time: &str,
    command: &str,
) -> Outcome {
    // date(1) understands what people write.
    let output = Process::new("date")
        .args(["+%s", &format!("--date={time}")])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|e| Failure::of("date", strerror(&e)))?;
    let seconds: Option<i64> = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    let when = seconds
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(|| Failure::new("Failed to parse datetime arg"))?
        .to_zoned(TimeZone::system());
    let args = vec![
        ("second", Value::from(when.second())),
        ("minute", Value::from(when.minute())),
        ("hour", Value::from(when.hour())),
        ("mday", Value::from(when.day())),
        // Months from 0 and years from 1900, as in struct tm.
        ("month", Value::from(when.month() - 1)),
        ("year", Value::from(when.year() - 1900)),
    ];
    let schedule = Schedule {
        kind: "datetime",
        args,
        command: command.to_owned(),
        name: None,
        repeat: Some(1),
        options,
    };
    scheduled("at", &schedule.create(flux, context).await?);
    Ok(0)
}

fn scheduled(command: &str, entry: &rpc::Entry) {
    let next = entry.typedata.get("next_wakeup").and_then(Value::as_f64).unwrap_or(0.0);
    outln!(
        "{command}: cron-{} created: scheduled in {:.3}s at {}",
        entry.id,
        next - time::now(),
        local(next, "%a %b %e %H:%M:%S %Y")
    );
}

async fn entries(flux: &Client) -> Result<Vec<rpc::Entry>, Failure> {
    let response = flux.rpc::<rpc::List>(Nodeid::ANY, &rpc::ListRequest).await.map_err(failed)?;
    response
        .entries
        .into_iter()
        .map(|entry| serde_json::from_value(entry).map_err(|e| Failure::of("cron.list", e)))
        .collect()
}

async fn dump(flux: &Client, id: u64, only: Option<&str>) -> Outcome {
    let request = Request::new("cron.list")
        .payload(payload::encode_json(&Object::new()).map_err(Failure::new)?);
    let response = json_text::request(flux, request).await.map_err(failed)?;
    let entries = json_text::find(&response, "entries").map(json_text::node);
    let Some(json_text::Node::Array(entries)) = entries else {
        return Err(Failure::new("cron.list: malformed response"));
    };
    let entry = entries
        .into_iter()
        .find(|entry| {
            json_text::find(entry, "id").and_then(|id| id.get().parse::<u64>().ok()) == Some(id)
        })
        .ok_or_else(|| Failure::new(format_args!("cron-{id}: No such cron entry found")))?;
    for (key, value) in show::flatten(entry) {
        match only {
            None => outln!("{key} = {value}"),
            Some(only) if only == key => outln!("{}", value.trim_matches('"')),
            Some(_) => {}
        }
    }
    Ok(0)
}

async fn sync(
    flux: &Client,
    disable: bool,
    sync_epsilon: Option<f64>,
    topic: Option<String>,
) -> Outcome {
    let request = rpc::SyncRequest {
        topic: topic.filter(|_| !disable),
        disable: disable.then_some(true),
        sync_epsilon,
    };
    let response = flux.rpc::<rpc::Sync>(Nodeid::ANY, &request).await.map_err(failed)?;
    match response.sync_event {
        Some(event) if response.sync_disabled != Some(true) => {
            let epsilon = response.sync_epsilon.unwrap_or(0.0);
            outln!("sync: sync to event \"{event}\" epsilon={epsilon:.3}s.");
        }
        _ => outln!("sync: sync disabled."),
    }
    Ok(0)
}

/// Whole numbers as such.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}

fn failed(error: RpcError) -> Failure {
    Failure::new(error.errno())
}
