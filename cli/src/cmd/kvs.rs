//! `flux kvs`: the key value store.

use clap::{Args, Subcommand};
use flux_client::Client;
use flux_protocol::rpc::kvs::PRIMARY;

use crate::context::Context;
use crate::failure::{Failure, Outcome};

mod change;
mod dir;
mod eventlog;
mod get;
mod ls;
mod namespace;
mod root;

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs [OPTIONS] COMMAND ARGS")]
pub(crate) struct Kvs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Perform KVS namespace operations
    Namespace(namespace::Namespace),
    /// Get value stored under key
    Get(get::Get),
    /// Store value under key
    Put(change::Put),
    /// Display all keys under directory
    Dir(dir::Dir),
    /// List directory
    Ls(ls::Ls),
    /// Remove key
    Unlink(change::Unlink),
    /// Create a new name for target
    Link(change::Link),
    /// Retrieve the key a link refers to
    Readlink(root::Readlink),
    /// Create a directory
    Mkdir(change::Mkdir),
    /// Copy source key to destination key
    Copy(change::Copy),
    /// Move source key to destination key
    Move(change::Copy),
    /// Display current KVS version
    Version(root::Version),
    /// Block until the KVS reaches version
    Wait(root::Wait),
    /// Get KVS root treeobj
    Getroot(root::Getroot),
    /// sync content and checkpoint to disk
    Sync,
    /// Manipulate a KVS eventlog
    Eventlog(eventlog::Eventlog),
}

#[derive(Debug, Args)]
struct NamespaceOption {
    /// Specify KVS namespace to use.
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
}

impl Kvs {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let command = match self.command {
            // Opens the instance after it has looked at its arguments.
            Command::Eventlog(command) => return command.run(&context).await,
            command => command,
        };
        let flux = context.connect().await?;
        match command {
            Command::Namespace(command) => command.run(&flux).await,
            Command::Get(command) => command.run(&flux, &context).await,
            Command::Put(command) => command.run(&flux, &context).await,
            Command::Dir(command) => command.run(&flux, &context).await,
            Command::Ls(command) => command.run(&flux, &context).await,
            Command::Unlink(command) => command.run(&flux, &context).await,
            Command::Link(command) => command.run(&flux, &context).await,
            Command::Readlink(command) => command.run(&flux, &context).await,
            Command::Mkdir(command) => command.run(&flux, &context).await,
            Command::Copy(command) => command.run(&flux, &context, false).await,
            Command::Move(command) => command.run(&flux, &context, true).await,
            Command::Version(command) => command.run(&flux, &context).await,
            Command::Wait(command) => command.run(&flux, &context).await,
            Command::Getroot(command) => command.run(&flux, &context).await,
            Command::Sync => sync(&flux, &context).await,
            Command::Eventlog(_) => Ok(0),
        }
    }
}

impl NamespaceOption {
    /// The option, else the environment, else the primary namespace.
    fn get<'a>(&'a self, context: &'a Context) -> &'a str {
        namespace(self.namespace.as_deref(), context)
    }
}

pub(super) fn namespace<'a>(option: Option<&'a str>, context: &'a Context) -> &'a str {
    option.or_else(|| context.env.get("FLUX_KVS_NAMESPACE")).unwrap_or(PRIMARY)
}

async fn sync(flux: &Client, context: &Context) -> Outcome {
    flux_client::kvs::Transaction::new()
        .commit(flux, namespace(None, context), flux_protocol::rpc::kvs::commit::SYNC)
        .await
        .map_err(|e| Failure::of("flux_kvs_commit", e.errno()))?;
    Ok(0)
}
