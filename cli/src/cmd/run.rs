//! `flux run`: send a job and stay attached to it.

use clap::Args;

use crate::attach::Attach;
use crate::context::Context;
use crate::failure::Outcome;
use crate::jobid;
use crate::submission::options::{Common, Tasks};
use crate::submission::{build, send};

#[derive(Debug, Args)]
#[command(override_usage = "flux-run [OPTIONS...] COMMAND [ARGS...]")]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    tasks: Tasks,
    /// Stay attached until event NAME (default=clean)
    #[arg(long, value_name = "NAME")]
    wait_event: Option<String>,
    /// Job command and arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let Run { common, tasks, wait_event, command } = self;
        let jobspec = build::jobspec(&common, &tasks, &command, context.env.all())?;
        if common.dry_run {
            send::print(&jobspec)?;
            return Ok(0);
        }
        let request = send::request(&common, &jobspec)?;
        let flux = context.connect().await?;
        let id = send::send(&flux, &request).await?;
        if tasks.verbose > 0 {
            eprintln!("jobid: {}", jobid::f58(id));
        }
        let attach = Attach {
            label_io: common.label_io,
            show_events: tasks.verbose > 1,
            show_exec: tasks.verbose > 2,
            wait_event,
            debug_emulate: common.debug_emulate,
            stdin_ranks: common.input.filter(|input| build::names_tasks(input)),
            ..Attach::default()
        };
        attach.run(&flux, id, &jobid::f58(id)).await
    }
}
