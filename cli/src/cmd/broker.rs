//! `flux broker`: become a broker.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};

#[derive(Debug, Args)]
#[command(
    override_usage = "flux broker [OPTIONS] [initial-program [args...]]",
    disable_help_flag = true
)]
pub(crate) struct Broker {
    /// options and the initial program, as flux-broker takes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Broker {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let program = context.layout.libexecdir().join("flux-broker");
        let error = std::process::Command::new(&program).args(self.args).exec();
        Err(Failure::of(program.display(), strerror(&error)))
    }
}
