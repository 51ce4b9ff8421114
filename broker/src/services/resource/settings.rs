//! The `[resource]` table of the configuration (flux-config-resource(5)), and `[fake-resources]`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fsd;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::{MAX_NODES, Node, RError, ResourceSet, Resources, check_property_name};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::verify::{Verify, VerifyError};
use crate::config::Config;
use crate::config::resource::{FakeResources, Resource};
use crate::config::table::TableError;

const JOURNAL_MAX: usize = 100_000;
/// Ninety days.
const HISTORY: f64 = 90.0 * 86_400.0;
const FAKE_CORES: u32 = 64;
const FAKE_PREFIX: &str = "fake";

/// What the configuration says about resources.
#[derive(Debug)]
pub struct Settings {
    /// Configured resources; the ranks are those of the file, or the order of the hosts.
    pub inventory: Option<ResourceSet>,
    /// Idset or hostlist of what jobs are kept away from.
    pub exclude: Option<String>,
    pub verify: Verify,
    /// Look at no hardware to verify the inventory.
    pub noverify: bool,
    /// Topologies tell of all processors, not only of those that this broker may use.
    pub norestrict: bool,
    /// Probe the hardware even where the enclosing instance knows what we have.
    pub rediscover: bool,
    /// The resources are not there: all count as online, and none is verified. For tests of
    /// schedulers.
    pub fake: bool,
    /// Most events in the journal.
    pub journal_max: usize,
    /// Seconds for which events are kept in the KVS; none: for ever.
    pub history: Option<f64>,
}

/// Why the tables can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("error parsing [resource.config] array: {0}")]
    Config(#[from] ConfigError),
    #[error("error parsing [resource] configuration: {0}")]
    Verify(#[from] VerifyError),
    #[error("{0}")]
    File(#[from] FileError),
    #[error("resource.scheduling requires resource.path or [resource.config]")]
    SchedulingAlone,
    #[error("invalid history time")]
    History,
    #[error("[fake-resources] {0}")]
    Fake(RError),
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}:-1 unable to open {path}: {error}")]
    Open { path: String, error: Errno },
    #[error("{path}:{} {error}", error.line())]
    Syntax { path: String, error: serde_json::Error },
    #[error("{path}: {error}")]
    R { path: String, error: RError },
}

/// Why the array `resource.config` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("resource config must be an array")]
    NoArray,
    #[error("there is no entry")]
    Empty,
    #[error("config[{index}]: {text}")]
    Entry { index: usize, text: String },
    #[error("resource.config: {0} assigned no resources")]
    NoResources(Hostlist),
}

/// One entry of the array `resource.config`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hosts: String,
    cores: Option<String>,
    gpus: Option<String>,
    #[serde(default)]
    properties: Vec<Value>,
}

// === impl Settings ===

impl Settings {
    /// Read the tables and the files that they name.
    pub fn from_config(config: &Config) -> Result<Settings, SettingsError> {
        let table = Resource::parse(config)?;
        let fake = FakeResources::parse(config)?;
        let inventory = match (&table.config, &table.path, &fake) {
            (Some(array), _, _) => Some(from_array(array)?),
            (None, Some(path), _) => Some(read_r(Path::new(path))?),
            (None, None, Some(fake)) => Some(all_alike(fake).map_err(SettingsError::Fake)?),
            (None, None, None) => None,
        };
        let inventory = with_scheduling(inventory, table.scheduling.as_deref().map(Path::new))?;
        let history = match &table.history {
            None => HISTORY,
            Some(text) => fsd::parse(text).map_err(|_| SettingsError::History)?,
        };
        let is_fake = table.fake || fake.is_some();
        Ok(Settings {
            inventory,
            exclude: table.exclude,
            verify: Verify::parse(table.verify.as_ref())?,
            noverify: table.noverify || is_fake,
            norestrict: table.norestrict,
            rediscover: table.rediscover,
            fake: is_fake,
            journal_max: table.journal_max.map_or(JOURNAL_MAX, to_usize),
            history: history.is_finite().then_some(history),
        })
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Failure {
        Failure::new(Errno::EINVAL, error.to_string())
    }
}

impl FileError {
    pub fn errno(&self) -> Errno {
        match self {
            FileError::Open { .. } => Errno::ENOENT,
            FileError::Syntax { .. } | FileError::R { .. } => Errno::EPROTO,
        }
    }
}

/// Read a file of R (RFC 20).
pub fn read_r(path: &Path) -> Result<ResourceSet, FileError> {
    let text = read(path)?;
    let path = path.display().to_string();
    ResourceSet::decode(&text).map_err(|error| match error {
        RError::Json(error) => FileError::Syntax { path, error },
        error => FileError::R { path, error },
    })
}

fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|error| FileError::Open {
        path: path.display().to_string(),
        error: Errno::from(&error),
    })
}

