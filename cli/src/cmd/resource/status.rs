//! `flux resource status` and the listing of `flux resource drain`.
//!
//! Two views. The administrator's guide has a row per condition, offline being one of them, and its
//! columns are what is printed without `--format`. Later Flux has offline nodes in rows of their own
//! per condition, with a star; a format that can show that difference (`default` and `long` do) gets
//! this view.

use clap::{ArgAction, Args};
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::config;

use super::filter::Filter;
use super::sets::Sets;
use super::{error, info};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::listing::named::{Builtin, Formats};
use crate::listing::{FormatError, Headings, Listing, Print, Row, Value, heading};
use crate::term::Color;

const STATES: [&str; 11] = [
    "all",
    "online",
    "avail",
    "offline",
    "exclude",
    "drain",
    "draining",
    "drained",
    "torpid",
    "allocated",
    "housekeeping",
];

const GUIDE_STATES: &str = "avail,offline,exclude,draining,drained,torpid,housekeeping";
const LATER_STATES: &str = "avail,exclude,draining,drained,torpid,housekeeping";

const GUIDE: &str = "{state:>10} {nnodes:>6} {ranks:<15} {nodelist}";
const GUIDE_WITH_REASON: &str = "{state:>10} {nnodes:>6} {ranks:<15} {reason:<25} {nodelist}";
const GUIDE_DRAIN: &str =
    "{timestamp!d:%FT%T::<20} {state:<8.8} {ranks:<8.8+} {reason:<30} {nodelist}";

const FORMATS: Formats = Formats {
    command: "flux-resource",
    subcommand: Some("status"),
    tables: &super::FORMAT_TABLES,
    builtin: &[
        Builtin {
            name: "default",
            description: "Default flux-resource status format string",
            format: "{state:>12} {color_up}{up:>2}{color_off} {nnodes:>6} {nodelist}",
        },
        Builtin {
            name: "long",
            description: "Long flux-resource status format string",
            format: "{state:>12} {color_up}{up:>2}{color_off} {nnodes:>6} +:{reason:<30.30} {nodelist}",
        },
    ],
};

const DRAIN_FORMATS: Formats = Formats {
    command: "flux-resource",
    subcommand: Some("drain"),
    tables: &super::FORMAT_TABLES,
    builtin: &[
        Builtin {
            name: "long",
            description: "Long flux-resource drain format string",
            format: "{timestamp!d:%b%d %R::<12} {state:<8.8} {ranks:<8.8+} +:{reason:<30.30} {nodelist}",
        },
        Builtin {
            name: "default",
            description: "Default flux-resource drain format string",
            format: "{timestamp!d:%b%d %R::<12} {state:<8.8} {reason:<30.30+} {nodelist}",
        },
    ],
};

/// Fields that tell offline nodes apart.
const LATER_FIELDS: [&str; 5] = ["up", "up.ascii", "statex", "status", "color_up"];
/// What rows that are shown as one have summed up.
const SUMS: [&str; 3] = ["nodelist", "ranks", "nnodes"];

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Specify output format using Python's string format syntax or a defined format by name (use
    /// 'help' to get a list of names)
    #[arg(short = 'o', long)]
    format: Option<String>,
    /// Output resources in given states ('help' lists them)
    #[arg(short, long, value_name = "STATE,...", alias = "state")]
    states: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// Suppress header output
    #[arg(short, long)]
    no_header: bool,
    /// Skip empty lines of output even with --states
    #[arg(long)]
    skip_empty: bool,
    /// Twice: show reasons
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    color: Color,
}

#[derive(Debug, Args)]
pub(super) struct DrainList {
    #[command(flatten)]
    filter: Filter,
    /// Specify output format using Python's string format syntax or a defined format by name (only
    /// used when no drain targets specified)
    #[arg(short = 'o', long)]
    format: Option<String>,
    /// Suppress header output
    #[arg(short, long)]
    no_header: bool,
    #[command(flatten)]
    color: Color,
}

/// What to list, and how.
#[derive(Debug, Clone, Copy)]
struct Query<'a> {
    states: &'a [String],
    later: bool,
    skip_empty: bool,
}

#[derive(Debug, Clone)]
struct Line {
    state: &'static str,
    online: bool,
    /// Offline nodes have a star.
    star: bool,
    ranks: Idset,
    reason: String,
    timestamp: Option<f64>,
    hosts: String,
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        if self.states.as_deref() == Some("help") {
            info(&format!("valid states: {}", STATES.join(",")));
            return Ok(0);
        }
        let guide = if self.verbose > 1 { GUIDE_WITH_REASON } else { GUIDE };
        let wanted = Wanted { format: self.format.as_deref(), guide, color: self.color };
        let Some((listing, later)) = wanted.layout(context, &FORMATS, guide_heading)? else {
            return Ok(0);
        };
        let default = if later { LATER_STATES } else { GUIDE_STATES };
        let states = parse_states(self.states.as_deref(), default, later)?;
        let query =
            Query { states: &states, later, skip_empty: self.skip_empty || self.states.is_none() };
        print(context, &listing, &self.filter, query, self.no_header).await
    }
}

