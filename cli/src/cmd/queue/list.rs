//! `flux queue list`: queues with their state, defaults, limits and resources.

use std::borrow::Cow;

use clap::Args;
use flux_protocol::constraint::Constraint;
use flux_protocol::fsd;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{config, job_manager, resource};
use serde_json::{Value as Json, json};

use super::{LEADER, error};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::listing::named::{Builtin, Formats};
use crate::listing::{Listing, Print, Row, Value};
use crate::term::Color;

const FORMATS: Formats = Formats {
    command: "flux-queue",
    subcommand: Some("list"),
    tables: &["list"],
    builtin: &[
        Builtin {
            name: "default",
            description: "Default flux-queue list format string",
            format: "?:{queuem:<8.8} ?:{parent:<8.8} {color_enabled}{enabled:>2}{color_off} {color_started}{started:>2}{color_off} {defaults.timelimit!F:>8} {limits.timelimit!F:>8} {limits.range.effective.nnodes:>10} {limits.range.effective.ncores:>10} {limits.range.effective.ngpus:>10}",
        },
        Builtin {
            name: "policy",
            description: "flux-queue list with policy limits only",
            format: "?:{queuem:<8.8} ?:{parent:<8.8} {color_enabled}{enabled:>2}{color_off} {color_started}{started:>2}{color_off} {defaults.timelimit!F:>8} {limits.timelimit!F:>8} {limits.range.nnodes:>10} {limits.range.ncores:>10} {limits.range.ngpus:>10}",
        },
        Builtin {
            name: "nodes",
            description: "Show queue status plus all/up/allocated/free nodes",
            format: "?:{queuem:<8.8} ?:{parent:<8.8} {color_enabled}{enabled:>2}{color_off} {color_started}{started:>2}{color_off} {resources.all.nnodes:>6} {resources.up.nnodes:>10} {resources.down.nnodes:>10} {resources.allocated.nnodes:>11} {resources.free.nnodes:>10}",
        },
    ],
};

#[derive(Debug, Args)]
pub(super) struct List {
    /// Include only specified queues in output
    #[arg(short, long, value_name = "QUEUE,...", value_delimiter = ',')]
    queue: Vec<String>,
    /// Specify output format using Python's string format syntax or a defined format by name (use
    /// 'help' to get a list of names)
    #[arg(short = 'o', long, default_value = "default", hide_default_value = true)]
    format: String,
    /// Suppress header output
    #[arg(short, long)]
    no_header: bool,
    #[command(flatten)]
    color: Color,
}

/// A queue with all that is known of it.
struct Queue<'a> {
    name: String,
    status: job_manager::QueueStatusResponse,
    /// Where policies are looked for, the nearest first.
    tables: Vec<&'a Json>,
    parent: String,
    is_default: bool,
    resources: Resources,
}

#[derive(Debug, Clone)]
struct Resources {
    all: ResourceSet,
    down: ResourceSet,
    allocated: ResourceSet,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let Some(mut format) = FORMATS.choose(&context.env, &self.format)? else { return Ok(0) };
        // Who writes a format with colors wants them.
        if format != self.format && !self.color.stdout() {
            for field in ["{color_enabled}", "{color_started}", "{color_off}"] {
                format = format.replace(field, "");
            }
        }
        let listing = Listing::parse(&format, heading).map_err(error)?;
        let flux = context.connect().await?;
        let resources = flux.start::<resource::SchedStatus>(LEADER, &Empty)?;
        let config = flux.rpc::<config::Get>(Nodeid::ANY, &Empty).await.map_err(error)?;
        let resources = Resources::decode(&resources.await.map_err(error)?)?;
        let config = Json::Object(config);
        let mut pending = Vec::new();
        for name in self.names(&config)? {
            let request = job_manager::QueueStatusRequest { name: name.clone() };
            pending.push((name, flux.start::<job_manager::QueueStatus>(Nodeid::ANY, &request)?));
        }
        let mut queues = Vec::new();
        for (name, status) in pending {
            queues.push(Queue::new(&config, &resources, name, status.await.map_err(error)?)?);
        }
        let print = Print { no_header: self.no_header, width: None };
        listing.print(&mut queues, print).map_err(error)?;
        Ok(0)
    }

    /// The queues to list; without a name where there are none.
    fn names(&self, config: &Json) -> Result<Vec<Option<String>>, Failure> {
        let none = Object::new();
        let configured = config.get("queues").and_then(Json::as_object).unwrap_or(&none);
        if let Some(unknown) = self.queue.iter().find(|name| !configured.contains_key(*name)) {
            return Err(error(format_args!("No such queue: {unknown}")));
        }
        let names: Vec<Option<String>> = match self.queue.as_slice() {
            [] => configured.keys().cloned().map(Some).collect(),
            wanted => wanted.iter().cloned().map(Some).collect(),
        };
        Ok(if names.is_empty() { vec![None] } else { names })
    }
}

