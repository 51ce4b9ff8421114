//! `flux resource`: the instance's nodes, what they are good for, and what they do.

mod eventlog;
mod filter;
mod list;
mod sets;
mod status;

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};
use flux_client::{Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Object, Payload};
use flux_protocol::rpc::{Method, resource as rpc};

use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Tables of `flux-resource.toml`.
const FORMAT_TABLES: [&str; 3] = ["drain", "list", "status"];

/// The inventory is there.
const LEADER: Nodeid = Nodeid(0);

#[derive(Debug, Args)]
pub(crate) struct Resource {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the scheduler's view of resources
    #[command(override_usage = "flux-resource list [OPTIONS]")]
    List(list::List),
    /// Show which nodes are available, online, offline, excluded or drained
    #[command(override_usage = "flux-resource status [OPTIONS]")]
    Status(status::Status),
    /// Count nodes, cores and GPUs
    #[command(override_usage = "flux-resource info [OPTIONS]")]
    Info(list::Info),
    /// Keep new work off nodes, or list the nodes for which that is so
    #[command(override_usage = "flux-resource drain [OPTIONS] [TARGETS [REASON...]]")]
    Drain(Drain),
    /// Return drained nodes
    #[command(override_usage = "flux-resource undrain [OPTIONS] TARGETS [REASON...]")]
    Undrain(Undrain),
    /// Print R (RFC 20) of resources
    #[command(name = "R", override_usage = "flux-resource R [OPTIONS]")]
    Emit(list::Emit),
    /// Replace the inventory
    #[command(override_usage = "flux-resource reload [OPTIONS] PATH")]
    Reload(Reload),
    /// Show what has happened to resources
    #[command(override_usage = "flux-resource eventlog [OPTIONS]")]
    Eventlog(eventlog::Eventlog),
    /// Tell the scheduler nothing more of nodes that go down
    #[command(override_usage = "flux-resource acquire-mute")]
    AcquireMute,
}

#[derive(Debug, Args)]
struct Drain {
    /// Force overwrite of existing drain reason. Specify twice to also update drain timestamp
    #[arg(short, long, action = ArgAction::Count)]
    force: u8,
    /// Update only. Do not return an error if one or more targets are already drained. Do not
    /// overwrite any existing drain reason
    #[arg(short, long)]
    update: bool,
    #[command(flatten)]
    list: status::DrainList,
    /// Ranks as an idset, or hosts as a hostlist
    #[arg(value_name = "TARGETS")]
    targets: Option<String>,
    /// Why, for those who wonder
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    reason: Vec<String>,
}

#[derive(Debug, Args)]
struct Undrain {
    /// Force: nodes that are not drained are no error
    #[arg(short, long, action = ArgAction::Count)]
    force: u8,
    /// Update only: nodes that are not drained are no error
    #[arg(short, long)]
    update: bool,
    /// Ranks as an idset, or hosts as a hostlist
    #[arg(value_name = "TARGETS")]
    targets: String,
    /// Why, for those who wonder
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    reason: Vec<String>,
}

#[derive(Debug, Args)]
struct Reload {
    /// PATH is a folder of hwloc XML files, named after ranks
    #[arg(short, long)]
    xml: bool,
    /// Allow resources to contain invalid ranks
    #[arg(short, long)]
    force: bool,
    /// A file with R (RFC 20)
    path: PathBuf,
}

impl Resource {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.command {
            Command::List(list) => list.run(&context).await,
            Command::Status(status) => status.run(&context).await,
            Command::Info(info) => info.run(&context).await,
            Command::Drain(drain) => drain.run(&context).await,
            Command::Undrain(undrain) => undrain.run(&context).await,
            Command::Emit(emit) => emit.run(&context).await,
            Command::Reload(reload) => reload.run(&context).await,
            Command::Eventlog(eventlog) => eventlog.run(&context).await,
            Command::AcquireMute => {
                let flux = context.connect().await?;
                let request = Request::new(rpc::AcquireMute::TOPIC).to(LEADER);
                let payload = Object::new().encode().map_err(error)?;
                flux.rpc_raw(request.payload(payload)).await.map_err(error)?;
                Ok(0)
            }
        }
    }
}

impl Drain {
    async fn run(self, context: &Context) -> Outcome {
        let Some(targets) = self.targets else { return self.list.run(context).await };
        let mode = mode(self.update, self.force)?;
        let request = rpc::DrainRequest { targets, reason: reason(&self.reason), mode };
        let flux = context.connect().await?;
        let Err(refused) = flux.rpc::<rpc::Drain>(LEADER, &request).await else { return Ok(0) };
        let failure = error(with_number(&refused));
        if refused.errno() != Errno::EEXIST {
            return Err(failure);
        }
        let code = failure.report("flux-resource");
        info("Use --force to overwrite existing drain reason");
        Err(Failure::silent(code))
    }
}

impl Undrain {
    async fn run(self, context: &Context) -> Outcome {
        let mode = mode(self.update, self.force)?;
        let reason = reason(&self.reason);
        let request = rpc::UndrainRequest { targets: self.targets, mode, reason };
        let flux = context.connect().await?;
        flux.rpc::<rpc::Undrain>(LEADER, &request).await.map_err(error)?;
        Ok(0)
    }
}

impl Reload {
    async fn run(self, context: &Context) -> Outcome {
        // The broker has another working folder.
        let path = std::path::absolute(&self.path).unwrap_or(self.path);
        let path = path.canonicalize().unwrap_or(path).to_string_lossy().into_owned();
        let request = rpc::ReloadRequest { path, xml: self.xml, force: self.force };
        let flux = context.connect().await?;
        flux.rpc::<rpc::Reload>(LEADER, &request).await.map_err(error)?;
        Ok(0)
    }
}

fn mode(update: bool, force: u8) -> Result<Option<String>, Failure> {
    let mode = match (update, force) {
        (true, 0) => "update",
        (false, 0) => return Ok(None),
        (false, 1) => "overwrite",
        (false, _) => "force-overwrite",
        (true, _) => return Err(error("Only one of --force and --update may be specified")),
    };
    Ok(Some(mode.to_owned()))
}

fn reason(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
}

/// As Python shows an error with its number.
fn with_number(refused: &RpcError) -> String {
    format!("[Errno {}] {refused}", refused.errno().0)
}

fn error(text: impl std::fmt::Display) -> Failure {
    Failure::new(text).prefix("flux-resource: ERROR")
}

fn info(text: &str) {
    eprintln!("flux-resource: INFO: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn force_and_update_exclude_each_other() {
        assert_eq!(mode(false, 0).unwrap(), None);
        assert_eq!(mode(false, 1).unwrap().as_deref(), Some("overwrite"));
        assert_eq!(mode(false, 2).unwrap().as_deref(), Some("force-overwrite"));
        assert_eq!(mode(true, 0).unwrap().as_deref(), Some("update"));
        assert!(mode(true, 1).is_err());
    }
}
