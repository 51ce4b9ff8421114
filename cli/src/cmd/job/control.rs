//! Exceptions (RFC 21): cancel, cancelall, raise, raiseall.

use clap::Args;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_manager::{self, RaiseAllRequest, RaiseRequest};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::joblist;

#[derive(Debug, Args)]
#[command(override_usage = "flux-job raise [OPTIONS] ids... [--] [message ...]")]
pub(super) struct Raise {
    /// Set exception severity [0-7] (default=0)
    #[arg(short, long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    severity: i64,
    /// Set exception type (default=cancel)
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "cancel")]
    kind: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job cancel [OPTIONS] ids... [--] [message ...]")]
pub(super) struct Cancel {
    #[command(flatten)]
    target: Target,
}

// Doc comments of flattened arguments would become those of the command.
#[derive(Debug, Args)]
struct Target {
    /// Set exception note
    #[arg(short, long, value_name = "NOTE")]
    message: Option<String>,
    /// Job ids, and behind them a message
    #[arg(required = true, value_name = "ids")]
    words: Vec<String>,
    #[arg(last = true, hide = true)]
    note: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job raiseall OPTIONS type [message ...]")]
pub(super) struct RaiseAll {
    /// Set exception severity [0-7] (0 is fatal, default=7)
    #[arg(short, long, value_name = "N", default_value_t = 7, allow_negative_numbers = true)]
    severity: i64,
    /// Set target user or 'all' (instance owner only)
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Set target job states (default=ACTIVE)
    #[arg(short = 'S', long, value_name = "STATES", value_delimiter = ',')]
    states: Vec<String>,
    /// Confirm the command
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "type")]
    kind: String,
    message: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job cancelall [OPTIONS] [message ...]")]
pub(super) struct CancelAll {
    /// Set target user or 'all' (instance owner only)
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Set target job states (default=ACTIVE)
    #[arg(short = 'S', short_alias = 's', long, value_name = "STATES", value_delimiter = ',')]
    states: Vec<String>,
    /// Confirm the command
    #[arg(short, long)]
    force: bool,
    /// Suppress output if no jobs match
    #[arg(short, long)]
    quiet: bool,
    message: Vec<String>,
}

/// Ids, also as they were written, and a note.
type Parsed<'a> = (Vec<(&'a str, JobId)>, Option<String>);

impl Raise {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        self.target.raise(context, "raise", self.severity, &self.kind).await
    }
}

impl Cancel {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        self.target.raise(context, "cancel", 0, "cancel").await
    }
}

impl Target {
    async fn raise(&self, context: &Context, verb: &str, severity: i64, kind: &str) -> Outcome {
        let (ids, note) = self.parse()?;
        let flux = context.connect().await?;
        let mut pending = Vec::new();
        for (text, id) in ids {
            let request = RaiseRequest {
                id,
                severity,
                kind: kind.to_owned(),
                note: note.clone(),
                wait_status: None,
            };
            pending.push((text, flux.start::<job_manager::Raise>(Nodeid::ANY, &request)?));
        }
        let mut code = 0;
        for (text, pending) in pending {
            if let Err(e) = pending.await {
                eprintln!("flux-job: {verb} {text}: {e}");
                code = 1;
            }
        }
        Ok(code)
    }

    /// Words up to the first that is no job id, and what is behind them as a note.
    fn parse(&self) -> Result<Parsed<'_>, Failure> {
        let mut ids = Vec::new();
        let mut words = self.words.iter().peekable();
        while let Some(word) = words.peek() {
            let Ok(id) = JobId::parse(word) else { break };
            ids.push((word.as_str(), id));
            words.next();
        }
        let rest: Vec<&str> = words.chain(&self.note).map(String::as_str).collect();
        let note = (!rest.is_empty()).then(|| rest.join(" "));
        match (note, &self.message) {
            (Some(_), Some(_)) => {
                Err(Failure::new("Do not set note on command line and with --message"))
            }
            (None, Some(message)) => Ok((ids, Some(message.clone()))),
            (Some(note), None) if ids.is_empty() => {
                let word = note.split(' ').next().unwrap_or_default();
                Err(Failure::new(format_args!("invalid jobid: {word}")))
            }
            (note, None) => Ok((ids, note)),
        }
    }
}