fn with_scheduling(
    inventory: Option<ResourceSet>,
    path: Option<&Path>,
) -> Result<Option<ResourceSet>, SettingsError> {
    let Some(path) = path else { return Ok(inventory) };
    let mut set = inventory.ok_or(SettingsError::SchedulingAlone)?;
    let parsed: Result<Box<RawValue>, _> = serde_json::from_str(read(path)?.trim());
    let scheduling =
        parsed.map_err(|error| FileError::Syntax { path: path.display().to_string(), error })?;
    set.scheduling = Some(scheduling);
    Ok(Some(set))
}

// === the array ===

/// Hosts get their ranks in the order in which they are named first; what several entries say of a
/// host adds up.
pub fn from_array(array: &Value) -> Result<ResourceSet, ConfigError> {
    let entries = array.as_array().ok_or(ConfigError::NoArray)?;
    if entries.is_empty() {
        return Err(ConfigError::Empty);
    }
    let mut nodes: Vec<(Arc<str>, Resources)> = Vec::new();
    let mut ranks: HashMap<String, u32> = HashMap::new();
    let mut properties: BTreeMap<String, Idset> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let error = |text: String| ConfigError::Entry { index, text };
        if !entry.is_object() {
            return Err(error(format!("{entry} is not a table")));
        }
        let entry: Entry =
            serde_json::from_value(entry.clone()).map_err(|e| error(e.to_string()))?;
        let (hosts, resources) = entry.parse().map_err(error)?;
        let mut here = Idset::new();
        for host in hosts.iter() {
            let next = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
            let rank = *ranks.entry(host).or_insert_with_key(|host| {
                nodes.push((host.as_str().into(), Resources::default()));
                next
            });
            if let Some((_, sum)) = nodes.get_mut(rank as usize) {
                sum.cores.union_with(&resources.cores);
                sum.gpus.union_with(&resources.gpus);
            }
            here.insert(rank);
        }
        for property in &entry.properties {
            let name = property.as_str().filter(|name| check_property_name(name).is_ok());
            let name = name.ok_or_else(|| error(format!("invalid property \"{property}\"")))?;
            properties.entry(name.to_owned()).or_default().union_with(&here);
        }
    }
    let without: Hostlist =
        nodes.iter().filter(|(_, sum)| sum.is_empty()).map(|(host, _)| host).collect();
    if !without.is_empty() {
        return Err(ConfigError::NoResources(without));
    }
    Ok(to_set(nodes, &properties))
}

fn to_set(nodes: Vec<(Arc<str>, Resources)>, properties: &BTreeMap<String, Idset>) -> ResourceSet {
    let mut shared: HashMap<Resources, Arc<Resources>> = HashMap::new();
    let mut set = ResourceSet::new();
    for ((host, resources), rank) in nodes.into_iter().zip(0..) {
        let resources =
            shared.entry(resources).or_insert_with_key(|key| Arc::new(key.clone())).clone();
        set.insert_node(rank, Node { host, resources });
    }
    for (name, ranks) in properties {
        // Names are checked, and ranks are those of nodes.
        let _ = set.set_property(name, ranks);
    }
    set
}

