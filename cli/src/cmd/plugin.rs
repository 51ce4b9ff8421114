//! `flux plugin`: what an author and an administrator do with a module, without an instance.
//!
//! The engine is the broker's: this runs `flux-broker plugin VERB`, so that the command itself
//! stays small.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};

mod new;
mod record;

#[derive(Debug, Args)]
#[command(override_usage = "flux-plugin COMMAND [OPTIONS]")]
pub(crate) struct Plugin {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the folder of a new plugin
    New(new::New),
    /// Show what a module says about itself, without running any of it
    Inspect(Inspect),
    /// Load a module as a broker would, and say what is wrong with it
    Check(Check),
    /// Replay recorded jobs through a plugin, without a broker
    Test(Test),
    /// Measure how long a plugin takes
    Bench {
        /// A path, or a name in the plugin path
        module: OsString,
        /// Configuration of the plugin
        #[arg(value_name = "KEY=VALUE")]
        conf: Vec<OsString>,
    },
    /// Print jobs of this instance, for `flux plugin test --replay`
    Record(record::Record),
    /// List the plugins of a kind in the plugin path
    List {
        /// "jobtap", "validator", "frobnicator" or "scheduler"
        kind: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A path, or a name in the plugin path
    module: OsString,
}

#[derive(Debug, Args)]
struct Check {
    /// The broker's configuration, as `flux config get` prints it
    #[arg(long, value_name = "FILE")]
    config: Option<OsString>,
    /// A path, or a name in the plugin path
    module: OsString,
    /// Configuration of the plugin
    #[arg(value_name = "KEY=VALUE")]
    conf: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Recorded jobs, as `flux plugin record` prints them
    #[arg(long, value_name = "FILE", required = true)]
    replay: Vec<OsString>,
    /// Seed of the plugin's random numbers
    #[arg(long, value_name = "N")]
    seed: Option<OsString>,
    /// The broker's configuration, as `flux config get` prints it
    #[arg(long, value_name = "FILE")]
    config: Option<OsString>,
    /// A path, or a name in the plugin path
    module: OsString,
    /// Configuration of the plugin
    #[arg(value_name = "KEY=VALUE")]
    conf: Vec<OsString>,
}

impl Plugin {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.command {
            Verb::New(new) => new.run(&context),
            Verb::Inspect(inspect) => inspect.run(&context),
            Verb::Check(check) => check.run(&context),
            Verb::Test(test) => test.run(&context),
            Verb::Bench { module, conf } => {
                become_tool(&context, ["bench".into(), module].into_iter().chain(conf))
            }
            Verb::Record(record) => record.run(&context).await,
            Verb::List { kind } => become_tool(&context, ["list".into(), kind.into()]),
        }
    }
}

impl Inspect {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let json = self.json.then(|| "--json".into());
        become_tool(context, ["inspect".into()].into_iter().chain(json).chain([self.module]))
    }
}

impl Check {
    fn run(self, context: &Context) -> Outcome {
        let words = ["check".into()].into_iter().chain(option("--config", self.config));
        become_tool(context, words.chain([self.module]).chain(self.conf))
    }
}

impl Test {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let recordings = self.replay.into_iter().flat_map(|file| option("--replay", Some(file)));
        let words = ["test".into()]
            .into_iter()
            .chain(recordings)
            .chain(option("--seed", self.seed))
            .chain(option("--config", self.config));
        become_tool(context, words.chain([self.module]).chain(self.conf))
    }
}

fn option(name: &str, value: Option<OsString>) -> impl Iterator<Item = OsString> + use<> {
    let name = OsString::from(name);
    value.into_iter().flat_map(move |value| [name.clone(), value])
}

/// The program that has the engine.
pub(crate) fn tool(context: &Context) -> Command {
    let mut command = Command::new(context.layout.libexecdir().join("flux-broker"));
    command.arg("plugin").env_clear().envs(context.env.all());
    command
}

/// Returns only if it can't be run.
pub(crate) fn become_tool(context: &Context, words: impl IntoIterator<Item = OsString>) -> Outcome {
    let mut command = tool(context);
    let error = command.args(words).exec();
    Err(Failure::of(command.get_program().display(), strerror(&error)))
}
