//! Brokers as users name them: by rank, by host, `any` or `upstream`.

use flux_client::{Client, RpcError};
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;

/// A broker to send a request to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Any,
    /// Start at the parent of this broker, whose rank it is.
    Upstream(u32),
    Rank(u32),
}

/// The hosts of the instance by rank.
pub(crate) async fn hostlist(flux: &Client) -> Result<Hostlist, RpcError> {
    let hosts = flux.attr("hostlist").await?;
    // An instance that does not know its hosts has none that a user could name.
    Ok(Hostlist::decode(&hosts).unwrap_or_default())
}

/// The rank of a host of the instance.
pub(crate) async fn rank_of_host(flux: &Client, host: &str) -> Result<Option<u32>, RpcError> {
    let hosts = hostlist(flux).await?;
    Ok(hosts.find(host).ok().and_then(|rank| u32::try_from(rank).ok()))
}

/// The ranks of a list of hosts, or why there are none, for the user.
pub(crate) fn ranks_of_hosts(hosts: &Hostlist, target: &str) -> Result<Idset, String> {
    let targets = Hostlist::decode(target)
        .map_err(|_| "target must be a valid idset or hostlist".to_owned())?;
    let mut ranks = Idset::new();
    for host in targets.iter() {
        let rank = hosts.find(&host).ok().and_then(|rank| u32::try_from(rank).ok());
        let rank = rank.ok_or_else(|| format!("host {host} not found in host map"))?;
        ranks.insert(rank);
    }
    Ok(ranks)
}

/// The ranks of an idset, or of a list of hosts.
pub(crate) fn ranks(hosts: &Hostlist, target: &str) -> Result<Idset, String> {
    match Idset::decode(target) {
        Ok(ranks) => Ok(ranks),
        Err(_) => ranks_of_hosts(hosts, target),
    }
}

impl Target {
    /// The broker's place on the wire.
    pub(crate) fn nodeid(self) -> Nodeid {
        match self {
            Target::Any => Nodeid::ANY,
            Target::Upstream(rank) | Target::Rank(rank) => Nodeid(rank),
        }
    }
}
