//! The second step of a boot: endpoints and keys of parent and children.

use std::net::ToSocketAddrs;

use flux_cert::{Certificate, PublicKey};

use super::bizcard::Bizcard;
use super::config::Host;
use super::interface::{bracketed, primary_address, resolve_bind};
use super::pmi::Pmi;
use super::{
    Access, Attrs, BootError, Booting, Bootstrap, Hint, Hostlist, Taskmap, Tbon, Topology,
    TopologyError, uri,
};
use crate::boot::tbon::Torpid;
use crate::overlay::transport::{Events, Options, Transport};

/// Key under which rank 0 offers the list of all hosts, so that not everyone has to get the card
/// of everyone.
const HOSTLIST_KEY: &str = "flux.hostlist";

/// A broker that knows its place.
#[derive(Debug)]
pub struct Boot {
    pub rank: u32,
    pub size: u32,
    /// By rank.
    pub hosts: Hostlist,
    pub topology: Topology,
    pub torpid: Torpid,
    /// None for a broker that is alone.
    pub links: Option<Links>,
    /// For the log, once there is one.
    pub warnings: Vec<String>,
}

/// The sockets: bound where there are children, not connected yet.
#[derive(Debug)]
pub struct Links {
    pub transport: Transport,
    pub events: Events,
    /// What the others know this broker by.
    pub public_key: PublicKey,
    /// None at rank 0.
    pub parent: Option<ParentLink>,
}

/// Where the parent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentLink {
    pub endpoint: String,
    pub key: PublicKey,
}

/// The tree that the `parent` keys make; hosts without one are children of rank 0.
pub(super) fn custom_topology(hosts: &[Host]) -> Result<Topology, BootError> {
    let name = |rank: u32| hosts.get(rank as usize).map_or("", |host| host.name.as_str());
    if hosts.first().is_some_and(|host| host.parent.is_some()) {
        let text = format!("rank 0 ({}) may not have a parent in a tree topology", name(0));
        return Err(BootError::Parents(text));
    }
    let parents: Vec<u32> = hosts.iter().map(|host| host.parent.unwrap_or(0)).collect();
    Topology::from_parents(&parents).map_err(|error| match error {
        TopologyError::Cycle { rank, parent } => BootError::Parents(format!(
            "parent \"{}\" for {} (rank {rank}) violates rule against cycles",
            name(parent),
            name(rank)
        )),
        error => error.into(),
    })
}

// === the method `config` ===

impl Booting {
    pub(super) fn wire_config(
        self,
        attrs: &Attrs,
        bootstrap: Bootstrap,
        topology: Topology,
        uuid: String,
    ) -> Result<Boot, BootError> {
        let certificate = match &bootstrap.curve_cert {
            Some(path) => Some(Certificate::load(path)?),
            None => None,
        };
        let mut boot = self.alone(topology);
        boot.hosts = bootstrap.hostlist();
        // A configuration with peers has a certificate.
        let Some(certificate) = certificate.filter(|_| self.size > 1) else { return Ok(boot) };
        let key = certificate.public_key();
        let name = certificate.name().unwrap_or("peer").to_owned();
        let (transport, events) =
            Transport::new(options(&self.tbon, uuid, certificate, bootstrap.enable_ipv6))?;
        let endpoint = |rank: u32, key, of: fn(&Host) -> &Option<String>| {
            let uri = bootstrap.hosts.get(rank as usize).and_then(|host| of(host).as_deref());
            uri.ok_or(BootError::NoEndpoint { key, rank })
        };
        let recovery = attrs.get("broker.recovery-mode").is_some();
        if !boot.topology.children(self.rank).is_empty() && !recovery {
            let bind = endpoint(self.rank, "bind", |host| &host.bind)?;
            let bind = resolve_bind(bind, bootstrap.enable_ipv6)?;
            transport.authorize(&name, key);
            transport.bind(&[&bind])?;
            let connect = endpoint(self.rank, "connect", |host| &host.connect)?;
            attrs.put("tbon.endpoint", connect, Access::ReadOnly);
        }
        let mut parent_link = None;
        if let Some(parent) = boot.topology.parent(self.rank) {
            let endpoint = endpoint(parent, "connect", |host| &host.connect)?.to_owned();
            boot.warnings.extend(resolve_warning(&endpoint));
            attrs.put("tbon.parent-endpoint", &endpoint, Access::ReadOnly);
            parent_link = Some(ParentLink { endpoint, key });
        }
        boot.links = Some(Links { transport, events, public_key: key, parent: parent_link });
        Ok(boot)
    }
}

/// libzmq takes a name that does not resolve for one that does not resolve yet, and keeps trying:
/// say so, since it may be a mistake.
fn resolve_warning(endpoint: &str) -> Option<String> {
    let (host, _) = uri::tcp_host_port(endpoint)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let error = (bare, 0).to_socket_addrs().err()?;
    Some(format!("unable to resolve upstream peer {host}: {error}"))
}

fn options(tbon: &Tbon, uuid: String, certificate: Certificate, ipv6: bool) -> Options {
    let mut options = Options::new(uuid, certificate);
    options.ipv6 = ipv6;
    options.connect_timeout = tbon.connect_timeout;
    options.tcp_user_timeout = tbon.tcp_user_timeout;
    if let Some(limit) = tbon.child_rcvhwm {
        options.child_receive_queue = i32::try_from(limit).unwrap_or(i32::MAX);
    }
    options
}

