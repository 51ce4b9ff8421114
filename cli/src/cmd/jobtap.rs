//! `flux jobtap`: the plugins of the job manager.

use clap::{Args, Subcommand};
use flux_client::{Client, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{self, Object};
use flux_protocol::rpc::job_manager::{self, JobtapRequest, JobtapResponse, NameRequest};
use serde_json::Value;

use crate::cmd::plugin::{Inspect, Test};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{outln, settings};

mod stats;

#[derive(Debug, Args)]
#[command(override_usage = "flux-jobtap COMMAND [OPTIONS]")]
pub(crate) struct Jobtap {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a plugin
    Load(Load),
    /// Remove plugins
    Remove {
        /// Name or pattern; "all" stands for all that are not builtin
        plugin: String,
    },
    /// List loaded plugins
    List {
        /// Also those that the job manager has built in
        #[arg(short, long)]
        all: bool,
    },
    /// Start plugins again that faulted too often and were put in quarantine
    Rearm {
        /// Names as listed
        #[arg(required = true)]
        plugins: Vec<String>,
    },
    /// Show what a plugin and the job manager tell of it
    Query {
        /// Name as listed
        plugin: String,
    },
    /// Show calls, times, memory and faults of plugins
    Stats(stats::Stats),
    /// Show what a module says about itself, without loading it
    Inspect(Inspect),
    /// Replay recorded jobs through a plugin, without a broker
    Test(Test),
}

#[derive(Debug, Args)]
struct Load {
    /// Remove plugin NAME (a name or pattern, or "all") before the new one is loaded
    #[arg(short, long, value_name = "NAME")]
    remove: Option<String>,
    /// Path of a module, or a name in the plugin path
    plugin: String,
    /// Configuration of the plugin, as key=value; a.b=1 is {"a":{"b":1}}
    #[arg(trailing_var_arg = true, value_name = "KEY=VALUE")]
    conf: Vec<String>,
}

impl Jobtap {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let command = match self.command {
            Command::Inspect(inspect) => return inspect.run(&context),
            Command::Test(test) => return test.run(&context),
            command => command,
        };
        let flux = context.connect().await?;
        match command {
            Command::Load(load) => load.run(&flux).await,
            Command::Remove { plugin } => remove(&flux, plugin).await,
            Command::List { all } => list(&flux, all).await,
            Command::Rearm { plugins } => rearm(&flux, plugins).await,
            Command::Query { plugin } => query(&flux, &plugin).await,
            Command::Stats(stats) => stats.run(&flux).await,
            Command::Inspect(_) | Command::Test(_) => Ok(0),
        }
    }
}

impl Load {
    async fn run(self, flux: &Client) -> Outcome {
        let conf = (!self.conf.is_empty())
            .then(|| settings::object(&self.conf))
            .transpose()?
            .map(Value::Object);
        // The broker has a working directory of its own.
        let load = match self.plugin.contains('/') {
            true => std::path::absolute(&self.plugin).ok(),
            false => None,
        };
        let load = load.map(|path| path.to_string_lossy().into_owned());
        let request = JobtapRequest {
            load: Some(load.unwrap_or_else(|| self.plugin.clone())),
            conf,
            remove: self.remove,
            query_only: None,
        };
        ask(flux, &request).await.map_err(|error| failure(&error, &self.plugin))?;
        Ok(0)
    }
}

async fn remove(flux: &Client, plugin: String) -> Outcome {
    let request = JobtapRequest { remove: Some(plugin.clone()), ..JobtapRequest::default() };
    ask(flux, &request).await.map_err(|error| failure(&error, &plugin))?;
    Ok(0)
}

async fn list(flux: &Client, all: bool) -> Outcome {
    let listing = listing(flux).await?;
    for name in listing.plugins.iter().filter_map(Value::as_str) {
        match listing.down.get(name).and_then(Value::as_str) {
            Some(status) if all || !name.starts_with('.') => outln!("{name:<26} {status}"),
            None if all || !name.starts_with('.') => outln!("{name}"),
            _ => {}
        }
    }
    Ok(0)
}

async fn rearm(flux: &Client, plugins: Vec<String>) -> Outcome {
    for name in plugins {
        let request = NameRequest { name };
        let outcome = flux.rpc::<job_manager::JobtapRearm>(Nodeid::ANY, &request).await;
        outcome.map_err(|error| failure(&error, ""))?;
    }
    Ok(0)
}

async fn listing(flux: &Client) -> Result<JobtapResponse, Failure> {
    let request = JobtapRequest { query_only: Some(true), ..JobtapRequest::default() };
    let response = flux.rpc::<job_manager::Jobtap>(Nodeid::ANY, &request).await;
    response.map_err(|error| failure(&error, ""))
}

async fn names(flux: &Client) -> Result<Vec<String>, Failure> {
    let name = |name: Value| name.as_str().map(str::to_owned);
    Ok(listing(flux).await?.plugins.into_iter().filter_map(name).collect())
}

async fn query(flux: &Client, plugin: &str) -> Outcome {
    let request = NameRequest { name: plugin.to_owned() };
    let request = Request::of::<job_manager::JobtapQuery>(Nodeid::ANY, &request)?;
    let response = flux.rpc_raw(request).await.map_err(|error| failure(&error, ""))?;
    // As it came: the order of the keys is the plugin's.
    let text = payload::text(response.payload.as_ref()).map_err(Failure::new)?;
    outln!("{text}");
    Ok(0)
}

async fn describe(flux: &Client, plugin: &str) -> Result<Object, Failure> {
    let request = NameRequest { name: plugin.to_owned() };
    let response = flux.rpc::<job_manager::JobtapQuery>(Nodeid::ANY, &request).await;
    response.map_err(|error| failure(&error, ""))
}

/// The list of plugins is in the answer to a query alone; the others have no payload.
async fn ask(flux: &Client, request: &JobtapRequest) -> Result<(), RpcError> {
    let request = Request::of::<job_manager::Jobtap>(Nodeid::ANY, request)?;
    flux.rpc_raw(request).await.map(drop)
}

/// What is not there is told by the name that was asked for.
fn failure(error: &RpcError, plugin: &str) -> Failure {
    let text = match error.errno() {
        Errno::ENOENT if !plugin.is_empty() => format!("{plugin} not found"),
        _ => error.to_string(),
    };
    Failure::new(format_args!("ERROR: {text}"))
}
