//! `flux perilog-run`: a prolog or epilog of scripts on this host, and of a command on each rank
//! of a job. Meant to be the command of `[job-manager.prolog]` and `[job-manager.epilog]`.

mod ranks;
mod scripts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use flux_protocol::fluid::JobId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::duration;
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// The folders with scripts of a site, `prolog.d` and `epilog.d`.
const SCRIPTS: &str = "/etc/flux/system";

#[derive(Debug, Args)]
#[command(override_usage = "flux-perilog-run prolog|epilog [OPTIONS]")]
pub(crate) struct PerilogRun {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the prolog of the job that FLUX_JOB_ID names
    #[command(override_usage = "flux-perilog-run prolog [OPTIONS]")]
    Prolog(Options),
    /// Run the epilog of the job that FLUX_JOB_ID names
    #[command(override_usage = "flux-perilog-run epilog [OPTIONS]")]
    Epilog(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// Log what is run
    #[arg(short, long)]
    verbose: bool,
    /// End what runs longer than this
    #[arg(short, long, value_name = "FSD", value_parser = duration)]
    timeout: Option<Duration>,
    /// Run CMD on each rank of the job
    #[arg(short, long, value_name = "CMD[,ARGS...]")]
    exec_per_rank: Option<String>,
    /// Run CMD by the IMP, as root
    #[arg(long)]
    with_imp: bool,
    /// Drain ranks of the job that are offline
    #[arg(short = 'D', long)]
    drain_offline: bool,
    /// Run all executables in DIRECTORY [default: /etc/flux/system/{prolog,epilog}.d]
    #[arg(short = 'd', long, value_name = "DIRECTORY")]
    exec_directory: Option<PathBuf>,
}

/// One run.
struct Perilog {
    /// `prolog` or `epilog`.
    name: &'static str,
    id: JobId,
    options: Options,
    stop: Stop,
}

/// The signal that all processes are to get; 0 as long as there is none.
type Stop = watch::Receiver<i32>;

impl PerilogRun {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let (name, options) = match self.command {
            Command::Prolog(options) => ("prolog", options),
            Command::Epilog(options) => ("epilog", options),
        };
        let id = context
            .env
            .get("FLUX_JOB_ID")
            .ok_or_else(|| Failure::new("FLUX_JOB_ID not found in environment"))?;
        let id = JobId::parse(id)
            .map_err(|_| Failure::new(format_args!("FLUX_JOB_ID: '{id}' is not a job id")))?;
        let stop = stop(options.timeout)?;
        Perilog { name, id, options, stop }.run(&context).await
    }
}

impl Perilog {
    /// Scripts first; where one fails, that is all.
    async fn run(self, context: &Context) -> Outcome {
        let code = self.scripts().await?;
        match &self.options.exec_per_rank {
            Some(command) if code == 0 => self.ranks(context, command).await,
            _ => Ok(code),
        }
    }

    fn directory(&self) -> PathBuf {
        let default = || Path::new(SCRIPTS).join(format!("{}.d", self.name));
        self.options.exec_directory.clone().unwrap_or_else(default)
    }

    fn info(&self, text: std::fmt::Arguments<'_>) {
        if self.options.verbose {
            eprintln!("{}: {}: {text}", self.id.f58(), self.name);
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow() != 0
    }
}

/// What tells all processes to end: a signal to this one, or the end of its time.
fn stop(timeout: Option<Duration>) -> Result<Stop, Failure> {
    let (sender, stop) = watch::channel(0);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(|e| Failure::of("signal", e))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                sender.send_replace(kind.as_raw_value());
            }
        });
    }
    if let Some(timeout) = timeout {
        tokio::spawn(async move {
            tokio::time::sleep(timeout).await;
            eprintln!("timeout after {:.1}s", timeout.as_secs_f64());
            sender.send_replace(SignalKind::terminate().as_raw_value());
        });
    }
    Ok(stop)
}

/// The next signal to pass on.
async fn next_signal(stop: &mut Stop) -> i32 {
    match stop.changed().await {
        Ok(()) => *stop.borrow_and_update(),
        // Nobody can ask for it any more.
        Err(_) => std::future::pending().await,
    }
}