// === the method `simple` ===

impl Booting {
    pub(super) async fn wire_pmi(
        self,
        attrs: &Attrs,
        mut pmi: Pmi,
        topology: Topology,
        uuid: String,
    ) -> Result<Boot, BootError> {
        let mut boot = self.alone(topology);
        if self.size == 1 {
            pmi.finalize().await?;
            return Ok(boot);
        }
        let certificate = Certificate::generate()?;
        let public_key = certificate.public_key();
        let mut card = Bizcard {
            host: self.hostname.clone(),
            uri: Vec::new(),
            pubkey: Some(public_key.to_string()),
        };
        // Endpoints are addresses, of whichever family: both are to work.
        let (transport, events) = Transport::new(options(&self.tbon, uuid, certificate, true))?;
        let children = boot.topology.children(self.rank);
        if !children.is_empty() {
            let wanted = self.endpoints(attrs, children)?;
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            card.uri = transport.bind(&wanted)?.into_iter().map(uri::unmapped).collect();
        }
        if let Some(endpoint) = card.uri.first() {
            attrs.put("tbon.endpoint", endpoint, Access::ReadOnly);
        }
        pmi.put(&self.rank.to_string(), &card.encode()).await?;
        pmi.barrier().await?;
        let parent = match boot.topology.parent(self.rank) {
            Some(parent) => Some(self.parent_link(&mut pmi, parent).await?),
            None => None,
        };
        for &child in children {
            let key = get_card(&mut pmi, child).await?.key(child)?;
            transport.authorize(&child.to_string(), key);
        }
        boot.hosts = self.exchange_hosts(attrs, &mut pmi).await?;
        pmi.finalize().await?;
        if let Some(parent) = &parent {
            attrs.put("tbon.parent-endpoint", &parent.endpoint, Access::ReadOnly);
        }
        boot.links = Some(Links { transport, events, public_key, parent });
        Ok(boot)
    }

    /// What to bind to: a local socket for children on this node, TCP for the others.
    fn endpoints(&self, attrs: &Attrs, children: &[u32]) -> Result<Vec<String>, BootError> {
        let local = match self.tbon.prefer_tcp {
            true => 0,
            false => children.iter().filter(|child| self.is_local(**child)).count(),
        };
        let mut endpoints = Vec::new();
        if local < children.len() {
            let hint = Hint::from(self.tbon.interface_hint.as_str());
            let prefer_v6 = std::env::var_os("FLUX_IPADDR_V6").is_some();
            let address = primary_address(&hint, prefer_v6)?;
            endpoints.push(format!("tcp://{}:*", bracketed(address)));
        }
        if local > 0 {
            let rundir = attrs.get("rundir").ok_or(BootError::NoAttr { attr: "rundir" })?;
            endpoints.push(format!("ipc://{rundir}/tbon-{}", self.rank));
        }
        Ok(endpoints)
    }

    /// Is that broker on this node?
    fn is_local(&self, rank: u32) -> bool {
        let node = |rank| self.mapping.as_ref().and_then(|map: &Taskmap| map.nodeid(rank));
        node(rank).is_some() && node(rank) == node(self.rank)
    }

    async fn parent_link(&self, pmi: &mut Pmi, parent: u32) -> Result<ParentLink, BootError> {
        let card = get_card(pmi, parent).await?;
        let local = !self.tbon.prefer_tcp && self.is_local(parent);
        let endpoint = card.endpoint(parent, local.then_some("ipc://"))?.to_owned();
        Ok(ParentLink { endpoint, key: card.key(parent)? })
    }

    /// Enter the second barrier, behind which all children are known to their parents. On the way
    /// rank 0 collects the hosts of all for all.
    async fn exchange_hosts(&self, attrs: &Attrs, pmi: &mut Pmi) -> Result<Hostlist, BootError> {
        let given = match attrs.get("hostlist") {
            Some(text) => Some(
                Hostlist::decode(&text)
                    .map_err(|_| BootError::Attr { attr: "hostlist", value: text })?,
            ),
            None => None,
        };
        if self.rank == 0 {
            let hosts = match given {
                Some(hosts) => hosts,
                None => self.collect_hosts(pmi).await?,
            };
            pmi.try_put(HOSTLIST_KEY, &hosts.encode()).await?;
            pmi.barrier().await?;
            return Ok(hosts);
        }
        pmi.barrier().await?;
        if let Some(hosts) = given {
            return Ok(hosts);
        }
        let offered = pmi.lookup(HOSTLIST_KEY).await?;
        match offered.and_then(|text| Hostlist::decode(&text).ok()) {
            Some(hosts) if hosts.count() == u64::from(self.size) => Ok(hosts),
            _ => self.collect_hosts(pmi).await,
        }
    }

    async fn collect_hosts(&self, pmi: &mut Pmi) -> Result<Hostlist, BootError> {
        let mut hosts = Hostlist::new();
        for rank in 0..self.size {
            hosts.push_host(&get_card(pmi, rank).await?.host);
        }
        Ok(hosts)
    }
}

async fn get_card(pmi: &mut Pmi, rank: u32) -> Result<Bizcard, BootError> {
    Ok(Bizcard::decode(rank, &pmi.get(&rank.to_string()).await?)?)
}