impl DrainList {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let wanted =
            Wanted { format: self.format.as_deref(), guide: GUIDE_DRAIN, color: self.color };
        let Some((listing, _)) = wanted.layout(context, &DRAIN_FORMATS, guide_drain_heading)?
        else {
            return Ok(0);
        };
        let states = ["draining", "drained"].map(str::to_owned);
        let query = Query { states: &states, later: true, skip_empty: true };
        print(context, &listing, &self.filter, query, self.no_header).await
    }
}

async fn print(
    context: &Context,
    listing: &Listing,
    filter: &Filter,
    query: Query<'_>,
    no_header: bool,
) -> Outcome {
    let flux = context.connect().await?;
    let mut sets = Sets::get(&flux).await?;
    let config = match filter.queue.is_empty() {
        true => Object::new(),
        false => flux.rpc::<config::Get>(Nodeid::ANY, &Empty).await.map_err(error)?,
    };
    if let Some(ranks) = filter.ranks(&sets.resources, &config)? {
        sets.keep(&ranks);
    }
    let mut lines = lines(&sets, query, &listing.without(&SUMS)).map_err(error)?;
    listing.print(&mut lines, Print { no_header, width: None }).map_err(error)?;
    Ok(0)
}

/// The layout that was asked for.
struct Wanted<'a> {
    format: Option<&'a str>,
    /// Where none was.
    guide: &'a str,
    color: Color,
}

impl Wanted<'_> {
    /// The layout, and whether it is for the later view; nothing where it was a question.
    fn layout(
        &self,
        context: &Context,
        formats: &Formats,
        headings: Headings,
    ) -> Result<Option<(Listing, bool)>, Failure> {
        let format = match self.format {
            Some(format) => format,
            None if formats.has_default(&context.env) => "default",
            None => {
                return Ok(Some((Listing::parse(self.guide, headings).map_err(error)?, false)));
            }
        };
        let Some(mut format) = formats.choose(&context.env, format)? else { return Ok(None) };
        if !self.color.stdout() {
            format = uncolored(&format);
        }
        let listing = Listing::parse(&format, later_heading).map_err(error)?;
        let later = listing.fields().iter().any(|field| LATER_FIELDS.contains(field));
        Ok(Some((listing, later)))
    }
}

/// A field is left out together with the text in front of it.
fn uncolored(format: &str) -> String {
    let mut format = format.to_owned();
    for field in [" {color_up}", "{color_up}", "{color_off}"] {
        format = format.replace(field, "");
    }
    format
}

fn parse_states(wanted: Option<&str>, default: &str, later: bool) -> Result<Vec<String>, Failure> {
    let mut states: Vec<String> = wanted.unwrap_or(default).split(',').map(str::to_owned).collect();
    if let Some(bad) = states.iter().find(|state| !STATES.contains(&state.as_str())) {
        let failure = error(format_args!("Invalid resource state {bad} specified"));
        let code = failure.report("flux-resource");
        info(&format!("valid states: {}", STATES.join(",")));
        return Err(Failure::silent(code));
    }
    if later {
        // These two say which of the nodes in the other states to show.
        if states.iter().all(|state| state == "online" || state == "offline") {
            states.extend(default.split(',').map(str::to_owned));
        }
        if states.iter().any(|state| state == "drain") {
            states.retain(|state| state != "drain");
            states.extend(["draining", "drained"].map(str::to_owned));
        }
    }
    Ok(states)
}

fn lines(sets: &Sets, query: Query<'_>, key: &Listing) -> Result<Vec<Line>, FormatError> {
    let lines = if query.later { later_lines(sets, query) } else { guide_lines(sets, query) };
    let mut merged: Vec<(String, Line)> = Vec::new();
    for line in lines {
        let text = key.line(&line)?;
        match merged.iter_mut().find(|(other, _)| *other == text) {
            Some((_, into)) => into.ranks.union_with(&line.ranks),
            None => merged.push((text, line)),
        }
    }
    let mut lines: Vec<Line> = merged.into_iter().map(|(_, line)| line).collect();
    for line in &mut lines {
        line.hosts = sets.hosts(&line.ranks);
    }
    Ok(lines)
}

/// A row per condition, whether its nodes are online or not.
fn guide_lines(sets: &Sets, query: Query<'_>) -> Vec<Line> {
    let mut lines = Vec::new();
    for state in STATES.iter().filter(|state| query.states.iter().any(|s| s == *state)) {
        let ranks = match *state {
            "all" => sets.all.clone(),
            "online" => sets.online.clone(),
            "offline" => sets.offline.clone(),
            "exclude" => sets.exclude.clone(),
            "torpid" => sets.torpid.clone(),
            "allocated" => sets.allocated.clone(),
            "housekeeping" => sets.housekeeping.clone(),
            "avail" => sets.avail().intersect(&sets.online),
            "draining" => sets.draining.clone(),
            "drained" => sets.drained.clone(),
            _ => sets.draining.union(&sets.drained),
        };
        if ranks.is_empty() && !query.skip_empty {
            lines.push(Line::new(state, true, ranks));
        } else if matches!(*state, "drain" | "draining" | "drained") {
            lines.extend(ranks.iter().map(|rank| Line::drained(sets, state, rank, false)));
        } else if !ranks.is_empty() {
            lines.push(Line::new(state, true, ranks));
        }
    }
    lines
}

