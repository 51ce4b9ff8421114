//! `flux-broker plugin VERB`: plugins without an instance.
//!
//! `flux plugin`, `flux job-validator` and `flux job-frobnicator` run this: they are commands of
//! users and have no engine of their own. Nothing here needs a broker; what a plugin asks of one
//! is answered from what is given.

/// A line for whoever reads; one who has gone is not missed.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($text)*);
    }};
}

mod bench;
mod check;
mod ingest;
mod inspect;
mod recording;
mod replay;
mod replay_scheduler;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::plugin::types::Level;
use crate::plugin::{HostConfig, Kind, PluginHost, PluginSpec, Replay, SharedJobs, default_path};

#[derive(Debug, Parser)]
#[command(name = "flux-plugin", max_term_width = 80)]
struct Tool {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what a module says about itself, without running any of it
    Inspect(inspect::Inspect),
    /// Load a module as a broker would, and say what is wrong with it
    Check(check::Check),
    /// Replay recorded jobs through a plugin
    Test(replay::Test),
    /// Measure how long a plugin takes
    Bench(bench::Bench),
    /// List the plugins of a kind in the plugin path
    List(ingest::List),
    /// Judge jobs on standard input, a line each
    Validate(ingest::Validate),
    /// Edit jobs on standard input, a line each
    Frobnicate(ingest::Frobnicate),
}

/// What a plugin is given, as an entry of the configuration would.
#[derive(Debug, Args)]
struct Given {
    /// Configuration of the plugin: key=value, value being JSON or text
    #[arg(value_name = "KEY=VALUE")]
    conf: Vec<String>,
    /// The broker's configuration: a file with a JSON object
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

type Outcome = Result<ExitCode, String>;

/// Run a verb; `arguments` begin with the word in the program's place.
pub fn main(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let tool = match Tool::try_parse_from(arguments) {
        Ok(tool) => tool,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // Users know the tools of job-ingest by names of their own.
    let name = match &tool.verb {
        Verb::Validate(_) => "flux-job-validator: ERROR",
        Verb::Frobnicate(_) => "flux-job-frobnicator: ERROR",
        _ => "flux-plugin",
    };
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(tool.verb)),
        Err(error) => Err(error.to_string()),
    };
    outcome.unwrap_or_else(|text| {
        eprintln!("{name}: {text}");
        ExitCode::FAILURE
    })
}

async fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::Inspect(inspect) => inspect.run(),
        Verb::Check(check) => check.run().await,
        Verb::Test(test) => test.run().await,
        Verb::Bench(bench) => bench.run().await,
        Verb::List(list) => list.run(),
        Verb::Validate(validate) => validate.run().await,
        Verb::Frobnicate(frobnicate) => frobnicate.run().await,
    }
}

impl Given {
    fn conf(&self) -> Result<Map<String, Value>, String> {
        let pair = |text: &String| {
            let (key, value) =
                text.split_once('=').ok_or_else(|| format!("{text}: not KEY=VALUE"))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            Ok((key.to_owned(), value))
        };
        self.conf.iter().map(pair).collect()
    }

    fn broker_config(&self) -> Result<Map<String, Value>, String> {
        configuration(self.config.as_deref())
    }
}

/// The broker's configuration from a file; empty where there is none.
fn configuration(path: Option<&Path>) -> Result<Map<String, Value>, String> {
    let Some(path) = path else { return Ok(Map::new()) };
    let named = |error: String| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| named(error.to_string()))
}

/// A host without a broker. What plugins log goes to standard error.
fn host(config: Map<String, Value>, jobs: SharedJobs, replay: Option<Replay>) -> PluginHost {
    host_with(config, jobs, replay, crate::plugin_host::user_cache())
}

/// The same, with a folder for compiled modules.
fn host_with(
    config: Map<String, Value>,
    jobs: SharedJobs,
    replay: Option<Replay>,
    cache: Option<PathBuf>,
) -> PluginHost {
    let (notices, _) = mpsc::unbounded_channel();
    let log = |plugin: &str, level: Level, text: &str| {
        eprintln!("{plugin}: {}: {text}", show::level(level));
    };
    let config = HostConfig {
        path: default_path(),
        cache,
        log: Arc::new(log),
        jobs,
        owner: nix::unistd::geteuid().as_raw(),
        size: 1,
        level: 0,
        attributes: Default::default(),
        config,
        replay,
    };
    PluginHost::new(config, notices)
}

/// A module of any kind, granted what it asks for: whoever runs a tool may see what it does.
fn spec_of(file: &str, conf: Map<String, Value>) -> Result<(PluginSpec, Kind), String> {
    let (_, inspection) = inspect::read(file)?;
    let mut spec = PluginSpec::named(inspect::path(file));
    spec.conf = conf;
    spec.caps.clone_from(&inspection.manifest.capabilities);
    Ok((spec, inspection.manifest.kind))
}
