//! Commands that look at roots and links.

use clap::Args;
use flux_client::Client;
use flux_client::kvs::{self, Root};
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::kvs as rpc;
use flux_protocol::treeobj::Treeobj;

use super::NamespaceOption;
use super::get::snapshot;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::outln;

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs readlink [-N ns] [-a treeobj] [ -o | -k ] key [key...]")]
pub(crate) struct Readlink {
    #[command(flatten)]
    namespace: NamespaceOption,
    /// Lookup relative to RFC 11 snapshot reference
    #[arg(short, long, value_name = "TREEOBJ")]
    at: Option<String>,
    /// Output only namespace if link points to a namespace
    #[arg(short = 'o', long)]
    namespace_only: bool,
    /// Output only key if link points to a namespace
    #[arg(short, long)]
    key_only: bool,
    #[arg(required = true)]
    key: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs version [-N ns]")]
pub(crate) struct Version {
    #[command(flatten)]
    namespace: NamespaceOption,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs wait [-N ns] version")]
pub(crate) struct Wait {
    #[command(flatten)]
    namespace: NamespaceOption,
    version: i64,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs getroot [-N ns] [-s|-o|-b]")]
pub(crate) struct Getroot {
    #[command(flatten)]
    namespace: NamespaceOption,
    /// Show sequence number
    #[arg(short, long)]
    sequence: bool,
    /// Show owner
    #[arg(short, long)]
    owner: bool,
    /// Show blobref
    #[arg(short, long)]
    blobref: bool,
}

impl Readlink {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let at = self.at.as_deref().map(snapshot).transpose()?;
        let root = match &at {
            Some(treeobj) => Root::Snapshot(treeobj),
            None => Root::Namespace(self.namespace.get(context)),
        };
        for key in &self.key {
            let treeobj = kvs::lookup(flux, root, key, rpc::lookup::READLINK)
                .await
                .map_err(|e| Failure::of(key, e.errno()))?;
            let Treeobj::Symlink(link) = treeobj else {
                return Err(Failure::of(key, Errno::EINVAL));
            };
            match link.namespace {
                Some(namespace) if self.namespace_only => outln!("{namespace}"),
                Some(namespace) if !self.key_only => outln!("{namespace}::{}", link.target),
                _ => outln!("{}", link.target),
            }
        }
        Ok(0)
    }
}

impl Version {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let root = getroot(flux, self.namespace.get(context), None, "flux_kvs_get_version").await?;
        outln!("{}", root.rootseq);
        Ok(0)
    }
}

impl Wait {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let namespace = self.namespace.get(context).to_owned();
        let request = rpc::WaitVersionRequest { rootseq: self.version, namespace };
        flux.rpc::<rpc::WaitVersion>(Nodeid::ANY, &request)
            .await
            .map_err(|e| Failure::of("flux_kvs_wait_version", e.errno()))?;
        Ok(0)
    }
}

impl Getroot {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let namespace = self.namespace.get(context);
        let root = getroot(flux, namespace, Some(0), "flux_kvs_getroot").await?;
        if self.owner {
            outln!("{}", root.owner);
        } else if self.sequence {
            outln!("{}", root.rootseq);
        } else if self.blobref {
            outln!("{}", root.rootref);
        } else {
            outln!(r#"{{"data":["{}"],"type":"dirref","ver":1}}"#, root.rootref);
        }
        Ok(0)
    }
}

async fn getroot(
    flux: &Client,
    namespace: &str,
    flags: Option<u32>,
    what: &str,
) -> Result<rpc::GetrootResponse, Failure> {
    let request = rpc::GetrootRequest { namespace: namespace.to_owned(), flags };
    flux.rpc::<rpc::Getroot>(Nodeid::ANY, &request).await.map_err(|e| Failure::of(what, e.errno()))
}
