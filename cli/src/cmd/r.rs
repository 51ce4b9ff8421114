//! `flux R`: make and take apart resource sets (RFC 20).

use std::io::Read;
use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};
use flux_protocol::constraint::Constraint;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::{RError, ResourceSet, Resources};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::{json_text, outln};

pub(crate) mod local;
mod verify;

#[derive(Debug, Args)]
pub(crate) struct R {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Encode RFC 20 R objects for testing.
    Encode(Encode),
    /// Append multiple R objects on stdin. Emits an error if resource sets are not disjoint.
    Append,
    /// Return the set difference of multiple R objects on stdin. (i.e. (R1 - R2) - R3 ...)
    Diff,
    /// Return the intersection of all R objects on stdin
    Intersect,
    /// Return the union of all R objects on stdin with ranks re-numbered starting from index 0.
    Remap,
    /// Return the union of all R objects on stdin with ranks re-mapped based on their index in
    /// HOSTLIST.
    Rerank { hostlist: String },
    /// Return the union of all R objects on stdin and print details or summary of the result. By
    /// default an RFC 20 JSON object is emitted on stdout, unless one or more options below are
    /// used
    Decode(Decode),
    /// Takes 2 R objects on stdin and verifies that the resources in each rank present in R2 has
    /// at least resources present for the same rank in R1.
    Verify,
    /// Set properties on R object on stdin, emitting the result on stdout
    SetProperty {
        #[arg(required = true, value_name = "PROPERTY:RANKS")]
        properties: Vec<String>,
    },
    /// Read the resources of a broker configuration, emitting them as R on stdout
    ParseConfig { path: PathBuf },
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-R encode [OPTIONS]...")]
struct Encode {
    /// Generate an R with ranks in IDSET. If not provided then either match the number of nodes
    /// given in --hosts option, or emit a single rank: "0"
    #[arg(short, long, value_name = "IDSET")]
    ranks: Option<String>,
    /// Assign cores with IDS to each rank in R. Default is to assign a single core "0" to each
    /// rank.
    #[arg(short, long, value_name = "IDS", default_value = "", hide_default_value = true)]
    cores: String,
    /// Assign gpu resources with IDS to each rank in R. Default is to assign no gpu resources.
    #[arg(short, long, value_name = "IDS", default_value = "", hide_default_value = true)]
    gpus: String,
    /// Generate R with nodelist set to HOSTS. By default, duplicate the local hostname to match
    /// the number of ranks given in --ranks.
    #[arg(short = 'H', long, value_name = "HOSTS")]
    hosts: Option<String>,
    /// Assign property NAME to target ranks RANKS. If RANKS is not specified then the property
    /// applies to all defined ranks. This option may be specified multiple times for each property
    #[arg(short, long, value_name = "NAME[:RANKS]", action = ArgAction::Append)]
    property: Vec<String>,
    /// Generate child resources from local system
    #[arg(short, long)]
    local: bool,
    /// Generate child resources from hwloc XML
    #[arg(short = 'f', long, value_name = "PATH")]
    xml: Option<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-R decode [OPTIONS]...")]
struct Decode {
    /// Print short-form representation of R
    #[arg(short, long)]
    short: bool,
    /// Print nodelist in hostlist form from R, if any
    #[arg(short, long)]
    nodelist: bool,
    /// Print ranks in idset form from R, if any
    #[arg(short, long)]
    ranks: bool,
    /// Print count of resource TYPE in R (ranks, core, gpu)
    #[arg(short, long, value_name = "TYPE")]
    count: Option<String>,
    /// Include only specified ranks.
    #[arg(short, long, value_name = "RANKS")]
    include: Option<String>,
    /// Exclude specified ranks.
    #[arg(short = 'x', long, value_name = "RANKS")]
    exclude: Option<String>,
    /// Filter on properties
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    properties: Vec<String>,
}

impl R {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let result = match self.command {
            Command::Encode(encode) => encode.run(&context)?,
            Command::Append => append(read_sets()?)?,
            Command::Diff => fold("diff", ResourceSet::diff)?,
            Command::Intersect => fold("intersect", ResourceSet::intersect)?,
            Command::Remap => {
                let mut set = union()?;
                set.remap();
                set
            }
            Command::Rerank { hostlist } => rerank(union()?, &hostlist)?,
            Command::Decode(decode) => return decode.run(),
            Command::Verify => return verify::run(&read_sets()?),
            Command::SetProperty { properties } => {
                let mut set = union()?;
                set_properties(&mut set, &properties)?;
                set
            }
            Command::ParseConfig { path } => local::from_broker(&context, Some(&path))?,
        };
        print(&result)
    }
}

impl Encode {
    fn run(self, context: &Context) -> Result<ResourceSet, Failure> {
        let from_system = self.local || self.xml.is_some();
        let given = !self.cores.is_empty() || !self.gpus.is_empty();
        if from_system && given {
            let text = "do not specify --cores or --gpus with --local or --xml";
            return Err(Failure::new(text));
        }
        let (ranks, hosts) = self.ranks_and_hosts()?;
        let resources = match (&self.xml, self.local) {
            (Some(path), _) => local::from_xml(&read(path)?),
            (None, true) => local::from_system(context)?,
            (None, false) => Resources {
                cores: idset("cores", if given { &self.cores } else { "0" })?,
                gpus: idset("gpus", &self.gpus)?,
            },
        };
        let mut set = ResourceSet::uniform(&ranks, resources, &hosts).map_err(Failure::new)?;
        set_properties(&mut set, &self.property)?;
        Ok(set)
    }

