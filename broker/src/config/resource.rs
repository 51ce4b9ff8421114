//! `[resource]`: where resources come from, and which are left out.

use serde_json::Value;

use super::Config;
use super::table::{Table, TableError};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resource {
    /// File with R; without it resources are discovered.
    pub path: Option<String>,
    /// File with the scheduler's own description.
    pub scheduling: Option<String>,
    /// Entries of hosts, cores, gpus and properties, instead of a file.
    pub config: Option<Value>,
    pub verify: Option<Value>,
    /// Idset of ranks, or hostlist.
    pub exclude: Option<String>,
    pub norestrict: bool,
    pub noverify: bool,
    pub rediscover: bool,
    pub no_update_watch: bool,
    pub journal_max: Option<u64>,
    /// FSD for which events are kept.
    pub history: Option<String>,
    /// The resources are not there: all count as online, and none is verified.
    pub fake: bool,
}

/// `[fake-resources]`: an inventory of nodes that are all alike, for tests of schedulers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeResources {
    pub nnodes: u64,
    pub cores_per_node: Option<u64>,
    pub gpus_per_node: u64,
    pub host_prefix: Option<String>,
}

impl Resource {
    pub fn parse(config: &Config) -> Result<Resource, TableError> {
        let mut table = Table::of(config, "resource")?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let resource = Resource {
            path: owned(table.string("path")?),
            scheduling: owned(table.string("scheduling")?),
            config: table.array("config")?.map(|entries| Value::Array(entries.clone())),
            verify: table.any("verify").cloned(),
            exclude: owned(table.string("exclude")?),
            norestrict: table.bool("norestrict")?.unwrap_or(false),
            noverify: table.bool("noverify")?.unwrap_or(false),
            rediscover: table.bool("rediscover")?.unwrap_or(false),
            no_update_watch: table.bool("no-update-watch")?.unwrap_or(false),
            journal_max: table.count("journal-max")?,
            history: owned(table.string("history")?),
            fake: table.bool("fake")?.unwrap_or(false),
        };
        table.finish()?;
        Ok(resource)
    }
}

impl FakeResources {
    /// None: there is no such table.
    pub fn parse(config: &Config) -> Result<Option<FakeResources>, TableError> {
        let mut table = Table::of(config, "fake-resources")?;
        if table.is_empty() {
            return Ok(None);
        }
        let fake = FakeResources {
            nnodes: table.count("nnodes")?.ok_or_else(|| table.missing("nnodes"))?,
            cores_per_node: table.count("cores-per-node")?,
            gpus_per_node: table.count("gpus-per-node")?.unwrap_or(0),
            host_prefix: table.string("host-prefix")?.map(str::to_owned),
        };
        table.finish()?;
        Ok(Some(fake))
    }
}
