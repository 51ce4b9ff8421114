//! `flux resource list`, `info` and `R`: resources as the scheduler sees them.

use std::collections::{BTreeMap, BTreeSet};

use clap::{ArgAction, Args};
use flux_client::Request;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object, decode_json};
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{Method, config, resource as rpc};
use serde_json::value::RawValue;

use super::filter::{Filter, queues_of, real_queues};
use super::sets::decode;
use super::{LEADER, error};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::listing::named::{Builtin, Formats};
use crate::listing::{Listing, Print, Row, Value, heading};
use crate::{json_text, outln};

const STATES: [&str; 5] = ["up", "down", "allocated", "free", "all"];

/// The columns of the administrator's guide; queues and properties where there are some.
const GUIDE: &str = "{state:>10} ?+:{queue:<5} ?:{propertiesx:<10.10+} {nnodes:>6} {ncores:>8} \
                     {ngpus:>8} {nodelist}";
const GUIDE_DETAILS: &str = "{state:>10} ?+:{queue:<5} ?:{propertiesx:<10.10+} {nnodes:>6} \
                             {ncores:>8} {ngpus:>8} {rlist}";
const INFO: &str = "{nnodes} Nodes, {ncores} Cores, {ngpus} GPUs";

const FORMATS: Formats = Formats {
    command: "flux-resource",
    subcommand: Some("list"),
    tables: &super::FORMAT_TABLES,
    builtin: &[
        Builtin {
            name: "default",
            description: "Default flux-resource list format string",
            format: "{state:>10} ?+:{queue:<5} ?:{propertiesx:<10.10+} {nnodes:>6} +:{ncores:>6} ?+:{ngpus:>5} {nodelist}",
        },
        Builtin {
            name: "rlist",
            description: "Format including resource list details",
            format: "{state:>10} ?+:{queue:<5} ?:{propertiesx:<10.10+} {nnodes:>6} +:{ncores:>6} ?+:{ngpus:>5} {rlist}",
        },
    ],
};

/// What rows are told apart by, where it is shown.
const KEYS: [&str; 4] = ["state", "properties", "propertiesx", "queue"];

#[derive(Debug, Args)]
pub(super) struct List {
    /// Specify output format using Python's string format syntax or a defined format by name (use
    /// 'help' to get a list of names)
    #[arg(short = 'o', long)]
    format: Option<String>,
    /// Output resources in given states
    #[arg(
        short,
        long,
        value_name = "STATE,...",
        alias = "state",
        default_value = "free,allocated,down",
        hide_default_value = true
    )]
    states: String,
    #[command(flatten)]
    filter: Filter,
    /// Skip empty lines. This is the default with -i, --include
    #[arg(long)]
    skip_empty: bool,
    /// Do not skip empty lines, even with --include
    #[arg(long)]
    no_skip_empty: bool,
    /// Suppress header output
    #[arg(short, long)]
    no_header: bool,
    /// Show resources rather than hosts
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Args)]
pub(super) struct Info {
    /// Show output only for resources in given states
    #[arg(
        short,
        long,
        value_name = "STATE,...",
        alias = "state",
        default_value = "all",
        hide_default_value = true
    )]
    states: String,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Args)]
pub(super) struct Emit {
    /// Emit R for resources in given states
    #[arg(
        short,
        long,
        value_name = "STATE,...",
        alias = "state",
        default_value = "all",
        hide_default_value = true
    )]
    states: String,
    #[command(flatten)]
    filter: Filter,
}

/// What the scheduler knows, and the configuration of queues.
#[derive(Debug, Clone, Default)]
struct Resources {
    all: ResourceSet,
    down: ResourceSet,
    allocated: ResourceSet,
    config: Object,
}

/// What is told of a row besides its resources.
#[derive(Debug, Clone)]
struct Line {
    /// Its place among the states that were asked for.
    at: usize,
    state: String,
    queue: String,
    properties: String,
    propertiesx: String,
    set: ResourceSet,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let default = FORMATS.has_default(&context.env).then_some("default");
        let format = match (self.format.as_deref().or(default), self.verbose) {
            (Some(wanted), _) => match FORMATS.choose(&context.env, wanted)? {
                Some(format) => format,
                None => return Ok(0),
            },
            (None, 0) => GUIDE.to_owned(),
            (None, _) => GUIDE_DETAILS.to_owned(),
        };
        let listing = Listing::parse(&format, headings).map_err(error)?;
        let states = parse_states(&self.states)?;
        let resources = Resources::get(context, &self.filter).await?;
        let mut lines = resources.lines(&states, &listing, &self.filter.queue)?;
        if self.skip_empty || (self.filter.include.is_some() && !self.no_skip_empty) {
            lines.retain(|line| !line.set.is_empty());
        }
        let print = Print { no_header: self.no_header, width: None };
        listing.print(&mut lines, print).map_err(error)?;
        Ok(0)
    }
}

