//! `flux-broker`, which `flux broker` and `flux start` execute.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use flux_broker::config::Config;
use flux_broker::instance::{self, Options};
use flux_broker::inventory;

/// Run a Flux message broker.
#[derive(Debug, Parser)]
#[command(name = "flux-broker", version, max_term_width = 80)]
struct Args {
    /// Be annoyingly chatty
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Set initial value for broker attribute
    #[arg(short = 'S', long = "setattr", value_name = "ATTR=VAL")]
    setattr: Vec<String>,
    /// Read broker configuration from PATH, a directory with TOML files or a file
    #[arg(short = 'c', long, value_name = "PATH")]
    config_path: Option<PathBuf>,
    /// Read the configuration, print what is wrong with it, and exit
    #[arg(long, hide = true)]
    check_config: bool,
    /// Print the resources of this host, or those that the configuration has, as R, and exit
    #[arg(long, hide = true)]
    print_resources: bool,
    /// Update the configuration with a file, KEY=VAL, inline JSON or TOML
    #[arg(long, value_name = "VALUE")]
    conf: Vec<String>,
    /// Initial program and its arguments (default: an interactive shell)
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    // Not a broker, but what needs its plugin host.
    if std::env::args_os().nth(1).is_some_and(|word| word == "plugin") {
        return flux_broker::plugin_tool::main(std::env::args_os().skip(1));
    }
    let args = Args::parse();
    flux_protocol::fluid::set_plain_f58(flux_client::locale::is_f58_plain());
    flux_broker::subprocess::keep_descriptors_private();
    if let Err(error) = flux_broker::fault_signals::let_them_end_the_broker() {
        eprintln!("flux-broker: handlers of signals: {error}");
        return ExitCode::FAILURE;
    }
    if let (true, Some(path)) = (args.check_config, &args.config_path) {
        return check_config(path);
    }
    if args.print_resources {
        return print_resources(args.config_path.as_deref());
    }
    let attrs = args
        .setattr
        .iter()
        .map(|setting| match setting.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (setting.clone(), None),
        })
        .collect();
    let options = Options {
        attrs,
        config_path: args.config_path,
        config_updates: args.conf,
        verbose: args.verbose,
        command: args.command,
    };
    match run(options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("flux-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// For `flux config check`: findings on standard output, a line each.
fn check_config(path: &std::path::Path) -> ExitCode {
    let findings = match Config::load(path) {
        Ok(config) => match plugin_mistakes(&config) {
            Ok(plugins) => [config.findings(), inventory::mistakes(&config), plugins].concat(),
            Err(error) => vec![format!("plugins can't be tried out: {error}")],
        },
        Err(error) => vec![error.to_string()],
    };
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plugin_mistakes(config: &Config) -> std::io::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(inventory::plugin_mistakes(config)))
}

/// For `flux R`, which knows neither hwloc nor the tables.
fn print_resources(config: Option<&std::path::Path>) -> ExitCode {
    let printed = match config {
        Some(path) => inventory::of_config(path),
        None => inventory::of_this_host(),
    };
    match printed {
        Ok(r) => {
            println!("{r}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<u8, instance::StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, instance::run(options))
}
