//! `flux queue`: whether jobs may be submitted, and whether they are scheduled.
//!
//! State goes to standard error behind `flux-queue: `, as the administrator's guide shows it;
//! scripts ask `flux queue list -n -o '{queue} {submission}'`.

mod list;

use std::time::Duration;

use clap::{Args, Subcommand};
use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::job_manager as rpc;

use crate::args::{duration, within};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::outln;

/// The job manager is there.
const LEADER: Nodeid = Nodeid(0);

#[derive(Debug, Args)]
#[command(about = None::<&str>, override_usage = "flux-queue [OPTIONS] COMMAND ARGS")]
pub(crate) struct Queue {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enable job submission
    #[command(override_usage = "flux-queue enable [OPTIONS] [QUEUE]")]
    Enable(Change),
    /// Disable job submission
    #[command(override_usage = "flux-queue disable [OPTIONS] [QUEUE] [REASON...]")]
    Disable(Change),
    /// Start scheduling
    #[command(override_usage = "flux-queue start [OPTIONS] [QUEUE]")]
    Start(Change),
    /// Stop scheduling
    #[command(override_usage = "flux-queue stop [OPTIONS] [QUEUE] [REASON...]")]
    Stop(Change),
    /// Get queue status
    #[command(override_usage = "flux-queue status [OPTIONS] [QUEUE]")]
    Status(Status),
    #[command(about = "Wait for queue to become empty.")]
    Drain {
        /// Give up after DURATION
        #[arg(short, long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<Duration>,
    },
    #[command(about = "Wait for queue to become idle.")]
    Idle {
        /// Give up after DURATION
        #[arg(short, long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<Duration>,
        /// Only display pending job count if nonzero
        #[arg(long)]
        quiet: bool,
    },
    /// List queues with their defaults and limits
    #[command(override_usage = "flux-queue list [OPTIONS]")]
    List(list::List),
}

/// What is the same for enable, disable, start and stop.
#[derive(Debug, Args)]
struct Change {
    /// Only this queue
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Force command to apply to all queues if none specified
    #[arg(short, long)]
    all: bool,
    /// Display only errors
    #[arg(long)]
    quiet: bool,
    /// Display more detail about internal job manager state
    #[arg(short, long)]
    verbose: bool,
    /// Do not remember this over a restart of the instance
    #[arg(long)]
    nocheckpoint: bool,
    /// Say why
    #[arg(short, long, value_name = "REASON")]
    message: Option<String>,
    #[arg(hide = true)]
    words: Vec<String>,
}

#[derive(Debug, Args)]
struct Status {
    #[arg(short, long, value_name = "NAME", hide = true)]
    queue: Option<String>,
    /// Display more detail about internal job manager state
    #[arg(short, long)]
    verbose: bool,
    #[arg(hide = true)]
    name: Option<String>,
}

/// Which half of a queue's state a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Enable,
    Disable,
    Start,
    Stop,
}

/// A change with its free words sorted out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Target {
    name: Option<String>,
    reason: Option<String>,
}

impl Queue {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        match self.command {
            Command::List(list) => list.run(&context).await,
            Command::Enable(change) => change.run(&flux, Verb::Enable).await,
            Command::Disable(change) => change.run(&flux, Verb::Disable).await,
            Command::Start(change) => change.run(&flux, Verb::Start).await,
            Command::Stop(change) => change.run(&flux, Verb::Stop).await,
            Command::Status(status) => status.run(&flux).await,
            Command::Drain { timeout } => drain(&flux, timeout).await,
            Command::Idle { timeout, quiet } => idle(&flux, timeout, quiet).await,
        }
    }
}

// === impl Change ===

