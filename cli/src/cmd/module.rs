//! `flux module`: the broker's modules.

use clap::{Args, Subcommand};
use flux_client::{Client, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::{self, Empty};
use flux_protocol::rpc::common::{DebugRequest, DebugResponse, RusageRequest};
use flux_protocol::rpc::module::{self, status};
use serde_json::value::RawValue;

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::trace::TraceOptions;
use crate::{json_text, outln, output};

/// Longer idle times are not told.
const MAX_IDLE: u64 = 99;

#[derive(Debug, Args)]
#[command(override_usage = "flux-module COMMAND [OPTIONS]")]
pub(crate) struct Module {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List loaded modules
    List {
        /// Include full DSO path for each module
        #[arg(short, long)]
        long: bool,
    },
    /// Unload module
    #[command(alias = "unload")]
    Remove(Remove),
    /// Load module
    Load(Load),
    /// Reload module
    Reload {
        #[command(flatten)]
        remove: RemoveOptions,
        #[command(flatten)]
        load: Load,
    },
    /// Display stats on module
    Stats(Stats),
    /// Get/set module debug flags
    Debug(Debug),
    /// Trace module messages
    #[command(override_usage = "flux-module trace [OPTIONS] [module module...]")]
    Trace {
        /// Filter output by message topic glob
        #[arg(short = 'T', long, value_name = "GLOB", default_value = "*")]
        topic: String,
        #[command(flatten)]
        options: TraceOptions,
        module: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct RemoveOptions {
    /// Ignore nonexistent modules
    #[arg(short, long)]
    force: bool,
    /// Forcibly stop an unresponsive module
    #[arg(long)]
    cancel: bool,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-module remove [OPTIONS] module")]
struct Remove {
    #[command(flatten)]
    options: RemoveOptions,
    module: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-module load|reload [OPTIONS] module [args ...]")]
struct Load {
    /// Override default module name
    #[arg(long)]
    name: Option<String>,
    /// Load module as a separate process
    #[arg(long)]
    exec: bool,
    /// Use the specified loader program
    #[arg(long, value_name = "PATH")]
    loader: Option<String>,
    module: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-module stats [OPTIONS] module")]
struct Stats {
    /// Parse object period-delimited object name
    #[arg(short, long, value_name = "OBJNAME")]
    parse: Option<String>,
    /// Scale numeric JSON value by N
    #[arg(short, long, value_name = "N", default_value_t = 1.0)]
    scale: f64,
    /// Convert JSON value to specified type
    #[arg(short = 't', long = "type", value_name = "int|double")]
    kind: Option<String>,
    /// Request rusage data instead of stats (default: self)
    #[arg(short = 'R', long, value_name = "self|children|thread", num_args = 0..=1,
          require_equals = true)]
    rusage: Option<Option<String>>,
    /// Clear stats on target rank
    #[arg(short, long)]
    clear: bool,
    /// Clear stats on all ranks
    #[arg(short = 'C', long)]
    clear_all: bool,
    module: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-module debug [OPTIONS] module")]
struct Debug {
    /// Set debug flags to 0
    #[arg(short = 'C', long)]
    clear: bool,
    /// Set debug flags to MASK
    #[arg(short = 'S', long, value_name = "MASK", value_parser = mask)]
    set: Option<i64>,
    /// Set one debug flag to 1
    #[arg(short = 's', long, value_name = "MASK", value_parser = mask)]
    setbit: Option<i64>,
    /// Set one debug flag to 0
    #[arg(short = 'c', long, value_name = "MASK", value_parser = mask)]
    clearbit: Option<i64>,
    module: String,
}

impl Module {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        match self.command {
            Command::List { long } => list(&flux, long).await,
            Command::Remove(Remove { options, module }) => options.remove(&flux, &module).await,
            Command::Load(load) => load.load(&flux).await,
            Command::Reload { remove, load } => {
                // With a name of its own it is not known by that of its file.
                remove.remove(&flux, load.name.as_ref().unwrap_or(&load.module)).await?;
                load.load(&flux).await
            }
            Command::Stats(stats) => stats.run(&flux).await,
            Command::Debug(debug) => debug.run(&flux).await,
            Command::Trace { topic, options, module } => {
                trace(&flux, topic, &options, module).await
            }
        }
    }
}

async fn list(flux: &Client, long: bool) -> Outcome {
    let response = flux
        .rpc::<module::List>(Nodeid::ANY, &Empty)
        .await
        .map_err(|e| Failure::of("list", e.errno()))?;
    let (service, path) = if long { ("Service ", " Path") } else { ("Service", "") };
    outln!("{:<25} {:>4}  S Sendq Recvq {service}{path}", "Module", "Idle");
    for module in response.mods {
        let idle = match module.idle {
            idle if idle <= MAX_IDLE => idle.to_string(),
            _ => "idle".to_owned(),
        };
        let state = match module.status {
            status::INIT => 'I',
            status::RUNNING => 'R',
            status::FINALIZING => 'F',
            status::EXITED => 'X',
            _ => '?',
        };
        // That a module serves its own name goes without saying.
        let services: Vec<_> =
            module.services.into_iter().filter(|name| *name != module.name).collect();
        let mut services = services.join(",");
        if long {
            if services.len() > 8 {
                services = services.chars().take(7).chain(['+']).collect();
            }
            services = format!("{services:<8} {}", module.path);
        }
        outln!(
            "{:<25.25} {idle:>4}  {state} {:>5} {:>5} {services}",
            module.name,
            module.sendqueue,
            module.recvqueue
        );
    }
    Ok(0)
}

impl RemoveOptions {
    async fn remove(&self, flux: &Client, name: &str) -> Outcome {
        let request = module::RemoveRequest { name: full_path(name)?, cancel: self.cancel };
        match flux.rpc::<module::Remove>(Nodeid::ANY, &request).await {
            Err(e) if self.force && e.errno() == Errno::ENOENT => Ok(0),
            Err(e) => Err(Failure::of(format_args!("remove {name}"), e)),
            Ok(_) => Ok(0),
        }
    }
}

impl Load {
    async fn load(self, flux: &Client) -> Outcome {
        let request = module::LoadRequest {
            path: full_path(&self.module)?,
            args: self.args,
            exec: Some(self.exec),
            name: self.name,
            loader: self.loader,
        };
        flux.rpc::<module::Load>(Nodeid::ANY, &request)
            .await
            .map_err(|e| Failure::of(format_args!("load {}", self.module), e))?;
        Ok(0)
    }
}

impl Stats {
    async fn run(self, flux: &Client) -> Outcome {
        if self.clear_all {
            let topic = format!("{}.stats-clear", self.module);
            flux.publish(&topic, None, Flags::default())?;
            flux.flush().await?;
            return Ok(0);
        }
        let method = match (self.clear, &self.rusage) {
            (true, _) => "stats-clear",
            (false, Some(_)) => "rusage",
            (false, None) => "stats-get",
        };
        let topic = format!("{}.{method}", self.module);
        let failed = |e: RpcError| Failure::of(&topic, e);
        let mut request = Request::new(topic.as_str());
        if self.clear {
            flux.rpc_raw(request).await.map_err(failed)?;
            return Ok(0);
        }
        if let Some(Some(who)) = &self.rusage {
            let who = RusageRequest { who: Some(who.clone()) };
            request = request.payload(payload::encode_json(&who).map_err(Failure::new)?);
        }
        let response = json_text::request(flux, request).await.map_err(failed)?;
        let raw = match &self.parse {
            Some(path) => json_text::find(&response, path)
                .ok_or_else(|| Failure::new(format_args!("`{path}' not found in response")))?,
            None => &*response,
        };
        outln!("{}", self.show(raw));
        Ok(0)
    }

    /// Numbers as numbers, anything else as JSON.
    fn show(&self, raw: &RawValue) -> String {
        let text = raw.get();
        let kind = self.kind.as_deref();
        match text.parse::<f64>() {
            Ok(number) => {
                let is_integer = !text.contains(['.', 'e', 'E']);
                if is_integer || kind == Some("int") {
                    format!("{}", (number * self.scale).trunc())
                } else {
                    format!("{:.6}", number * self.scale)
                }
            }
            Err(_) => json_text::pretty(raw, 1),
        }
    }
}

impl Debug {
    async fn run(self, flux: &Client) -> Outcome {
        let topic = format!("{}.debug", self.module);
        let (op, flags) = match (self.set, self.clearbit, self.setbit) {
            _ if self.clear => ("clr", 0),
            (Some(mask), _, _) => ("set", mask),
            (_, Some(mask), _) => ("clrbit", mask),
            (_, _, mask) => ("setbit", mask.unwrap_or(0)),
        };
        let request = DebugRequest { op: op.to_owned(), flags };
        let request = Request::new(topic.as_str())
            .payload(payload::encode_json(&request).map_err(Failure::new)?);
        let failed = |e: RpcError| Failure::of(&topic, e.errno());
        let response = flux.rpc_raw(request).await.map_err(failed)?;
        let response: DebugResponse =
            payload::decode_json(response.payload.as_ref()).map_err(|e| Failure::of(&topic, e))?;
        outln!("{:#x}", response.flags);
        Ok(0)
    }
}

async fn trace(
    flux: &Client,
    topic_glob: String,
    options: &TraceOptions,
    names: Vec<String>,
) -> Outcome {
    let mut tracer = options.tracer()?;
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let request = module::TraceRequest {
        typemask: options.typemask()?,
        topic_glob,
        names,
        full: options.full,
    };
    let mut stream = flux.stream::<module::Trace>(Nodeid::ANY, &request)?;
    while let Some(message) = stream.next().await? {
        let name = message.name.as_deref().unwrap_or_default();
        let who = format!("{name:>width$} {}", message.prefix);
        outln!("{}", tracer.format(&who, &message));
        output::flush();
    }
    Ok(0)
}

/// The broker may be in another folder than this command.
fn full_path(module: &str) -> Result<String, Failure> {
    if !module.contains('/') && !module.ends_with(".so") && !module.ends_with(".wasm") {
        return Ok(module.to_owned());
    }
    let path = std::fs::canonicalize(module).map_err(|e| {
        let what = format!("could not canonicalize module path '{module}'");
        Failure::of(what, strerror(&e))
    })?;
    Ok(path.to_string_lossy().into_owned())
}

/// Decimal, or with 0x.
fn mask(text: &str) -> Result<i64, String> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .map_err(|_| format!("'{text}' is not a number"))
}
