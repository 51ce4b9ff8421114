//! `[bootstrap]` and `[tbon]`: the overlay network.

use super::Config;
use super::table::{Table, TableError};

const MISSING_HOST: &str = "missing host field\n\
    Hint: an entry of hosts is a table with a host key, like { host = \"test[1-16]\" }";

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bootstrap {
    /// Is there such a table?
    pub present: bool,
    pub enable_ipv6: bool,
    pub curve_cert: Option<String>,
    pub default_port: Option<u16>,
    pub default_bind: Option<String>,
    pub default_connect: Option<String>,
    /// In rank order; `host` may be a hostlist that stands for several.
    pub hosts: Vec<Host>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    pub host: String,
    pub bind: Option<String>,
    pub connect: Option<String>,
    /// Name of the host above in the tree.
    pub parent: Option<String>,
}

/// `[tbon]`; times in seconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tbon {
    pub topo: Option<String>,
    pub fanout: Option<u64>,
    pub tcp_user_timeout: Option<f64>,
    pub connect_timeout: Option<f64>,
    pub torpid_min: Option<f64>,
    pub torpid_max: Option<f64>,
    pub interface_hint: Option<String>,
    pub prefertcp: Option<i64>,
    pub zmqdebug: Option<i64>,
    pub zmq_io_threads: Option<i64>,
    pub child_rcvhwm: Option<i64>,
}

impl Bootstrap {
    pub fn parse(config: &Config) -> Result<Bootstrap, TableError> {
        let mut table = Table::of(config, "bootstrap")?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let bootstrap = Bootstrap {
            present: config.get("bootstrap").is_some(),
            enable_ipv6: table.bool("enable_ipv6")?.unwrap_or(false),
            curve_cert: owned(table.string("curve_cert")?),
            default_port: port(&mut table)?,
            default_bind: owned(table.string("default_bind")?),
            default_connect: owned(table.string("default_connect")?),
            hosts: hosts(&mut table)?,
        };
        table.finish()?;
        Ok(bootstrap)
    }
}

fn port(table: &mut Table<'_>) -> Result<Option<u16>, TableError> {
    let Some(number) = table.integer("default_port")? else { return Ok(None) };
    let port = u16::try_from(number);
    port.map(Some).map_err(|_| table.bad("default_port", format!("{number} is not a port number")))
}

fn hosts(table: &mut Table<'_>) -> Result<Vec<Host>, TableError> {
    let mut hosts = Vec::new();
    for mut entry in table.tables("hosts")?.into_iter().flatten() {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let host = entry.string("host")?.ok_or_else(|| entry.bad("host", MISSING_HOST))?;
        hosts.push(Host {
            host: host.to_owned(),
            bind: owned(entry.string("bind")?),
            connect: owned(entry.string("connect")?),
            parent: owned(entry.string("parent")?),
        });
        entry.finish()?;
    }
    Ok(hosts)
}

impl Tbon {
    pub fn parse(config: &Config) -> Result<Tbon, TableError> {
        let mut table = Table::lenient(config, "tbon")?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let tbon = Tbon {
            topo: owned(table.string("topo")?),
            fanout: table.count("fanout")?,
            tcp_user_timeout: table.fsd("tcp_user_timeout")?,
            connect_timeout: table.fsd("connect_timeout")?,
            torpid_min: table.fsd("torpid_min")?,
            torpid_max: table.fsd("torpid_max")?,
            interface_hint: owned(table.string("interface-hint")?),
            prefertcp: table.integer("prefertcp")?,
            zmqdebug: table.integer("zmqdebug")?,
            zmq_io_threads: table.integer("zmq_io_threads")?,
            child_rcvhwm: table.integer("child_rcvhwm")?,
        };
        table.finish()?;
        Ok(tbon)
    }
}