impl Change {
    async fn run(self, flux: &Client, verb: Verb) -> Outcome {
        let mut target = self.target(verb)?;
        if verb.is_about_scheduling() && target.name.is_none() && !self.all {
            let queues = names(flux).await?;
            if !queues.is_empty() {
                let text = "Named queues are defined. Specify queues or use --all.";
                return Err(error(text));
            }
        }
        if let Err(refused) = self.send(flux, verb, &target).await {
            // `flux queue disable maintenance`: where queues have no names, it is no name.
            let word = target.name.take().filter(|_| self.queue.is_none() && verb.takes_reason());
            match word {
                Some(word) if refused.errno() == Errno::EINVAL && names(flux).await?.is_empty() => {
                    target.reason = Some(word);
                    self.send(flux, verb, &target).await.map_err(|e| verb.failure(&e))?;
                }
                _ => return Err(verb.failure(&refused)),
            }
        }
        if !self.quiet {
            for (name, status) in statuses(flux, target.name, self.verbose).await? {
                say(
                    name.as_deref(),
                    &if verb.is_about_scheduling() {
                        scheduling(&status)
                    } else {
                        submission(&status)
                    },
                );
            }
            if self.verbose && verb.is_about_scheduling() {
                say_counts(flux).await?;
            }
        }
        Ok(0)
    }

    /// A single free word is a queue until it turns out that there is none; more are a reason.
    fn target(&self, verb: Verb) -> Result<Target, Failure> {
        let mut target = Target { name: self.queue.clone(), reason: self.message.clone() };
        match self.words.as_slice() {
            [] => {}
            words if verb.takes_reason() && (words.len() > 1 || target.name.is_some()) => {
                if target.reason.is_some() {
                    return Err(error("there are two reasons: with --message and without"));
                }
                target.reason = Some(words.join(" "));
            }
            [word] if target.name.is_none() => target.name = Some(word.clone()),
            words => {
                let text = match &target.name {
                    Some(name) => format!(
                        "Conflicting queues specified as --queue={name} and {}",
                        words.join(" ")
                    ),
                    None => "specify one queue, or use --all".to_owned(),
                };
                return Err(error(text));
            }
        }
        Ok(target)
    }

    async fn send(&self, flux: &Client, verb: Verb, target: &Target) -> Result<(), RpcError> {
        let (name, mut reason) = (target.name.clone(), target.reason.clone());
        match verb {
            Verb::Enable | Verb::Disable => {
                let enable = verb == Verb::Enable;
                if !enable {
                    reason = reason.filter(|reason| !reason.is_empty());
                    reason = reason.or_else(|| Some("disabled by administrator".to_owned()));
                }
                let request = rpc::QueueEnableRequest { enable, all: self.all, name, reason };
                flux.rpc::<rpc::QueueEnable>(LEADER, &request).await?;
            }
            Verb::Start | Verb::Stop => {
                let request = rpc::QueueStartRequest {
                    start: verb == Verb::Start,
                    all: self.all,
                    nocheckpoint: self.nocheckpoint,
                    name,
                    reason,
                };
                flux.rpc::<rpc::QueueStart>(LEADER, &request).await?;
            }
        }
        Ok(())
    }
}

impl Verb {
    fn is_about_scheduling(self) -> bool {
        matches!(self, Verb::Start | Verb::Stop)
    }

    fn takes_reason(self) -> bool {
        matches!(self, Verb::Disable | Verb::Stop)
    }

    fn failure(self, refused: &RpcError) -> Failure {
        let what = if self.is_about_scheduling() { "start" } else { "enable" };
        error(format_args!("{what}: {refused}"))
    }
}

// === impl Status ===

impl Status {
    async fn run(self, flux: &Client) -> Outcome {
        let name = match (self.queue, self.name) {
            (Some(option), Some(word)) => {
                return Err(error(format_args!(
                    "Conflicting queues specified as --queue={option} and {word}"
                )));
            }
            (option, word) => option.or(word),
        };
        for (name, status) in statuses(flux, name, self.verbose).await? {
            say(name.as_deref(), &submission(&status));
            say(name.as_deref(), &scheduling(&status));
        }
        if self.verbose {
            say_counts(flux).await?;
        }
        Ok(0)
    }
}

/// The status of one queue, or of all of them.
async fn statuses(
    flux: &Client,
    name: Option<String>,
    verbose: bool,
) -> Result<Vec<(Option<String>, rpc::QueueStatusResponse)>, Failure> {
    let queues = names(flux).await?;
    let names = match name {
        _ if queues.is_empty() => vec![name],
        Some(name) if !verbose => vec![Some(name)],
        _ => queues.into_iter().map(Some).collect(),
    };
    let mut statuses = Vec::new();
    for name in names {
        let request = rpc::QueueStatusRequest { name: name.clone() };
        let status = flux
            .rpc::<rpc::QueueStatus>(LEADER, &request)
            .await
            .map_err(|e| error(format_args!("status: {e}")))?;
        statuses.push((name, status));
    }
    Ok(statuses)
}

