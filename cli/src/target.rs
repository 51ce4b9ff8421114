//! Brokers as users name them: by rank, by host, `any` or `upstream`.

use flux_client::{Client, RpcError};
use flux_protocol::hostlist::Hostlist;
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

impl Target {
    /// The broker's place on the wire.
    pub(crate) fn nodeid(self) -> Nodeid {
        match self {
            Target::Any => Nodeid::ANY,
            Target::Upstream(rank) | Target::Rank(rank) => Nodeid(rank),
        }
    }
}
