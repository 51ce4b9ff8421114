//! The `[bootstrap]` table (flux-config-bootstrap(5)): which hosts make up the instance, in the
//! order of their ranks, and where they listen.

use std::collections::HashMap;
use std::path::PathBuf;

use flux_protocol::hostlist::Hostlist;

use super::uri::{self, UriError};
use crate::config::Config;
use crate::config::bootstrap as table;
use crate::config::table::TableError;

/// The checked table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    pub curve_cert: Option<PathBuf>,
    pub enable_ipv6: bool,
    /// By rank; never empty.
    pub hosts: Vec<Host>,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// Where it listens for its children.
    pub bind: Option<String>,
    /// Where its children connect to.
    pub connect: Option<String>,
    /// Rank of the host that the `parent` key names.
    pub parent: Option<u32>,
}

/// What is wrong with the table.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("Config file error: {0}")]
    Table(#[from] TableError),
    #[error("Config file error [bootstrap]: invalid hosts[{index}]: {error}")]
    Host { index: usize, error: HostError },
    #[error("Config file error [bootstrap]: {0} not found in hosts")]
    NotFound(String),
    #[error(
        "Config file error [bootstrap]: curve_cert must be defined for size > 1; set \
         bootstrap.curve_cert to the file that flux keygen wrote"
    )]
    NoCert,
}

/// What is wrong with one entry of `hosts`.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("host \"{0}\" is not a valid hostlist (RFC 29)")]
    Hostlist(String),
    #[error("{0} {1}")]
    Name(String, NameError),
    #[error("{0} key {1}")]
    Uri(&'static str, UriError),
    #[error("parent key refers to self")]
    OwnParent,
    #[error("parent key refers to unknown host")]
    UnknownParent,
}

/// Why text is no host name (RFC 1035).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("domain must be 1-253 characters")]
    Length,
    #[error("must be 1-63 characters")]
    LabelLength,
    #[error("domain label must not start or end with '-'")]
    Dash,
    #[error("domain label contains invalid character '{0}'")]
    Character(char),
}

// === impl Bootstrap ===

impl Bootstrap {
    /// Parse the table, if there is one. Without `hosts` the instance is this host alone.
    pub fn from_config(
        config: &Config,
        hostname: &str,
    ) -> Result<Option<Bootstrap>, BootstrapError> {
        let table = table::Bootstrap::parse(config)?;
        if !table.present {
            return Ok(None);
        }
        let hosts = match table.hosts.as_slice() {
            [] => vec![Host::plain(hostname)],
            entries => parse_hosts(entries, &table)?,
        };
        if !hosts.iter().any(|host| host.name == hostname) {
            return Err(BootstrapError::NotFound(hostname.to_owned()));
        }
        if hosts.len() > 1 && table.curve_cert.is_none() {
            return Err(BootstrapError::NoCert);
        }
        let table::Bootstrap { curve_cert, enable_ipv6, .. } = table;
        Ok(Some(Bootstrap { curve_cert: curve_cert.map(PathBuf::from), enable_ipv6, hosts }))
    }

    /// The hosts of the table, if it names any, for whoever is on none of them.
    pub fn hosts_of(config: &Config) -> Result<Option<Hostlist>, BootstrapError> {
        let table = table::Bootstrap::parse(config)?;
        if table.hosts.is_empty() {
            return Ok(None);
        }
        let hosts = parse_hosts(&table.hosts, &table)?;
        if hosts.len() > 1 && table.curve_cert.is_none() {
            return Err(BootstrapError::NoCert);
        }
        Ok(Some(hosts.iter().map(|host| &host.name).collect()))
    }

    pub fn rank_of(&self, hostname: &str) -> Option<u32> {
        let at = self.hosts.iter().position(|host| host.name == hostname)?;
        u32::try_from(at).ok()
    }

    pub fn hostlist(&self) -> Hostlist {
        self.hosts.iter().map(|host| &host.name).collect()
    }
}

impl Host {
    fn plain(name: &str) -> Host {
        Host { name: name.to_owned(), bind: None, connect: None, parent: None }
    }
}

