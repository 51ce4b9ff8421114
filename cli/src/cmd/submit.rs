//! `flux submit`: send a job, or many, and print their ids.

use clap::Args;

use crate::context::Context;
use crate::failure::Outcome;
use crate::submission::bulk::{self, Bulk};
use crate::submission::mutable::Draft;
use crate::submission::options::{Common, Many, Tasks};

#[derive(Debug, Args)]
#[command(override_usage = "flux-submit [OPTIONS...] COMMAND [ARGS...]")]
pub(crate) struct Submit {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    tasks: Tasks,
    #[command(flatten)]
    many: Many,
    /// Job command and arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Submit {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let draft = Draft::new(self.common, self.tasks, self.many, self.command);
        let own = context.env.all().clone();
        let mut bulk = Bulk::new(&context, &own);
        bulk.show_progress(&draft, bulk::copies(&draft)?.len());
        if bulk.send(&draft).await? {
            return Ok(0);
        }
        bulk.finish().await
    }
}