/// Rows of online and of offline nodes.
fn later_lines(sets: &Sets, query: Query<'_>) -> Vec<Line> {
    let has = |state: &str| query.states.iter().any(|s| s == state);
    let shows = |state: &str| has(state) || has("all");
    let (show_online, show_offline) =
        (has("online") || !has("offline"), has("offline") || !has("online"));
    let mut torpid = sets.torpid.clone();
    for (state, ranks) in [("draining", &sets.draining), ("drained", &sets.drained)] {
        if shows(state) {
            torpid.subtract(ranks);
        }
    }
    let mut lines = Vec::new();
    for (state, ranks) in [
        ("avail", &sets.avail()),
        ("exclude", &sets.exclude),
        ("allocated", &sets.allocated),
        ("torpid", &torpid),
        ("housekeeping", &sets.housekeeping),
    ] {
        let parts = [(true, show_online, &sets.online), (false, show_offline, &sets.offline)];
        for (online, show, those) in parts {
            let ranks = ranks.intersect(those);
            let skip = ranks.is_empty() && (query.skip_empty || !online && !has("offline"));
            if shows(state) && show && !skip {
                lines.push(Line::new(state, online, ranks));
            }
        }
    }
    for (state, ranks) in [("draining", &sets.draining), ("drained", &sets.drained)] {
        if !shows(state) {
            continue;
        }
        if ranks.is_empty() && show_online && !query.skip_empty {
            lines.push(Line::new(state, true, Idset::new()));
        }
        for rank in ranks.iter() {
            let online = sets.online.contains(rank);
            if (online && show_online) || (!online && show_offline) {
                lines.push(Line::drained(sets, state, rank, true));
            }
        }
    }
    lines
}

// === impl Line ===

impl Line {
    fn new(state: &'static str, online: bool, ranks: Idset) -> Line {
        let (reason, hosts) = (String::new(), String::new());
        Line { state, online, star: !online, ranks, reason, timestamp: None, hosts }
    }

    fn drained(sets: &Sets, state: &'static str, rank: u32, star: bool) -> Line {
        let online = sets.online.contains(rank);
        let mut line = Line::new(state, online, Idset::from_range(rank, rank));
        line.star = star && !online;
        if let Some(info) = sets.info.get(&rank) {
            line.reason.clone_from(&info.reason);
            line.timestamp = Some(info.timestamp);
        }
        line
    }
}

impl Row for Line {
    fn field(&self, name: &str) -> Value {
        let choose =
            |yes: &'static str, no: &'static str| Value::from(if self.online { yes } else { no });
        match name {
            "state" if self.star => Value::Text(format!("{}*", self.state)),
            "state" | "statex" => Value::from(self.state),
            "nnodes" => Value::Int(i64::try_from(self.ranks.count()).unwrap_or(i64::MAX)),
            "ranks" => Value::Text(self.ranks.to_string()),
            "nodelist" => Value::Text(self.hosts.clone()),
            "reason" => Value::Text(self.reason.clone()),
            "timestamp" => Value::from(self.timestamp),
            "status" => choose("online", "offline"),
            // In UTF-8 whatever the locale, as flux-core.
            "up" => choose("✔", "✗"),
            "up.ascii" => choose("y", "n"),
            "color_up" => choose("\x1b[01;32m", "\x1b[01;31m"),
            "color_off" => Value::from("\x1b[0;0m"),
            _ => Value::None,
        }
    }
}

fn later_heading(field: &str) -> Option<std::borrow::Cow<'static, str>> {
    heading(
        &[
            ("state", "STATE"),
            ("statex", "STATE"),
            ("nnodes", "NNODES"),
            ("ranks", "RANKS"),
            ("nodelist", "NODELIST"),
            ("reason", "REASON"),
            ("timestamp", "TIME"),
            ("status", "STATUS"),
            ("up", "UP"),
            ("up.ascii", "UP"),
            ("color_up", ""),
            ("color_off", ""),
        ],
        field,
    )
}

fn guide_heading(field: &str) -> Option<std::borrow::Cow<'static, str>> {
    match field {
        "state" => Some("STATUS".into()),
        field => later_heading(field),
    }
}

fn guide_drain_heading(field: &str) -> Option<std::borrow::Cow<'static, str>> {
    match field {
        "timestamp" => Some("TIMESTAMP".into()),
        "ranks" => Some("RANK".into()),
        field => later_heading(field),
    }
}

#[cfg(test)]
mod tests;