/// Expand host lists; entries for one host complete each other, the first one's keys standing.
fn parse_hosts(
    entries: &[table::Host],
    table: &table::Bootstrap,
) -> Result<Vec<Host>, BootstrapError> {
    let mut merged: Vec<table::Host> = Vec::new();
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let at = |error| BootstrapError::Host { index, error };
        let hosts = Hostlist::decode(&entry.host)
            .map_err(|_| at(HostError::Hostlist(entry.host.clone())))?;
        for host in hosts.iter() {
            match ranks.get(&host).and_then(|rank| merged.get_mut(*rank)) {
                Some(there) => complete(there, entry),
                None => {
                    ranks.insert(host.clone(), merged.len());
                    merged.push(table::Host { host, ..entry.clone() });
                }
            }
        }
    }
    let check = |(index, entry): (usize, &table::Host)| {
        finish(entry, table, &ranks).map_err(|error| BootstrapError::Host { index, error })
    };
    merged.iter().enumerate().map(check).collect()
}

fn complete(entry: &mut table::Host, other: &table::Host) {
    for (own, theirs) in [
        (&mut entry.bind, &other.bind),
        (&mut entry.connect, &other.connect),
        (&mut entry.parent, &other.parent),
    ] {
        if own.is_none() {
            own.clone_from(theirs);
        }
    }
}

/// Apply the defaults and check.
fn finish(
    entry: &table::Host,
    table: &table::Bootstrap,
    ranks: &HashMap<String, usize>,
) -> Result<Host, HostError> {
    let parent = match &entry.parent {
        None => None,
        Some(parent) if *parent == entry.host => return Err(HostError::OwnParent),
        Some(parent) => {
            let rank = ranks.get(parent).and_then(|rank| u32::try_from(*rank).ok());
            Some(rank.ok_or(HostError::UnknownParent)?)
        }
    };
    check_name(&entry.host).map_err(|error| HostError::Name(entry.host.clone(), error))?;
    let endpoint = |key, own: &Option<String>, default: &Option<String>| {
        let Some(template) = own.as_ref().or(default.as_ref()) else { return Ok(None) };
        let port = table.default_port.map_or(-1, i64::from);
        let uri = uri::expand(template, &entry.host, port);
        uri::check(&uri).map_err(|error| HostError::Uri(key, error))?;
        Ok(Some(uri))
    };
    Ok(Host {
        name: entry.host.clone(),
        bind: endpoint("bind", &entry.bind, &table.default_bind)?,
        connect: endpoint("connect", &entry.connect, &table.default_connect)?,
        parent,
    })
}

