//! `flux config`: read and change the configuration of the instance.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use flux_client::{Client, Request};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::config;
use serde_json::value::RawValue;

use self::value::Type;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::{json_text, outln, toml_files};

pub(crate) mod check;
mod value;

#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load broker configuration from stdin or PATH
    #[command(override_usage = "flux config load [PATH]")]
    Load { path: Option<PathBuf> },
    /// Reload broker configuration from files
    Reload {
        /// Do nothing if run on a non-leader broker (for systemd use)
        #[arg(long)]
        follower_noop: bool,
    },
    /// Query broker configuration values
    Get(Get),
    /// Set broker configuration value
    #[command(override_usage = "flux config set [OPTIONS] NAME VALUE")]
    Set {
        /// Specify type (string, integer, real, boolean, object, array, fsd)
        #[arg(short = 't', long = "type", value_name = "TYPE")]
        kind: Option<String>,
        name: String,
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Unset broker configuration value
    #[command(override_usage = "flux config unset NAME")]
    Unset { name: String },
    /// Look for mistakes in configuration files, without a broker
    #[command(override_usage = "flux config check [DIR]")]
    Check {
        /// Folder with system, security and imp below it (default: /etc/flux)
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print compiled-in Flux configuration values
    #[command(override_usage = "flux config builtin NAME")]
    Builtin {
        /// Force in-tree paths to be used
        #[arg(long)]
        intree: bool,
        /// Force installed paths to be used
        #[arg(long)]
        installed: bool,
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(override_usage = "flux config get [OPTIONS] [NAME]")]
struct Get {
    /// Get broker config from PATH (default: use live config)
    #[arg(short, long, value_name = "PATH|system|security|imp")]
    config_path: Option<String>,
    /// Set expected type (any, string, integer, real, boolean, object, array, fsd, fsd-integer,
    /// fsd-real)
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "any")]
    kind: String,
    /// Suppress printing of "[key] is not set" errors.
    #[arg(short, long)]
    quiet: bool,
    /// Use this value if config key is unset
    #[arg(short, long, value_name = "VAL")]
    default: Option<String>,
    name: Option<String>,
}

impl Config {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.command {
            Command::Load { path } => load(&context, path).await,
            Command::Reload { follower_noop } => reload(&context, follower_noop).await,
            Command::Get(get) => get.run(&context).await,
            Command::Set { kind, name, value } => {
                set(&context, &name, &value, kind.as_deref()).await
            }
            Command::Unset { name } => unset(&context, &name).await,
            Command::Check { dir } => check::run(&context, dir),
            Command::Builtin { name, .. } => {
                let value = context.layout.builtin(&name);
                outln!("{}", value.ok_or_else(|| Failure::new(format_args!("{name} is invalid")))?);
                Ok(0)
            }
        }
    }
}

impl Get {
    async fn run(self, context: &Context) -> Outcome {
        let kind = Type::parse(&self.kind)?;
        let config = match &self.config_path {
            Some(path) => {
                let path = match path.as_str() {
                    "system" | "security" | "imp" => {
                        context.layout.confdir().join(path).join("conf.d")
                    }
                    path => PathBuf::from(path),
                };
                let object = toml_files::read(&path).map_err(Failure::new)?;
                let text = flux_protocol::json::to_string(&object).map_err(Failure::new)?;
                RawValue::from_string(text).map_err(Failure::new)?
            }
            None => {
                let flux = context.connect().await?;
                json_text::request(&flux, Request::new("config.get"))
                    .await
                    .map_err(|e| Failure::of("Error fetching config object", e))?
            }
        };
        let Some(name) = &self.name else {
            outln!("{}", kind.show(&config, "value")?);
            return Ok(0);
        };
        match (json_text::find(&config, name), self.default) {
            (Some(raw), _) => outln!("{}", kind.show(raw, name)?),
            (None, Some(default)) => outln!("{default}"),
            (None, None) if self.quiet => return Err(Failure::silent(1)),
            (None, None) => return Err(Failure::new(format_args!("{name} is not set"))),
        }
        Ok(0)
    }
}

async fn reload(context: &Context, follower_noop: bool) -> Outcome {
    let flux = context.connect().await?;
    if follower_noop && flux.attr("rank").await.is_ok_and(|rank| rank != "0") {
        return Ok(0);
    }
    let old = get(&flux).await?;
    flux.rpc::<config::Reload>(Nodeid::ANY, &Empty).await.map_err(|e| Failure::of("reload", e))?;
    for key in config::kept_until_restart(&old, &get(&flux).await?) {
        eprintln!("flux-config: {key}: has no effect until the broker restarts");
    }
    Ok(0)
}

async fn load(context: &Context, path: Option<PathBuf>) -> Outcome {
    let object = match path {
        Some(path) => {
            toml_files::read(&path).map_err(|e| Failure::of("Error parsing config", e))?
        }
        None => {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .read_to_string(&mut text)
                .map_err(|e| Failure::of("error reading stdin", strerror(&e)))?;
            match serde_json::from_str(&text) {
                Ok(object) => object,
                Err(_) => {
                    toml_files::parse_toml(&text).map_err(|e| Failure::of("TOML parse error", e))?
                }
            }
        }
    };
    let flux = context.connect().await?;
    flux.rpc::<config::Load>(Nodeid::ANY, &object).await.map_err(|e| Failure::of("load", e))?;
    Ok(0)
}

async fn set(context: &Context, name: &str, value: &str, kind: Option<&str>) -> Outcome {
    let kind = match kind {
        Some(kind @ ("fsd-integer" | "fsd-real" | "any")) => {
            let text = format_args!("Invalid type for the set subcommand: {kind}");
            return Err(Failure::new(text));
        }
        kind => kind.map(Type::parse).transpose()?,
    };
    let flux = context.connect().await?;
    let mut config = get(&flux).await?;
    let old = name.split('.').try_fold(None, |object: Option<&serde_json::Value>, key| {
        object.map_or_else(|| config.get(key), |object| object.get(key)).map(Some)
    });
    let kind = match (kind, old.flatten()) {
        (Some(kind), _) => kind,
        (None, Some(old)) => Type::of(old),
        (None, None) => return Err(Failure::new("Type is unknown, please specify --type")),
    };
    let value = kind.read(value)?;
    value::insert(&mut config, name, value)
        .map_err(|key| Failure::of("Error updating config object", value::not_a_table(&key)))?;
    update(&flux, &config).await
}

async fn unset(context: &Context, name: &str) -> Outcome {
    let flux = context.connect().await?;
    let mut config = get(&flux).await?;
    value::remove(&mut config, name);
    update(&flux, &config).await
}

async fn get(flux: &Client) -> Result<Object, Failure> {
    flux.rpc::<config::Get>(Nodeid::ANY, &Empty)
        .await
        .map_err(|e| Failure::of("Error fetching config object", e))
}

async fn update(flux: &Client, config: &Object) -> Outcome {
    flux.rpc::<config::Load>(Nodeid::ANY, config)
        .await
        .map_err(|e| Failure::of("Error updating config object", e))?;
    Ok(0)
}
