//! How a broker finds out who it is: rank and size, its place in the tree, and where its parent
//! is.
//!
//! | method | when | rank, size | endpoints and keys |
//! |---|---|---|---|
//! | `config` | there is a `[bootstrap]` table | host's place in `hosts` | in the table, one certificate for all |
//! | `simple` | the environment has `PMI_FD` | `PMI_RANK`, `PMI_SIZE` | business cards, put into the launcher's KVS |
//! | `libpmi2`, `libpmi` | the launcher has a library of this name, that knows of a launch | the library | the same |
//! | `single` | else | 0, 1 | none |
//!
//! Two steps, since the run directory, in which local endpoints are, is made between them:
//! [`begin`], then [`Booting::wire_up`].

mod bizcard;
pub mod config;
mod interface;
mod pmi;
mod sys;
pub mod tbon;
#[cfg(test)]
mod tests;
mod uri;
mod wire;

use flux_cert::{GenerateError, LoadError};
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::taskmap::{Form, Taskmap, TaskmapError};

use crate::attrs::{Access, Attrs};
use crate::config::Config;
use crate::overlay::topology::{Topology, TopologyError};
use crate::overlay::transport::TransportError;
use bizcard::BizcardError;
use config::{Bootstrap, BootstrapError};
use flux_pmi::library::Interface;
use interface::{Hint, InterfaceError};
use pmi::simple::Launcher;
use pmi::{LibraryPmi, Pmi, PmiError};
use tbon::{Tbon, TbonError};
pub use wire::{Boot, Links, ParentLink};

const METHODS: &str = "config simple libpmi2 libpmi single";

/// A broker that knows its rank, and nobody else yet.
#[derive(Debug)]
pub struct Booting {
    rank: u32,
    size: u32,
    hostname: String,
    tbon: Tbon,
    source: Source,
    mapping: Option<Taskmap>,
}

/// Where the rest is known from.
#[derive(Debug)]
enum Source {
    Config(Bootstrap),
    Pmi(Pmi),
    Single,
}