fn check_name(name: &str) -> Result<(), NameError> {
    if !(1..=253).contains(&name.len()) {
        return Err(NameError::Length);
    }
    name.split('.').filter(|label| !label.is_empty()).try_for_each(|label| {
        if label.len() > 63 {
            return Err(NameError::LabelLength);
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(NameError::Dash);
        }
        match label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str, hostname: &str) -> Result<Option<Bootstrap>, String> {
        let object = toml::from_str(toml).unwrap();
        Bootstrap::from_config(&Config::from_object(object), hostname)
            .map_err(|error| error.to_string())
    }

    fn error(toml: &str) -> String {
        parse(&format!("[bootstrap]\n{toml}"), "a").unwrap_err()
    }

    #[test]
    fn guide_example_has_sixteen_ranks() {
        let toml = r#"
            [bootstrap]
            curve_cert = "/etc/flux/system/curve.cert"
            default_port = 8050
            default_bind = "tcp://eth0:%p"
            default_connect = "tcp://%h:%p"
            hosts = [ { host = "test[1-16]" } ]
        "#;
        let bootstrap = parse(toml, "test3").unwrap().unwrap();
        assert_eq!(bootstrap.rank_of("test3"), Some(2));
        assert_eq!(bootstrap.hostlist().encode(), "test[1-16]");
        assert_eq!(bootstrap.hosts.len(), 16);
        assert_eq!(bootstrap.hosts[15].bind.as_deref(), Some("tcp://eth0:8050"));
        assert_eq!(bootstrap.hosts[15].connect.as_deref(), Some("tcp://test16:8050"));
        assert_eq!(bootstrap.curve_cert.unwrap().to_str(), Some("/etc/flux/system/curve.cert"));
        let text = parse(toml, "vm").unwrap_err();
        assert_eq!(text, "Config file error [bootstrap]: vm not found in hosts");
    }

    #[test]
    fn order_of_hosts_is_the_order_of_ranks() {
        let toml = "[bootstrap]\ncurve_cert = 'x'\nhosts = [{ host = 'fluke[3,108,6-8]' }]";
        let bootstrap = parse(toml, "fluke108").unwrap().unwrap();
        assert_eq!(bootstrap.rank_of("fluke108"), Some(1));
        assert_eq!(bootstrap.hostlist().encode(), "fluke[3,108,6-8]");
    }

    #[test]
    fn entries_for_one_host_complete_each_other() {
        let toml = r#"
            [bootstrap]
            curve_cert = "x"
            default_connect = "tcp://%h:1"
            hosts = [
                { host = "a", bind = "tcp://127.0.0.1:9001", connect = "tcp://127.0.0.1:9001" },
                { host = "t[1-3]" },
                { host = "t[2-3]", parent = "t1" }, { host = "t1", bind = "tcp://lo:7" },
            ]
        "#;
        let hosts = parse(toml, "a").unwrap().unwrap().hosts;
        assert_eq!(
            hosts.iter().map(|host| &*host.name).collect::<Vec<_>>(),
            ["a", "t1", "t2", "t3"]
        );
        assert_eq!(hosts[0].connect.as_deref(), Some("tcp://127.0.0.1:9001"));
        assert_eq!(hosts[1].bind.as_deref(), Some("tcp://lo:7"));
        assert_eq!(hosts[2].connect.as_deref(), Some("tcp://t2:1"));
        assert_eq!((hosts[1].parent, hosts[2].parent, hosts[3].parent), (None, Some(1), Some(1)));
    }

    #[test]
    fn no_table_and_no_hosts_mean_no_peers() {
        assert_eq!(parse("", "a"), Ok(None));
        for toml in ["[bootstrap]", "[bootstrap]\nhosts = []"] {
            assert_eq!(parse(toml, "a").unwrap().unwrap().hosts, [Host::plain("a")]);
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        for (toml, expected) in [
            ("hosts = [{ host = 'x[' }]", "invalid hosts[0]: host \"x[\" is not a valid hostlist"),
            (
                "hosts = [{ host = 'a', parent = 'a' }]",
                "invalid hosts[0]: parent key refers to self",
            ),
            (
                "hosts = [{ host = 'a' }, { host = 'b', parent = 'z' }]",
                "invalid hosts[1]: parent key refers to unknown host",
            ),
            ("hosts = [{ host = 'a_b' }]", "invalid hosts[0]: a_b domain label contains invalid"),
            ("hosts = [{ host = '-a' }]", "invalid hosts[0]: -a domain label must not start or"),
            (
                "default_bind = 'eth0'\nhosts = [{ host = 'a' }]",
                "invalid hosts[0]: bind key eth0 has no URI scheme",
            ),
            (
                "hosts = [{ host = 'a', connect = 'tcp://a:*' }]",
                "invalid hosts[0]: connect key tcp://a:* contains 0MQ port wildcard",
            ),
            ("hosts = [{ host = 'a,b' }]", "curve_cert must be defined for size > 1"),
        ] {
            let text = error(toml);
            let text = text.strip_prefix("Config file error [bootstrap]: ").unwrap();
            assert!(text.starts_with(expected), "{toml}: {text}");
        }
        assert!(error("hosts = [{ host = 'a,b' }]").contains("bootstrap.curve_cert"));
        for (toml, expected) in [
            ("default_port = 65536", "65536 is not a port number"),
            ("hosts = 'a'", "hosts: expected array, got string"),
            ("hosts = [{}]", "missing host field\nHint: "),
            ("hosts = [{ host = 'a', bnd = 'x' }]", "bnd (did you mean 'bind'?)"),
        ] {
            let text = error(toml);
            assert!(text.starts_with("Config file error: ") && text.contains(expected), "{text}");
        }
    }
}