    fn ranks_and_hosts(&self) -> Result<(Idset, Hostlist), Failure> {
        let ranks = self.ranks.as_deref().map(|ranks| idset("ranks", ranks)).transpose()?;
        let hosts = match &self.hosts {
            Some(hosts) => {
                let list = Hostlist::decode(hosts)
                    .map_err(|_| Failure::new(format_args!("invalid hostlist '{hosts}'")))?;
                if let Some(ranks) = &ranks
                    && ranks.count() != list.count()
                {
                    return Err(Failure::new(format_args!(
                        "hostname count in '{hosts}' does not match nranks ({})",
                        ranks.count()
                    )));
                }
                list
            }
            None => {
                let host =
                    nix::unistd::gethostname().map_err(|e| Failure::of("gethostname", e.desc()))?;
                let mut list = Hostlist::new();
                for _ in 0..ranks.as_ref().map_or(1, Idset::count) {
                    list.push_host(&host.to_string_lossy());
                }
                list
            }
        };
        let count = u32::try_from(hosts.count()).map_err(Failure::new)?;
        Ok((ranks.unwrap_or_else(|| Idset::first_n(count)), hosts))
    }
}

impl Decode {
    fn run(self) -> Outcome {
        let mut set = union()?;
        if !self.properties.is_empty() {
            let constraint = serde_json::json!({ "properties": self.properties });
            let constraint = Constraint::decode(&constraint)
                .map_err(|e| Failure::of("Invalid property constraint", e))?;
            set = set.copy_constraint(&constraint);
        }
        if let Some(include) = &self.include {
            let ranks = Idset::decode(include)
                .map_err(|_| Failure::new(format_args!("Invalid ranks option: '{include}'")))?;
            set = set.copy_ranks(&ranks);
        }
        if let Some(exclude) = &self.exclude {
            let ranks = Idset::decode(exclude)
                .map_err(|_| Failure::of("Invalid idset in --exclude option", exclude))?;
            set.remove_ranks(&ranks);
        }
        if !self.short && !self.nodelist && !self.ranks && self.count.is_none() {
            return print(&set);
        }
        if self.short {
            outln!("{set}");
        }
        if self.nodelist {
            outln!("{}", set.nodelist().encode());
        }
        if self.ranks {
            outln!("{}", set.ranks());
        }
        match self.count.as_deref() {
            None => {}
            Some("node" | "ranks") => outln!("{}", set.nnodes()),
            Some("core") => outln!("{}", set.ncores()),
            Some("gpu") => outln!("{}", set.ngpus()),
            Some(_) => outln!("0"),
        }
        Ok(0)
    }
}

/// Names with ranks behind a colon, or all ranks.
fn set_properties(set: &mut ResourceSet, properties: &[String]) -> Result<(), Failure> {
    let failed = |e: RError| Failure::of("failed to assign properties", e);
    for property in properties {
        match property.split_once(':') {
            Some((name, ranks)) => {
                let ranks = idset("property", ranks)?;
                set.set_property(name, &ranks).map_err(failed)?;
            }
            None => set.set_property(property, &set.ranks()).map_err(failed)?,
        }
    }
    Ok(())
}

fn append(sets: Vec<ResourceSet>) -> Result<ResourceSet, Failure> {
    let mut result = ResourceSet::new();
    for set in sets {
        if !result.intersect(&set).is_empty() {
            return Err(Failure::new(format_args!("R objects '{result}' and '{set}' overlap")));
        }
        result.append(&set);
    }
    Ok(result)
}

fn rerank(mut set: ResourceSet, hosts: &str) -> Result<ResourceSet, Failure> {
    let hosts = Hostlist::decode(hosts).map_err(|e| Failure::of("rlist_rerank", e))?;
    set.rerank(&hosts).map_err(|e| match e {
        RError::UnknownHost(_) => Failure::new("failed to find one or more provided hosts in R"),
        RError::HostCount { hosts, nodes } => {
            let what = if hosts > nodes { "many" } else { "few" };
            Failure::new(format_args!("Too {what} hosts specified (expected {nodes})"))
        }
        e => Failure::of("rlist_rerank", e),
    })?;
    Ok(set)
}

fn union() -> Result<ResourceSet, Failure> {
    let mut sets = read_sets()?.into_iter();
    let mut result = sets.next().unwrap_or_default();
    for set in sets {
        result = result.union(&set);
    }
    Ok(result)
}

/// The first set on standard input, changed by each of the others.
fn fold(
    name: &str,
    change: impl Fn(&ResourceSet, &ResourceSet) -> ResourceSet,
) -> Result<ResourceSet, Failure> {
    let sets = read_sets()?;
    let (first, others) = match sets.split_first() {
        Some((first, others)) if !others.is_empty() => (first, others),
        _ => return Err(Failure::new(format_args!("{name} requires at least 2 resource sets"))),
    };
    Ok(others.iter().fold(first.clone(), |result, set| change(&result, set)))
}

/// All objects on standard input, one behind the other.
fn read_sets() -> Result<Vec<ResourceSet>, Failure> {
    let text = read("-")?;
    let mut sets = Vec::new();
    for raw in serde_json::Deserializer::from_str(&text).into_iter::<Box<RawValue>>() {
        let raw = raw.map_err(|e| Failure::of("Failed to read an R object", e))?;
        sets.push(decode(&raw).map_err(|e| Failure::of("Failed to decode R on stdin", e))?);
    }
    if sets.is_empty() {
        return Err(Failure::of("Failed to read an R object", "standard input is empty"));
    }
    Ok(sets)
}

/// An instance may do with an R that has no resources; one that is looked at must say so.
fn decode(raw: &RawValue) -> Result<ResourceSet, String> {
    let wrong = |e: &dyn std::fmt::Display| e.to_string();
    let mut value: Value = serde_json::from_str(raw.get()).map_err(|e| wrong(&e))?;
    let lite = value.pointer_mut("/execution/R_lite");
    let lite = lite.ok_or("execution.R_lite is missing")?;
    // Some write no resources this way.
    if lite.as_object().is_some_and(Map::is_empty) {
        *lite = Value::Array(Vec::new());
        return ResourceSet::decode(&value.to_string()).map_err(|e| wrong(&e));
    }
    ResourceSet::decode(raw.get()).map_err(|e| wrong(&e))
}

fn read(path: &str) -> Result<String, Failure> {
    let text = if path == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|e| Failure::of(path, strerror(&e)))
}

fn print(set: &ResourceSet) -> Outcome {
    let text = set.encode().map_err(Failure::new)?;
    let raw = RawValue::from_string(text).map_err(Failure::new)?;
    outln!("{}", json_text::spaced(&raw));
    Ok(0)
}

fn idset(name: &str, text: &str) -> Result<Idset, Failure> {
    Idset::decode(text)
        .map_err(|_| Failure::new(format_args!("Failed to decode {name}='{text}' as idset")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn an_object_must_say_which_resources_it_has() {
        let decode = |text: &str| decode(&RawValue::from_string(text.to_owned()).unwrap());
        for bad in ["{}", r#"{"version": 1}"#, r#"{"version": 1, "execution": {}}"#] {
            assert_eq!(decode(bad).unwrap_err(), "execution.R_lite is missing");
        }
        let empty = r#"{"version": 1, "execution": {"R_lite": {}}}"#;
        assert!(decode(empty).unwrap().encode().unwrap().contains(r#""R_lite":[]"#));
    }
}