impl Resources {
    fn decode(status: &resource::SchedStatusResponse) -> Result<Resources, Failure> {
        let decode = |r: &Json| match r {
            Json::Null => Ok(ResourceSet::new()),
            r => ResourceSet::decode(&r.to_string()).map_err(error),
        };
        Ok(Resources {
            all: decode(&status.all)?,
            down: decode(&status.down)?,
            allocated: decode(&status.allocated)?,
        })
    }

    fn only(&self, constraint: &Constraint) -> Resources {
        Resources {
            all: self.all.copy_constraint(constraint),
            down: self.down.copy_constraint(constraint),
            allocated: self.allocated.copy_constraint(constraint),
        }
    }

    fn state(&self, state: &str) -> Option<ResourceSet> {
        Some(match state {
            "all" => self.all.clone(),
            "down" => self.down.clone(),
            "allocated" => self.allocated.clone(),
            "up" => self.all.diff(&self.down),
            "free" => self.all.diff(&self.down).diff(&self.allocated),
            _ => return None,
        })
    }
}

fn count(set: &ResourceSet, what: &str) -> Option<u64> {
    match what {
        "nnodes" => Some(set.nnodes() as u64),
        "ncores" => Some(set.ncores()),
        "ngpus" => Some(set.ngpus()),
        _ => None,
    }
}

impl<'a> Queue<'a> {
    fn new(
        config: &'a Json,
        resources: &Resources,
        name: Option<String>,
        status: job_manager::QueueStatusResponse,
    ) -> Result<Queue<'a>, Failure> {
        let table = |name: &str| config.get("queues").and_then(|queues| queues.get(name));
        let own = name.as_deref().and_then(table);
        let parent = own.and_then(|own| own.get("parent")).and_then(Json::as_str);
        let above = parent.and_then(table);
        let requires = own.and_then(|own| own.get("requires"));
        let requires = requires.or_else(|| above.and_then(|above| above.get("requires")));
        let resources = match requires {
            Some(requires) => {
                let constraint = Constraint::decode(&json!({ "properties": requires }));
                resources.only(&constraint.map_err(error)?)
            }
            None => resources.clone(),
        };
        let default =
            config.pointer("/policy/jobspec/defaults/system/queue").and_then(Json::as_str);
        Ok(Queue {
            is_default: name.is_none() || name.as_deref() == default,
            name: name.unwrap_or_default(),
            status,
            tables: own.into_iter().chain(above).chain([config]).collect(),
            parent: parent.unwrap_or_default().to_owned(),
            resources,
        })
    }

    fn policy(&self, path: &str) -> Option<&'a Json> {
        self.tables.iter().find_map(|table| table.pointer(&format!("/policy/{path}")))
    }

    /// Seconds; infinite where there is no such thing.
    fn duration(&self, path: &str) -> Value {
        let text = self.policy(path).and_then(Json::as_str).unwrap_or("inf");
        Value::Float(fsd::parse(text).unwrap_or(f64::INFINITY))
    }

    /// A limit of the job size; nothing where there is none.
    fn limit(&self, end: &str, what: &str) -> Option<u64> {
        let limit = self.policy(&format!("limits/job-size/{end}/{what}")).and_then(Json::as_i64);
        limit.and_then(|limit| u64::try_from(limit).ok())
    }

    fn size(&self, end: &str, what: &str) -> String {
        match (self.limit(end, what), end) {
            (Some(limit), _) => limit.to_string(),
            (None, "min") => "0".to_owned(),
            (None, _) => "inf".to_owned(),
        }
    }

    fn range(&self, what: &str) -> String {
        format!("{}-{}", self.size("min", what), self.size("max", what))
    }

    /// No more than there is, whatever the limits allow.
    fn effective_range(&self, what: &str) -> Option<String> {
        let all = count(&self.resources.all, what)?;
        let max = self.limit("max", what).map_or(all, |max| max.min(all));
        Some(format!("{}-{max}", self.size("min", what)))
    }
}