impl Info {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let listing = Listing::parse(INFO, headings).map_err(error)?;
        let states = parse_states(&self.states)?;
        let resources = Resources::get(context, &self.filter).await?;
        let mut lines = resources.lines(&states, &listing, &self.filter.queue)?;
        let print = Print { no_header: true, width: None };
        listing.print(&mut lines, print).map_err(error)?;
        Ok(0)
    }
}

impl Emit {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let states = parse_states(&self.states)?;
        let resources = Resources::get(context, &self.filter).await?;
        let mut set = ResourceSet::new();
        for state in &states {
            set.append(&resources.state(state));
        }
        set.starttime = resources.all.starttime;
        set.expiration = resources.all.expiration;
        let text = set.encode().map_err(error)?;
        let raw = RawValue::from_string(text).map_err(error)?;
        outln!("{}", json_text::spaced(&raw));
        Ok(0)
    }
}

fn parse_states(states: &str) -> Result<Vec<String>, Failure> {
    let states: Vec<String> = states.split(',').map(str::to_owned).collect();
    match states.iter().find(|state| !STATES.contains(&state.as_str())) {
        Some(bad) => Err(error(format_args!("Invalid resource state {bad} specified"))),
        None => Ok(states),
    }
}

// === impl Resources ===

impl Resources {
    async fn get(context: &Context, filter: &Filter) -> Result<Resources, Failure> {
        let flux = context.connect().await?;
        // As in flux-core: who debugs a scheduler asks it, and not what the job manager knows.
        let topic = context.env.get("FLUX_RESOURCE_LIST_RPC");
        let topic = topic.unwrap_or(rpc::SchedStatus::TOPIC).to_owned();
        let request = Request::new(topic).to(LEADER);
        let status = flux.start_raw(request)?;
        let config = flux.start::<config::Get>(Nodeid::ANY, &Empty)?;
        let status = status.await.map_err(error)?;
        let status: rpc::SchedStatusResponse =
            decode_json(status.payload.as_ref()).map_err(error)?;
        let mut resources = Resources {
            all: decode(&status.all)?,
            down: decode(&status.down)?,
            allocated: decode(&status.allocated)?,
            config: config.await.map_err(error)?,
        };
        if let Some(ranks) = filter.ranks(&resources.all, &resources.config)? {
            resources.all = resources.all.copy_ranks(&ranks);
            resources.down = resources.down.copy_ranks(&ranks);
            resources.allocated = resources.allocated.copy_ranks(&ranks);
        }
        Ok(resources)
    }

    fn state(&self, state: &str) -> ResourceSet {
        match state {
            "down" => self.down.clone(),
            "allocated" => self.allocated.clone(),
            "up" => self.all.diff(&self.down),
            "free" => self.all.diff(&self.down).diff(&self.allocated),
            _ => self.all.clone(),
        }
    }

    fn lines(
        &self,
        states: &[String],
        listing: &Listing,
        queues: &[String],
    ) -> Result<Vec<Line>, Failure> {
        let fields = listing.fields();
        // With a single field there is one row, unless that field is the state.
        let split = fields.len() > 1 || fields.contains(&"state");
        let keys: Vec<&str> =
            KEYS.into_iter().filter(|key| split && fields.contains(key)).collect();
        let mut lines: BTreeMap<Vec<String>, Line> = BTreeMap::new();
        for (at, state) in states.iter().enumerate() {
            for line in self.parts(at, state, queues)? {
                let key: Vec<String> = keys.iter().map(|key| line.field(key).text()).collect();
                match lines.get_mut(&key) {
                    Some(into) => into.set.append(&line.set),
                    None => drop(lines.insert(key, line)),
                }
            }
        }
        let mut lines: Vec<Line> = lines.into_values().collect();
        lines.sort_by_key(|line| (line.at, line.set.ranks().first().unwrap_or(u32::MAX)));
        Ok(lines)
    }

    /// The resources in a state, by the properties of their nodes.
    fn parts(&self, at: usize, state: &str, queues: &[String]) -> Result<Vec<Line>, Failure> {
        let set = self.state(state);
        let blank = Line {
            at,
            state: state.to_owned(),
            queue: String::new(),
            properties: String::new(),
            propertiesx: String::new(),
            set: ResourceSet::new(),
        };
        if set.is_empty() {
            // A row of zeroes for each queue.
            let mut names: Vec<&str> = match queues {
                [] => real_queues(&self.config),
                queues => queues.iter().map(String::as_str).collect(),
            };
            if names.is_empty() {
                names.push("");
            }
            let line = |name: &str| Line { queue: name.to_owned(), ..blank.clone() };
            return Ok(names.into_iter().map(line).collect());
        }
        let configured = self.config.get("queues");
        let mut lines = Vec::new();
        for (properties, ranks) in by_properties(&set) {
            let shown: Vec<&str> = properties
                .iter()
                .copied()
                .filter(|name| configured.is_none_or(|queues| queues.get(name).is_none()))
                .collect();
            lines.push(Line {
                queue: queues_of(&properties, &self.config, queues).map_err(error)?,
                propertiesx: shown.join(","),
                properties: properties.iter().copied().collect::<Vec<_>>().join(","),
                set: set.copy_ranks(&ranks),
                ..blank.clone()
            });
        }
        Ok(lines)
    }
}

