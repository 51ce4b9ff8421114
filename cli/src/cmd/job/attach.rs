//! `flux job attach`: output, input and exit code of a job that was submitted before.

use clap::Args;

use crate::attach::Attach;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{jobid, mpir};

/// Entries that `--tail` without a number shows.
const TAIL: &str = "10";

#[derive(Debug, Args)]
#[command(override_usage = "flux-job attach [OPTIONS] id")]
pub(super) struct AttachCommand {
    /// Show job events on stderr
    #[arg(short = 'E', long)]
    show_events: bool,
    /// Show exec events on stderr
    #[arg(short = 'X', long)]
    show_exec: bool,
    /// Show job status line while pending
    #[arg(long)]
    show_status: bool,
    /// Wait for event NAME before detaching from eventlog (default=clean)
    #[arg(short, long, value_name = "NAME")]
    wait_event: Option<String>,
    /// Label output by rank
    #[arg(short, long)]
    label_io: bool,
    /// Increase verbosity
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Suppress warnings written to stderr from flux-job
    #[arg(short, long)]
    quiet: bool,
    /// Disable reading stdin and capturing signals
    #[arg(short, long)]
    read_only: bool,
    /// Accepted: standard input is passed on as it comes
    #[arg(short, long)]
    unbuffered: bool,
    /// Send standard input to only RANKS (default: all)
    #[arg(short = 'i', long, value_name = "RANKS")]
    stdin_ranks: Option<String>,
    /// Output only the last NUM lines of job output (default 10)
    #[arg(long, value_name = "NUM", num_args = 0..=1, require_equals = true,
          default_missing_value = TAIL)]
    tail: Option<usize>,
    /// Enable parallel debugger to attach to a running job
    #[arg(long)]
    debug: bool,
    /// As if a debugger were attached, for tests
    #[arg(long, hide = true)]
    debug_emulate: bool,
    /// Accepted: the state of queues is asked for when it is shown
    #[arg(long, value_name = "SECONDS", hide = true)]
    queue_check_interval: Option<u32>,
    #[arg(required = true, value_name = "id")]
    id: String,
}

impl AttachCommand {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        if self.stdin_ranks.is_some() && self.read_only {
            return Err(Failure::new("Do not use --stdin-ranks with --read-only"));
        }
        if self.debug || self.debug_emulate {
            mpir::emulate();
        }
        let id = jobid::parse(&self.id)?;
        let flux = context.connect().await?;
        let attach = Attach {
            label_io: self.label_io,
            show_events: self.show_events,
            show_exec: self.show_exec,
            show_status: self.show_status,
            wait_event: self.wait_event,
            quiet: self.quiet,
            verbose: self.verbose,
            read_only: self.read_only,
            stdin_ranks: self.stdin_ranks,
            tail: self.tail,
            debug_emulate: self.debug_emulate,
        };
        attach.run(&flux, id, &self.id).await
    }
}