impl Row for Queue<'_> {
    fn field(&self, name: &str) -> Value {
        // As flux-core, in UTF-8 whatever the locale; `.ascii` is for who can't show it.
        let mark = |on: bool| if on { "✔" } else { "✗" };
        let color = |on: bool| Value::from(if on { "\x1b[01;32m" } else { "\x1b[01;31m" });
        let (enabled, started) = (self.status.enable, self.status.start);
        // Started, and yet not scheduled until its parent is started.
        let paused = self.status.blocked.as_deref() == Some("parent");
        match name {
            "queue" => Value::from(self.name.as_str()),
            "queuem" if self.is_default && !self.name.is_empty() => {
                Value::Text(format!("{}*", self.name))
            }
            "queuem" => Value::from(self.name.as_str()),
            "parent" => Value::from(self.parent.as_str()),
            "submission" => Value::from(if enabled { "enabled" } else { "disabled" }),
            "scheduling" if paused => Value::from("stopped (parent)"),
            "started" if paused => Value::from("⏸"),
            "started.ascii" if paused => Value::from("p"),
            "color_started" if paused => Value::from("\x1b[01;33m"),
            "scheduling" => Value::from(if started { "started" } else { "stopped" }),
            "enabled" => Value::from(mark(enabled)),
            "started" => Value::from(mark(started)),
            "enabled.ascii" => Value::from(if enabled { "y" } else { "n" }),
            "started.ascii" => Value::from(if started { "y" } else { "n" }),
            "color_enabled" => color(enabled),
            "color_started" => color(started),
            "color_off" => Value::from("\x1b[0;0m"),
            "defaults.timelimit" | "defaults.duration" => {
                self.duration("jobspec/defaults/system/duration")
            }
            "limits.timelimit" | "limits.duration" => self.duration("limits/duration"),
            name => {
                let parts: Vec<&str> = name.split('.').collect();
                let text = match *parts.as_slice() {
                    ["limits", "range", "effective", what] => self.effective_range(what),
                    ["limits", "range", what] => Some(self.range(what)),
                    ["limits", end, what] => Some(self.size(end, what)),
                    ["resources", state, what] => {
                        let set = self.resources.state(state);
                        set.and_then(|set| count(&set, what)).map(|count| count.to_string())
                    }
                    _ => None,
                };
                Value::from(text)
            }
        }
    }
}

fn heading(field: &str) -> Option<Cow<'static, str>> {
    let fixed = match field {
        "queue" | "queuem" => "QUEUE",
        "parent" => "PARENT",
        "submission" => "SUBMIT",
        "scheduling" => "SCHED",
        "enabled" | "enabled.ascii" => "EN",
        "started" | "started.ascii" => "ST",
        "color_enabled" | "color_started" | "color_off" => "",
        "defaults.timelimit" => "TDEFAULT",
        "limits.timelimit" => "TLIMIT",
        _ => return counted_heading(field),
    };
    Some(Cow::Borrowed(fixed))
}

fn counted_heading(field: &str) -> Option<Cow<'static, str>> {
    let parts: Vec<&str> = field.split('.').collect();
    let unit = |what: &str| match what {
        "nnodes" => Some("NODES"),
        "ncores" => Some("CORES"),
        "ngpus" => Some("GPUS"),
        _ => None,
    };
    Some(Cow::Owned(match *parts.as_slice() {
        ["limits", "range", "effective", what] | ["limits", "range", what] => {
            format!("N{}", unit(what)?)
        }
        ["limits", end @ ("min" | "max"), what] => {
            format!("{}{}", end.to_uppercase(), unit(what)?)
        }
        ["resources", "all", what] => unit(what)?.to_owned(),
        ["resources", state @ ("free" | "allocated" | "up" | "down"), what] => {
            let state: String = state.to_uppercase().chars().take(5).collect();
            format!("{}:{state}", unit(what)?)
        }
        _ => return None,
    }))
}
