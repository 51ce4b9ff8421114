//! `flux alloc`: an instance of its own for interactive use.

use std::io::IsTerminal as _;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{ArgAction, Args};
use flux_client::Client;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::jobspec::Jobspec;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::{job_info, job_manager, state_machine};
use serde_json::json;

use crate::attach::Attach;
use crate::cmd::uri;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::submission::nest::{Nest, Program};
use crate::submission::options::Common;
use crate::submission::{refuse, send};
use crate::{jobid, outln};

#[derive(Debug, Args)]
#[command(override_usage = "flux-alloc [OPTIONS...] [COMMAND] [ARGS...]")]
pub(crate) struct Alloc {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    nest: Nest,
    /// Increase verbosity on stderr (multiple use OK)
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Wait for new instance to start, but do not attach to it.
    #[arg(long)]
    bg: bool,
    /// Set the initial COMMAND of new Flux instance. (default is an interactive shell)
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `--` before the command is the broker's to see as well: what follows is no option of its own.
fn with_separator(command: &[String], arguments: Vec<String>) -> Vec<String> {
    let before = arguments.len().checked_sub(command.len() + 1);
    let before = before.and_then(|place| arguments.get(place)).filter(|_| !command.is_empty());
    let separator = before.filter(|word| *word == "--").cloned();
    separator.into_iter().chain(command.iter().cloned()).collect()
}

impl Alloc {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let jobspec = self.jobspec(&context)?;
        if self.common.dry_run {
            send::print(&jobspec)?;
            return Ok(0);
        }
        let request = send::request(&self.common, &jobspec)?;
        let flux = context.connect().await?;
        let id = send::send(&flux, &request).await?;
        if self.bg {
            return self.background(&context, &flux, id).await;
        }
        if self.verbose > 0 {
            eprintln!("jobid: {}", jobid::f58(id));
        }
        Attach::default().run(&flux, id, &jobid::f58(id)).await
    }

    fn jobspec(&self, context: &Context) -> Result<Jobspec, Failure> {
        let mut program = Program {
            command: with_separator(&self.command, std::env::args().collect()),
            name: self.common.job_name.clone(),
            ..Program::default()
        };
        if self.bg && self.command.is_empty() {
            // The instance stays until it is shut down.
            program.broker_opts.push("-Sbroker.rc2_none=1".to_owned());
        }
        let mut jobspec = self.nest.jobspec(&self.common, program)?;
        let taskmap = self.nest.taskmap();
        self.common.apply(&mut jobspec, context.env.all(), taskmap.as_deref())?;
        if self.bg {
            // An interactive one would wait for somebody to attach.
            jobspec.set_shell_option("pty.capture", json!(1));
        } else if std::io::stdin().is_terminal() {
            jobspec.set_shell_option("pty.interactive", json!(1));
        }
        Ok(jobspec)
    }

    /// Wait until the instance is ready, and leave it.
    async fn background(&self, context: &Context, flux: &Client, id: JobId) -> Outcome {
        self.log(id, 0.0, "waiting for resources");
        tokio::select! {
            ready = self.ready(context, flux, id) => ready?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(refuse)?;
                eprintln!("\r{}: Interrupt: canceling job", jobid::f58(id));
                let request = job_manager::RaiseRequest {
                    id,
                    kind: "cancel".to_owned(),
                    severity: 0,
                    note: None,
                    wait_status: None,
                };
                flux.rpc::<job_manager::Raise>(Nodeid::ANY, &request).await?;
                return Err(Failure::silent(1));
            }
        }
        outln!("{}", jobid::f58(id));
        Ok(0)
    }

    async fn ready(&self, context: &Context, flux: &Client, id: JobId) -> Result<(), Failure> {
        let request = job_info::EventlogWatchRequest { id, path: "eventlog".to_owned(), flags: 0 };
        let mut events = flux.stream::<job_info::EventlogWatch>(Nodeid::ANY, &request)?;
        let mut zero = None;
        loop {
            let Some(response) = events.next().await? else {
                Attach::default().run(flux, id, &jobid::f58(id)).await?;
                return Err(refuse(format_args!("{}: unexpectedly exited", jobid::f58(id))));
            };
            let event = Event::decode(response.event.trim_end()).map_err(refuse)?;
            let zero = *zero.get_or_insert(event.timestamp);
            let since = event.timestamp - zero;
            if event.name == "alloc" {
                self.log(id, since, "resources allocated");
            }
            let context_json: serde_json::Value = event.context_as().unwrap_or_default();
            let Some(address) = context_json.get("uri").and_then(serde_json::Value::as_str) else {
                continue;
            };
            if event.name != "memo" {
                continue;
            }
            self.log(id, since, "waiting for instance");
            let address = uri::resolve(context, address, false).await.map_err(refuse)?;
            let child = context.connect_to(&address).await?;
            child
                .rpc::<state_machine::Wait>(Nodeid::ANY, &Empty)
                .await
                .map_err(|_| refuse(format_args!("{}: instance startup failed", jobid::f58(id))))?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.log(id, now.as_secs_f64() - zero, "ready");
            return Ok(());
        }
    }

    fn log(&self, id: JobId, since: f64, text: &str) {
        if self.verbose > 0 {
            eprintln!("{}: {since:6.3}s: {text}", jobid::f58(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_before_the_command_is_kept() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let kept = with_separator(&words("app --n=2"), words("flux alloc -n1 -- app --n=2"));
        assert_eq!(kept, words("-- app --n=2"));
        let plain = with_separator(&words("app"), words("flux alloc -n1 app"));
        assert_eq!(plain, words("app"));
        assert!(with_separator(&[], words("flux alloc -n1 --")).is_empty());
    }
}