async fn names(flux: &Client) -> Result<Vec<String>, Failure> {
    let response = flux.rpc::<rpc::QueueList>(Nodeid::ANY, &Empty).await;
    Ok(response.map_err(|e| error(format_args!("list: {e}")))?.queues)
}

fn submission(status: &rpc::QueueStatusResponse) -> String {
    let state = if status.enable { "enabled" } else { "disabled" };
    with_reason(format!("Job submission is {state}"), status.disable_reason.as_deref())
}

fn scheduling(status: &rpc::QueueStatusResponse) -> String {
    let state = if status.start { "enabled" } else { "disabled" };
    with_reason(format!("Scheduling is {state}"), status.stop_reason.as_deref())
}

fn with_reason(text: String, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{text}: {reason}"),
        None => text,
    }
}

fn say(queue: Option<&str>, text: &str) {
    match queue {
        Some(queue) => eprintln!("flux-queue: {queue}: {text}"),
        None => eprintln!("flux-queue: {text}"),
    }
}

async fn say_counts(flux: &Client) -> Result<(), Failure> {
    let counts = flux
        .rpc::<rpc::AllocQuery>(Nodeid::ANY, &Empty)
        .await
        .map_err(|e| error(format_args!("alloc-query: {e}")))?;
    say(None, &format!("{} alloc requests queued", counts.queue_length));
    say(None, &format!("{} alloc requests pending to scheduler", counts.alloc_pending));
    // The scheduler has nothing to answer to a free request, so that none is ever pending.
    say(None, "0 free requests pending to scheduler");
    say(None, &format!("{} running jobs", counts.running));
    Ok(())
}

async fn drain(flux: &Client, timeout: Option<Duration>) -> Outcome {
    match within(timeout, flux.rpc::<rpc::Drain>(Nodeid::ANY, &Empty)).await {
        None => Err(error("drain: timeout")),
        Some(Err(e)) => Err(error(format_args!("drain: {e}"))),
        Some(Ok(Empty)) => Ok(0),
    }
}

async fn idle(flux: &Client, timeout: Option<Duration>, quiet: bool) -> Outcome {
    match within(timeout, flux.rpc::<rpc::Idle>(Nodeid::ANY, &Empty)).await {
        None => Err(error("idle: timeout")),
        Some(Err(e)) => Err(error(format_args!("idle: {e}"))),
        Some(Ok(response)) => {
            if !quiet || response.pending > 0 {
                outln!("{} jobs", response.pending);
            }
            Ok(0)
        }
    }
}

fn error(text: impl std::fmt::Display) -> Failure {
    Failure::new(text).prefix("flux-queue: ERROR")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(verb: Verb, queue: Option<&str>, words: &[&str]) -> Result<Target, Failure> {
        let change = Change {
            queue: queue.map(str::to_owned),
            all: false,
            quiet: false,
            verbose: false,
            nocheckpoint: false,
            message: None,
            words: words.iter().map(|&word| word.to_owned()).collect(),
        };
        change.target(verb)
    }

    fn expect(name: Option<&str>, reason: Option<&str>) -> Target {
        Target { name: name.map(str::to_owned), reason: reason.map(str::to_owned) }
    }

    #[test]
    fn free_words_are_a_queue_or_a_reason() {
        let stop = |queue, words: &[&str]| target(Verb::Stop, queue, words).unwrap();
        assert_eq!(stop(None, &[]), expect(None, None));
        assert_eq!(stop(None, &["batch"]), expect(Some("batch"), None));
        assert_eq!(stop(None, &["my", "reason"]), expect(None, Some("my reason")));
        assert_eq!(stop(Some("batch"), &["why"]), expect(Some("batch"), Some("why")));
        assert!(target(Verb::Start, None, &["a", "b"]).is_err());
        assert!(target(Verb::Enable, Some("a"), &["b"]).is_err());
    }
}
