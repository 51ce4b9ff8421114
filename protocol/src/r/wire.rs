//! The JSON form of R.

use super::{MAX_NODES, Node, RError, ResourceSet, Resources, host_name};
use crate::hostlist::Hostlist;
use crate::idset::Idset;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

const VERSION: u64 = 1;

#[derive(Deserialize)]
struct Header {
    version: Option<Value>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    execution: Execution,
    scheduling: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Execution {
    #[serde(rename = "R_lite")]
    r_lite: Vec<Entry>,
    starttime: Option<f64>,
    expiration: Option<f64>,
    nslots: Option<u64>,
    nodelist: Vec<String>,
    properties: BTreeMap<String, Idset>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(deserialize_with = "ranks")]
    rank: Idset,
    #[serde(default)]
    children: Children,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Children {
    core: Idset,
    gpu: Idset,
}

#[derive(Serialize)]
struct OutDocument<'a> {
    version: u64,
    execution: OutExecution<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduling: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct OutExecution<'a> {
    #[serde(rename = "R_lite")]
    r_lite: Vec<OutEntry<'a>>,
    starttime: f64,
    expiration: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nslots: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodelist: Option<[String; 1]>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    properties: BTreeMap<&'a str, &'a Idset>,
}

#[derive(Serialize)]
struct OutEntry<'a> {
    rank: Idset,
    children: OutChildren<'a>,
}

#[derive(Serialize)]
struct OutChildren<'a> {
    /// Left out where there is nothing but GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<&'a Idset>,
    #[serde(skip_serializing_if = "Idset::is_empty")]
    gpu: &'a Idset,
}

// === impl ResourceSet ===

impl ResourceSet {
    /// Read R. JSON null is the empty set. Unknown keys are ignored.
    ///
    /// Hosts go to ranks in ascending order; ranks beyond the end of the nodelist are named after
    /// themselves. Of a rank that stands in several entries the last one counts.
    pub fn decode(json: &str) -> Result<Self, RError> {
        let Some(header) = serde_json::from_str::<Option<Header>>(json)? else {
            return Ok(Self::new());
        };
        match header.version {
            Some(version) if version == VERSION => {}
            Some(version) => return Err(RError::Version(version.to_string())),
            None => return Err(RError::MissingVersion),
        }
        serde_json::from_str::<Document>(json)?.into_set()
    }

    pub fn encode(&self) -> Result<String, RError> {
        Ok(crate::json::to_string(self)?)
    }
}

impl Document {
    fn into_set(self) -> Result<ResourceSet, RError> {
        let Self { execution, scheduling } = self;
        let count = execution.r_lite.iter().map(|entry| entry.rank.count()).sum();
        if count > MAX_NODES {
            return Err(RError::TooManyNodes(count));
        }
        let mut hosts = Hostlist::new();
        for entry in &execution.nodelist {
            // Hosts beyond the last rank have no use and no bound.
            if hosts.count() < count {
                hosts.append(entry)?;
            }
        }
        let mut listed: Vec<(u32, Arc<Resources>)> = Vec::new();
        for Entry { rank, children } in execution.r_lite {
            let resources = Arc::new(Resources { cores: children.core, gpus: children.gpu });
            listed.extend(rank.iter().map(|rank| (rank, resources.clone())));
        }
        listed.sort_by_key(|&(rank, _)| rank);

        let mut hosts = hosts.iter();
        let nodes = listed
            .into_iter()
            .map(|(rank, resources)| {
                let host = hosts.next().unwrap_or_else(|| format!("rank{rank}"));
                Ok((rank, Node { host: host_name(host)?, resources }))
            })
            .collect::<Result<_, RError>>()?;
        Ok(ResourceSet {
            nodes,
            properties: execution.properties,
            starttime: execution.starttime.unwrap_or_default(),
            expiration: execution.expiration.unwrap_or_default(),
            nslots: execution.nslots.filter(|&nslots| nslots > 0),
            scheduling,
            named: !execution.nodelist.is_empty(),
        })
    }
}

/// An idset, or one rank as a number.
fn ranks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Idset, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ranks {
        One(u32),
        Text(String),
    }
    match Ranks::deserialize(deserializer)? {
        Ranks::One(rank) => Ok(Idset::from_range(rank, rank)),
        Ranks::Text(text) => Idset::decode(&text).map_err(serde::de::Error::custom),
    }
}

impl Serialize for ResourceSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let r_lite = self
            .groups()
            .into_iter()
            .map(|(rank, Resources { cores, gpus })| OutEntry {
                rank,
                children: OutChildren {
                    core: Some(cores).filter(|cores| !cores.is_empty() || gpus.is_empty()),
                    gpu: gpus,
                },
            })
            .collect();
        let properties = self.properties.iter().filter(|(_, ranks)| !ranks.is_empty());
        let execution = OutExecution {
            r_lite,
            starttime: self.starttime,
            expiration: self.expiration,
            nslots: self.nslots,
            nodelist: self.named.then(|| [self.nodelist().encode()]),
            properties: properties.map(|(name, ranks)| (name.as_str(), ranks)).collect(),
        };
        let scheduling = self.scheduling.as_deref();
        OutDocument { version: VERSION, execution, scheduling }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ResourceSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::decode(raw.get()).map_err(serde::de::Error::custom)
    }
}
