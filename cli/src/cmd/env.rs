//! `flux env`: the environment that commands run in.

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::outln;

#[derive(Debug, Args)]
#[command(override_usage = "flux env [OPTIONS...] [COMMAND...]")]
pub(crate) struct Env {
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

impl Env {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let Some((program, args)) = self.command.split_first() else {
            for (name, value) in context.env.ours() {
                outln!("export {name}=\"{value}\"");
            }
            return Ok(0);
        };
        let error = Command::new(program).args(args).env_clear().envs(context.env.all()).exec();
        Err(Failure::of(format_args!("execvp ({program})"), strerror(&error)).prefix("flux"))
    }
}