/// Nodes that have the same properties.
fn by_properties(set: &ResourceSet) -> BTreeMap<BTreeSet<&str>, Idset> {
    let mut of_rank: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    for (name, ranks) in set.properties() {
        for rank in ranks.iter() {
            of_rank.entry(rank).or_default().insert(name);
        }
    }
    let mut groups: BTreeMap<BTreeSet<&str>, Idset> = BTreeMap::new();
    for rank in set.ranks().iter() {
        groups.entry(of_rank.remove(&rank).unwrap_or_default()).or_default().insert(rank);
    }
    groups
}

impl Row for Line {
    fn field(&self, name: &str) -> Value {
        let count = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        match name {
            "state" => Value::Text(self.state.clone()),
            "queue" => Value::Text(self.queue.clone()),
            "properties" => Value::Text(self.properties.clone()),
            "propertiesx" => Value::Text(self.propertiesx.clone()),
            "nnodes" => Value::from(self.set.nnodes()),
            "ncores" => count(self.set.ncores()),
            "ngpus" => count(self.set.ngpus()),
            "ranks" => Value::Text(self.set.ranks().to_string()),
            "nodelist" => Value::Text(self.set.nodelist().to_string()),
            "rlist" => Value::Text(self.set.dumps()),
            _ => Value::None,
        }
    }
}

fn headings(field: &str) -> Option<std::borrow::Cow<'static, str>> {
    heading(
        &[
            ("state", "STATE"),
            ("queue", "QUEUE"),
            ("properties", "PROPERTIES"),
            ("propertiesx", "PROPERTIES"),
            ("nnodes", "NNODES"),
            ("ncores", "NCORES"),
            ("ngpus", "NGPUS"),
            ("ranks", "RANKS"),
            ("nodelist", "NODELIST"),
            ("rlist", "LIST"),
        ],
        field,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resources(config: serde_json::Value, properties: &[(&str, &str)]) -> Resources {
        let r = |ranks: &str, hosts: &str, cores: &str| {
            let resources =
                flux_protocol::r::Resources { cores: cores.parse().unwrap(), gpus: Idset::new() };
            let mut set =
                ResourceSet::uniform(&ranks.parse().unwrap(), resources, &hosts.parse().unwrap())
                    .unwrap();
            for (name, ranks) in properties {
                let ranks = ranks.parse::<Idset>().unwrap().intersect(&set.ranks());
                if !ranks.is_empty() {
                    set.set_property(name, &ranks).unwrap();
                }
            }
            set
        };
        Resources {
            all: r("0-3", "fluke[25-28]", "0-3"),
            down: r("0", "fluke25", "0-3"),
            allocated: r("1", "fluke26", "0-1"),
            config: config.as_object().unwrap().clone(),
        }
    }

    fn table(resources: &Resources, format: &str, states: &str) -> Vec<String> {
        let listing = Listing::parse(format, headings).unwrap();
        let states = parse_states(states).unwrap();
        let mut lines = resources.lines(&states, &listing, &[]).unwrap();
        listing.lines(&mut lines, Print::default()).unwrap()
    }

    #[test]
    fn rows_are_the_guides() {
        let resources = resources(json!({}), &[]);
        assert_eq!(
            table(&resources, GUIDE, "free,allocated,down"),
            [
                "     STATE NNODES   NCORES    NGPUS NODELIST",
                "      free      3       10        0 fluke[26-28]",
                " allocated      1        2        0 fluke26",
                "      down      1        4        0 fluke25",
            ]
        );
        assert_eq!(
            table(&resources, GUIDE_DETAILS, "down").last().unwrap(),
            "      down      1        4        0 rank0/core[0-3]"
        );
        assert_eq!(table(&resources, INFO, "all").last().unwrap(), "4 Nodes, 16 Cores, 0 GPUs");
    }

    #[test]
    fn properties_and_queues_make_rows_of_their_own() {
        let by_property = resources(json!({}), &[("foo", "1-2")]);
        let rows = table(&by_property, GUIDE, "free");
        assert!(rows[0].contains("PROPERTIES"), "{rows:?}");
        assert_eq!(rows.len(), 3, "{rows:?}");
        let queues = json!({"queues": {"batch": {"requires": ["batch"]}}});
        let by_queue = resources(queues, &[("batch", "2-3")]);
        let rows = table(&by_queue, GUIDE, "free");
        assert!(rows[0].contains("QUEUE") && !rows[0].contains("PROPERTIES"), "{rows:?}");
        assert!(rows.iter().any(|row| row.contains("batch") && row.contains("fluke[27-28]")));
        assert_eq!(table(&by_queue, "{ncores}", "free").last().unwrap(), "10");
    }
}
