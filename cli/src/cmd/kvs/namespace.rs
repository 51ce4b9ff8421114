//! `flux kvs namespace`.

use clap::{Args, Subcommand};
use flux_client::Client;
use flux_protocol::blobref::HashType;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::kvs as rpc;
use flux_protocol::treeobj::Treeobj;

use crate::failure::{Failure, Outcome};
use crate::outln;

/// Namespaces are made and removed on the broker that has the store.
const LEADER: Nodeid = Nodeid(0);
/// Stands for whoever sends the request.
const OWNER_SENDER: i64 = -1;

#[derive(Debug, Args)]
pub(crate) struct Namespace {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a KVS namespace
    Create(Create),
    /// Remove a KVS namespace
    Remove {
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// List namespaces on local rank
    List,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs namespace create [-o owner] [-r rootref] name [name...]")]
struct Create {
    /// Specify alternate namespace owner via userid
    #[arg(short, long, value_name = "USERID")]
    owner: Option<u32>,
    /// Initialize namespace with specific root reference
    #[arg(short, long, value_name = "BLOBREF")]
    rootref: Option<String>,
    #[arg(required = true)]
    name: Vec<String>,
}

impl Namespace {
    pub(super) async fn run(self, flux: &Client) -> Outcome {
        match self.command {
            Command::Create(create) => create.run(flux).await,
            Command::Remove { name } => remove(flux, &name).await,
            Command::List => list(flux).await,
        }
    }
}

impl Create {
    async fn run(self, flux: &Client) -> Outcome {
        for name in self.name {
            let rootref = match &self.rootref {
                Some(rootref) => rootref.clone(),
                None => empty_root(flux).await?,
            };
            let request = rpc::NamespaceCreateRequest {
                namespace: name.clone(),
                rootref,
                owner: self.owner.map_or(OWNER_SENDER, i64::from),
                flags: 0,
            };
            flux.rpc::<rpc::NamespaceCreate>(LEADER, &request)
                .await
                .map_err(|e| Failure::of(&name, e))?;
        }
        Ok(0)
    }
}

async fn remove(flux: &Client, names: &[String]) -> Outcome {
    for name in names {
        let request = rpc::NamespaceRequest { namespace: name.clone() };
        flux.rpc::<rpc::NamespaceRemove>(LEADER, &request)
            .await
            .map_err(|e| Failure::of(name, e.errno()))?;
    }
    Ok(0)
}

async fn list(flux: &Client) -> Outcome {
    let response = flux
        .rpc::<rpc::NamespaceList>(Nodeid::ANY, &Empty)
        .await
        .map_err(|e| Failure::of("flux_rpc_get_unpack", e.errno()))?;
    outln!("NAMESPACE                                 OWNER      FLAGS");
    for entry in response.namespaces {
        outln!("{:<36} {:>10} 0x{:08X}", entry.namespace, entry.owner, entry.flags);
    }
    Ok(0)
}

/// The blobref of an empty directory, by the instance's hash.
async fn empty_root(flux: &Client) -> Result<String, Failure> {
    let hash: HashType = flux
        .attr("content.hash")
        .await
        .map_err(|e| Failure::of("content.hash", e))?
        .parse()
        .map_err(Failure::new)?;
    let directory = Treeobj::empty_dir().encode().map_err(Failure::new)?;
    Ok(hash.hash(directory.as_bytes()).to_string())
}