/// Who and what a command for many jobs is about.
struct Selection<'a> {
    user: Option<&'a str>,
    states: &'a [String],
    force: bool,
}

impl RaiseAll {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let note = self.message.join(" ");
        let selection =
            Selection { user: self.user.as_deref(), states: &self.states, force: self.force };
        let request = selection.request(self.severity, &self.kind, note)?;
        let matched = send(context, "raiseall", &request).await?;
        match (matched.count, self.force) {
            (0, _) => eprintln!("flux-job: Command matched 0 jobs"),
            (count, false) => eprintln!("flux-job: Command matched {count} jobs (-f to confirm)"),
            (count, true) => {
                eprintln!("flux-job: Raised exception on {count} jobs ({} errors)", matched.errors)
            }
        }
        Ok(0)
    }
}

impl CancelAll {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let note = self.message.join(" ");
        let selection =
            Selection { user: self.user.as_deref(), states: &self.states, force: self.force };
        let request = selection.request(0, "cancel", note)?;
        let matched = send(context, "cancelall", &request).await?;
        match (matched.count, self.force) {
            (0, _) if self.quiet => {}
            (0, _) => eprintln!("flux-job: Command matched 0 jobs"),
            (count, false) => eprintln!("flux-job: Command matched {count} jobs (-f to confirm)"),
            (count, true) => {
                eprintln!("flux-job: Canceled {count} jobs ({} errors)", matched.errors);
            }
        }
        Ok(0)
    }
}

impl Selection<'_> {
    fn request(&self, severity: i64, kind: &str, note: String) -> Result<RaiseAllRequest, Failure> {
        Ok(RaiseAllRequest {
            dry_run: !self.force,
            userid: userid(self.user)?,
            states: states(self.states)?,
            severity,
            kind: kind.to_owned(),
            note: Some(note),
        })
    }
}

async fn send(
    context: &Context,
    verb: &str,
    request: &RaiseAllRequest,
) -> Result<job_manager::CountErrors, Failure> {
    let flux = context.connect().await?;
    flux.rpc::<job_manager::RaiseAll>(Nodeid::ANY, request).await.map_err(|e| Failure::of(verb, e))
}

pub(super) fn userid(user: Option<&str>) -> Result<u32, Failure> {
    match user {
        None => Ok(nix::unistd::getuid().as_raw()),
        Some(user) => {
            joblist::user(user).ok_or_else(|| Failure::new(format_args!("unknown user {user}")))
        }
    }
}

fn states(names: &[String]) -> Result<u32, Failure> {
    if names.is_empty() {
        return Ok(joblist::ACTIVE);
    }
    let states = state_mask(names)?;
    if states & joblist::INACTIVE != 0 {
        return Err(Failure::new("Exceptions cannot be raised on inactive jobs"));
    }
    Ok(states)
}

pub(super) fn state_mask(names: &[String]) -> Result<u32, Failure> {
    let mut states = 0;
    for name in names.iter().filter(|name| !name.is_empty()) {
        states |= joblist::state_mask(name).ok_or_else(|| {
            Failure::new(format_args!("error parsing --states: {name} is unknown"))
        })?;
    }
    match states {
        0 => Err(Failure::new("no states specified")),
        states => Ok(states),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(words: &[&str], message: Option<&str>) -> Target {
        Target {
            message: message.map(str::to_owned),
            words: words.iter().map(|&word| word.to_owned()).collect(),
            note: Vec::new(),
        }
    }

    #[test]
    fn a_message_follows_the_ids() {
        let target = target(&["1", "f2t6V2H", "why", "not"], None);
        let (ids, note) = target.parse().unwrap();
        assert_eq!(ids, [("1", JobId(1)), ("f2t6V2H", JobId(1_234_567_890))]);
        assert_eq!(note.as_deref(), Some("why not"));
    }

    #[test]
    fn there_is_one_message_and_at_least_one_id() {
        assert_eq!(target(&["1"], Some("m")).parse().unwrap().1.as_deref(), Some("m"));
        assert!(target(&["1", "x"], Some("m")).parse().is_err());
        assert!(target(&["nope!"], None).parse().is_err());
    }
}
