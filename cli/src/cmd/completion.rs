//! `flux completion`: what a shell needs to complete command lines.

use clap::Args;
use clap_complete::Shell;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::table::COMMANDS;

#[derive(Debug, Args)]
#[command(override_usage = "flux completion bash|zsh|fish")]
pub(crate) struct Completion {
    #[arg(value_name = "SHELL")]
    shell: String,
}

impl Completion {
    pub(crate) async fn run(self, _context: Context) -> Outcome {
        let shell: Shell =
            self.shell.parse().map_err(|_| Failure::of(&self.shell, "use bash, zsh or fish"))?;
        let commands = COMMANDS.iter().map(|command| {
            // On the way to a shell each is a subcommand of flux, whatever it calls itself.
            let name = format!("flux {}", command.name);
            (command.build)().no_binary_name(false).bin_name(name)
        });
        let mut flux = clap::Command::new("flux")
            .disable_help_subcommand(true)
            .arg(clap::arg!(-V --version "Display command and component versions"))
            .arg(clap::arg!(-v --verbose "Be verbose about environment and command search"))
            .arg(clap::arg!(-p --parent "Set environment of parent instead of current instance"))
            .arg(clap::arg!(-r --root "Set environment of root instead of current instance"))
            .subcommands(commands);
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut flux, "flux", &mut script);
        output::emit_bytes(&script);
        Ok(0)
    }
}