/// Why a broker can't take part in an instance.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("no boot method is usable: {0}")]
    NoMethod(String),
    #[error(transparent)]
    Tbon(#[from] TbonError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Pmi(#[from] PmiError),
    #[error(transparent)]
    Bizcard(#[from] BizcardError),
    #[error("{key}: {error}")]
    Mapping { key: &'static str, error: TaskmapError },
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(transparent)]
    LoadCert(#[from] LoadError),
    #[error(transparent)]
    GenerateCert(#[from] GenerateError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Topology(#[from] TopologyError),
    #[error("Config file error [bootstrap] hosts: {0}")]
    Parents(String),
    #[error("{key} URI is undefined for rank {rank}")]
    NoEndpoint { key: &'static str, rank: u32 },
    #[error("{attr} attribute is not set")]
    NoAttr { attr: &'static str },
    #[error("invalid value for {attr}='{value}'")]
    Attr { attr: &'static str, value: String },
}

/// Find rank and size. Sets the attributes that tell how: `broker.boot-method`, `broker.mapping`,
/// `tbon.*`, and in a job `instance-level` and `jobid`.
pub async fn begin(attrs: &Attrs, config: &Config, hostname: &str) -> Result<Booting, BootError> {
    begin_in(attrs, config, hostname, |name| std::env::var(name).ok()).await
}

/// [`begin`] with another environment.
async fn begin_in(
    attrs: &Attrs,
    config: &Config,
    hostname: &str,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Booting, BootError> {
    let mut source = choose(attrs, config, hostname, &env).await?;
    if let Source::Pmi(pmi) = &mut source {
        set_job_attrs(attrs, pmi).await?;
    }
    let mut tbon = Tbon::load(attrs, config)?;
    let (rank, size) = match &source {
        Source::Config(bootstrap) => {
            let not_found = || BootstrapError::NotFound(hostname.to_owned());
            let rank = bootstrap.rank_of(hostname).ok_or_else(not_found)?;
            (rank, u32::try_from(bootstrap.hosts.len()).unwrap_or(u32::MAX))
        }
        Source::Pmi(pmi) => (pmi.rank(), pmi.size()),
        Source::Single => (0, 1),
    };
    if rank > 0 {
        // More than one is for him who talks to all.
        tbon.zmq_io_threads = 1;
        attrs.put("tbon.zmq_io_threads", "1", Access::ReadOnly);
    }
    let mut booting =
        Booting { rank, size, hostname: hostname.to_owned(), tbon, source, mapping: None };
    booting.set_mapping(attrs).await?;
    attrs.put("broker.boot-method", booting.method(), Access::Immutable);
    Ok(booting)
}

/// Try the methods in the order of `FLUX_PMI_CLIENT_METHODS`, or the one that the attribute names.
async fn choose(
    attrs: &Attrs,
    config: &Config,
    hostname: &str,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Source, BootError> {
    let methods = attrs
        .get("broker.boot-method")
        .or_else(|| env("FLUX_PMI_CLIENT_METHODS"))
        .unwrap_or_else(|| METHODS.to_owned());
    let trace = |text: std::fmt::Arguments<'_>| {
        if env("FLUX_PMI_DEBUG").is_some() {
            eprintln!("{text}");
        }
    };
    let mut refused = String::new();
    for method in methods.split_ascii_whitespace() {
        trace(format_args!("flux-pmi-client: trying '{method}'"));
        let selected = || trace(format_args!("{method}: selected"));
        match method {
            "config" => {
                if let Some(bootstrap) = Bootstrap::from_config(config, hostname)? {
                    selected();
                    return Ok(Source::Config(bootstrap));
                }
            }
            "simple" => {
                if let Some(launcher) = Launcher::from_env(env)? {
                    selected();
                    return Ok(Source::Pmi(Pmi::Simple(launcher.connect().await?)));
                }
            }
            "single" => {
                selected();
                return Ok(Source::Single);
            }
            _ => {
                let Some((interface, path)) = Interface::of_method(method) else { continue };
                match LibraryPmi::init(interface, path.map(str::to_owned)).await {
                    Ok(library) => {
                        trace(format_args!("{method}: {}", library.note));
                        return Ok(Source::Pmi(Pmi::Library(library)));
                    }
                    // It is not there, or is, and this was not launched by its launcher.
                    Err(error) => {
                        trace(format_args!("{error}"));
                        refused = format!(" ({error})");
                    }
                }
            }
        }
    }
    Err(BootError::NoMethod(methods + &refused))
}

/// What a Flux job shell tells the brokers that it starts.
async fn set_job_attrs(attrs: &Attrs, pmi: &mut Pmi) -> Result<(), BootError> {
    let Some(level) = pmi.lookup("flux.instance-level").await? else { return Ok(()) };
    attrs.put_default("instance-level", level, Access::Immutable);
    attrs.put_default("jobid", pmi.kvsname(), Access::Immutable);
    if attrs.get("tbon.interface-hint").is_none()
        && let Some(hint) = pmi.lookup("flux.tbon-interface-hint").await?
    {
        attrs.put("tbon.interface-hint", hint, Access::Immutable);
    }
    Ok(())
}

// === impl Booting ===

impl Booting {
    pub fn rank(&self) -> u32 {
        self.rank
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    pub fn method(&self) -> &'static str {
        match &self.source {
            Source::Config(_) => "config",
            Source::Pmi(pmi) => pmi.method(),
            Source::Single => "single",
        }
    }

    /// Set `broker.mapping`: which brokers share a node.
    async fn set_mapping(&mut self, attrs: &Attrs) -> Result<(), BootError> {
        let in_job = attrs.get("jobid").is_some();
        let mapping = match &mut self.source {
            Source::Pmi(pmi) if self.size > 1 => {
                let mut found = None;
                for key in ["flux.taskmap", "PMI_process_mapping"] {
                    if found.is_none()
                        && (in_job || key == "PMI_process_mapping")
                        && let Some(text) = pmi.lookup(key).await?
                    {
                        let map = Taskmap::decode(&text)
                            .map_err(|error| BootError::Mapping { key, error })?;
                        found = Some(map);
                    }
                }
                found
            }
            _ => {
                let mut map = Taskmap::new();
                map.append(0, self.size, 1);
                Some(map)
            }
        };
        if let Some(text) = mapping.as_ref().and_then(|map| map.encode(Form::Json).ok()) {
            attrs.put_default("broker.mapping", text, Access::Immutable);
        }
        // A test may pretend another one.
        self.mapping = match attrs.get("broker.mapping") {
            Some(text) => {
                let error = |error| BootError::Mapping { key: "broker.mapping", error };
                Some(Taskmap::decode(&text).map_err(error)?)
            }
            None => None,
        };
        Ok(())
    }

    /// Find the other brokers and bind to the endpoint for this one's children, if it has any.
    ///
    /// Needs the `rundir` attribute. Sets `hostlist`, `broker.critical-ranks`, `broker.uuid`,
    /// `tbon.topo`, `tbon.endpoint` and the like.
    pub async fn wire_up(mut self, attrs: &Attrs) -> Result<Boot, BootError> {
        let topology = self.topology(attrs)?;
        set_tree_attrs(attrs, &topology, self.rank)?;
        let uuid = attrs.get("broker.uuid").unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        attrs.put("broker.uuid", &uuid, Access::Immutable);
        let source = std::mem::replace(&mut self.source, Source::Single);
        let boot = match source {
            Source::Config(bootstrap) => self.wire_config(attrs, bootstrap, topology, uuid)?,
            Source::Pmi(pmi) => self.wire_pmi(attrs, pmi, topology, uuid).await?,
            Source::Single => self.alone(topology),
        };
        attrs.put_default("hostlist", boot.hosts.encode(), Access::Immutable);
        Ok(boot)
    }

    /// The tree, whose shape then stands in `tbon.topo`.
    fn topology(&self, attrs: &Attrs) -> Result<Topology, BootError> {
        let hosts = match &self.source {
            Source::Config(bootstrap) => bootstrap.hosts.as_slice(),
            Source::Pmi(_) | Source::Single => &[],
        };
        let has_parents = hosts.iter().any(|host| host.parent.is_some());
        let shape = self.tbon.shape.unwrap_or_else(|| tbon::default_shape(has_parents));
        attrs.put("tbon.topo", shape.to_string(), Access::ReadOnly);
        if shape == crate::overlay::topology::Shape::Custom && has_parents {
            return wire::custom_topology(hosts);
        }
        Ok(Topology::new(shape, self.size)?)
    }

    fn alone(&self, topology: Topology) -> Boot {
        Boot {
            rank: self.rank,
            size: self.size,
            hosts: [&self.hostname].into_iter().collect(),
            topology,
            torpid: self.tbon.torpid,
            links: None,
            warnings: Vec::new(),
        }
    }
}

/// Whether a start could use what the configuration says of the network: the hosts, if it names
/// any; or the key that is wrong, and why. What the tables' own check refuses is left to that.
pub fn network_of(config: &Config) -> Result<Option<Hostlist>, (&'static str, String)> {
    match Tbon::load(&Attrs::default(), config) {
        Ok(_) | Err(TbonError::Table(_)) => {}
        Err(error) => return Err((error.key(), error.to_string())),
    }
    match Bootstrap::hosts_of(config) {
        Ok(hosts) => Ok(hosts),
        Err(BootstrapError::Table(_)) => Ok(None),
        Err(error) => {
            let text = error.to_string();
            let text = text.strip_prefix("Config file error ").map_or(text.clone(), str::to_owned);
            Err(("bootstrap.hosts", text))
        }
    }
}

fn set_tree_attrs(attrs: &Attrs, topology: &Topology, rank: u32) -> Result<(), BootError> {
    for (name, value) in [
        ("tbon.level", topology.level(rank)),
        ("tbon.maxlevel", topology.max_level()),
        ("tbon.descendants", topology.descendants(rank)),
    ] {
        attrs.put(name, value.to_string(), Access::ReadOnly);
    }
    let attr = "broker.critical-ranks";
    match attrs.get(attr) {
        None => attrs.put(attr, topology.critical_ranks().encode(), Access::Immutable),
        Some(value) => {
            let last = Idset::decode(&value).ok().and_then(|ranks| ranks.last());
            if last.is_none_or(|last| last >= topology.size()) {
                return Err(BootError::Attr { attr, value });
            }
        }
    }
    Ok(())
}