impl Entry {
    fn parse(&self) -> Result<(Hostlist, Resources), String> {
        let hosts = &self.hosts;
        let list: Hostlist = hosts.parse().map_err(|_| format!("invalid hostlist '{hosts}'"))?;
        if list.is_empty() {
            return Err("empty hostlist specified".to_owned());
        }
        let idset = |key: &str, text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default();
            text.parse::<Idset>().map_err(|_| format!("invalid idset {key}='{text}'"))
        };
        let resources =
            Resources { cores: idset("cores", &self.cores)?, gpus: idset("gpus", &self.gpus)? };
        Ok((list, resources))
    }
}

fn all_alike(fake: &FakeResources) -> Result<ResourceSet, RError> {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let resources = Resources {
        cores: Idset::first_n(fake.cores_per_node.map_or(FAKE_CORES, count)),
        gpus: Idset::first_n(count(fake.gpus_per_node)),
    };
    if fake.nnodes > MAX_NODES {
        return Err(RError::TooManyNodes(fake.nnodes));
    }
    let prefix = fake.host_prefix.as_deref().unwrap_or(FAKE_PREFIX);
    let hosts = (0..fake.nnodes).map(|n| format!("{prefix}{n}")).collect();
    ResourceSet::uniform(&Idset::first_n(count(fake.nnodes)), resources, &hosts)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(resource: Value) -> Result<Settings, SettingsError> {
        let config = json!({ "resource": resource });
        Settings::from_config(&Config::from_object(config.as_object().unwrap().clone()))
    }

    fn refusal(resource: Value) -> String {
        settings(resource).unwrap_err().to_string()
    }

    #[test]
    fn hosts_of_the_array_add_up() {
        let settings = settings(json!({"config": [
            {"hosts": "a[0-2]", "cores": "0-3"},
            {"hosts": "a2,b", "cores": "4", "gpus": "0-1", "properties": ["big"]},
        ]}))
        .unwrap();
        let set = settings.inventory.unwrap();
        assert_eq!(
            set.dumps(),
            "rank[0-1]/core[0-3] rank2/core[0-4],gpu[0-1] rank3/core4,gpu[0-1]"
        );
        assert_eq!(set.nodelist().to_string(), "a[0-2],b");
        assert_eq!(set.properties().get("big").unwrap().to_string(), "2-3");
    }

    #[test]
    fn bad_tables_are_refused_with_key_and_entry() {
        let config =
            |entry: Value| refusal(json!({"config": [{"hosts": "a", "cores": "0"}, entry]}));
        assert_eq!(
            config(json!({"hosts": "a["})),
            "error parsing [resource.config] array: config[1]: invalid hostlist 'a['"
        );
        assert!(config(json!({"hosts": "b", "cores": "x"})).contains("invalid idset cores='x'"));
        assert!(config(json!({"hosts": "b"})).contains("resource.config: b assigned no resources"));
        assert!(
            config(json!({"hosts": "b", "cores": "0", "properties": ["a|b"]}))
                .contains("invalid property \"\"a|b\"\"")
        );
        assert_eq!(
            refusal(json!({"config": []})),
            "error parsing [resource.config] array: there is no entry"
        );
        assert!(refusal(json!({"config": [1]})).contains("config[0]: 1 is not a table"));
        assert!(refusal(json!({"excluded": "0"})).contains("did you mean 'exclude'?"));
        assert!(refusal(json!({"history": "x"})).contains("invalid history time"));
        assert!(refusal(json!({"scheduling": "/x"})).contains("resource.scheduling requires"));
    }

    #[test]
    fn missing_file_is_named() {
        assert_eq!(
            refusal(json!({"path": "/nonexistent"})),
            "/nonexistent:-1 unable to open /nonexistent: No such file or directory"
        );
    }

    #[test]
    fn fake_inventory_is_uniform_and_not_verified() {
        let config = json!({"fake-resources": {"nnodes": 3, "cores-per-node": 2}});
        let settings =
            Settings::from_config(&Config::from_object(config.as_object().unwrap().clone()));
        let settings = settings.unwrap();
        assert!(settings.fake && settings.noverify);
        let set = settings.inventory.unwrap();
        assert_eq!(set.dumps(), "rank[0-2]/core[0-1]");
        assert_eq!(set.nodelist().to_string(), "fake[0-2]");
    }
}
