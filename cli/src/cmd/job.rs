//! `flux job`: control jobs and look into them.

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Outcome;

mod attach;
mod control;
mod hostpids;
mod info;
mod list;
mod log;
mod ls_id;
mod purge;
mod signal_all;
mod status;
mod submit;
mod taskmap;
mod urgency;
mod why;

pub(crate) use why::Why;

#[derive(Debug, Args)]
#[command(override_usage = "flux-job [OPTIONS] COMMAND ARGS")]
pub(crate) struct JobCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List jobs
    #[command(hide = true)]
    List(list::List),
    /// List Inactive jobs
    #[command(hide = true)]
    ListInactive(list::ListInactive),
    /// List job(s) by id
    #[command(hide = true)]
    ListIds(list::ListIds),
    /// Interactively attach to job
    Attach(attach::AttachCommand),
    /// Set job urgency (0-31, HOLD, EXPEDITE, DEFAULT)
    Urgency(urgency::Urgency),
    /// Cancel one or more jobs
    Cancel(control::Cancel),
    /// Cancel multiple jobs
    Cancelall(control::CancelAll),
    /// Raise exception on one or more jobs
    Raise(control::Raise),
    /// Raise an exception on multiple jobs.
    Raiseall(control::RaiseAll),
    /// Send signal to one or more running jobs
    Kill(signal_all::Kill),
    /// Send signal to multiple running jobs
    Killall(signal_all::KillAll),
    /// Wait for job(s) to complete and exit with largest exit code
    Status(status::Status),
    /// Submit a jobspec
    Submit(submit::Submit),
    /// Convert jobid(s) to another form
    Id(ls_id::Id),
    /// Display eventlog for a job
    Eventlog(log::Eventlog),
    /// Wait for an event
    WaitEvent(log::WaitEvent),
    /// Display info for a job
    Info(info::Info),
    /// Get current job stats
    Stats(info::Stats),
    /// Convert job ids to job guest kvs namespace names
    Namespace(ls_id::Namespace),
    /// Wait for job(s) to complete.
    Wait(status::Wait),
    /// Post an RFC 21 memo to a job
    Memo(info::Memo),
    /// Utility function for working with job task maps
    Taskmap(taskmap::TaskmapCommand),
    /// Find remaining runtime for job or enclosing instance
    Timeleft(info::Timeleft),
    /// List my most recently submitted job id(s)
    Last(ls_id::Last),
    /// Print a list of host:pid for tasks in a job
    Hostpids(hostpids::Hostpids),
    /// Purge the oldest inactive jobs
    Purge(purge::Purge),
    /// Tell what a job waits for
    Why(Why),
}

impl JobCommand {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let context = &context;
        match self.command {
            Command::List(command) => command.run(context).await,
            Command::ListInactive(command) => command.run(context).await,
            Command::ListIds(command) => command.run(context).await,
            Command::Attach(command) => command.run(context).await,
            Command::Urgency(command) => command.run(context).await,
            Command::Cancel(command) => command.run(context).await,
            Command::Cancelall(command) => command.run(context).await,
            Command::Raise(command) => command.run(context).await,
            Command::Raiseall(command) => command.run(context).await,
            Command::Kill(command) => command.run(context).await,
            Command::Killall(command) => command.run(context).await,
            Command::Status(command) => command.run(context).await,
            Command::Submit(command) => command.run(context).await,
            Command::Id(command) => command.run(),
            Command::Eventlog(command) => command.run(context).await,
            Command::WaitEvent(command) => command.run(context).await,
            Command::Info(command) => command.run(context).await,
            Command::Stats(command) => command.run(context).await,
            Command::Namespace(command) => command.run(),
            Command::Wait(command) => command.run(context).await,
            Command::Memo(command) => command.run(context).await,
            Command::Taskmap(command) => command.run(context).await,
            Command::Timeleft(command) => command.run(context).await,
            Command::Last(command) => command.run(context).await,
            Command::Hostpids(command) => command.run(context).await,
            Command::Purge(command) => command.run(context).await,
            Command::Why(command) => command.run(context).await,
        }
    }
}
