//! Signals to jobs: kill, killall.

use clap::Args;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_manager::{self, KillAllRequest, KillRequest};

use super::control::userid;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::signal;

#[derive(Debug, Args)]
#[command(override_usage = "flux-job kill [OPTIONS] ids...")]
pub(super) struct Kill {
    /// Send signal SIG (default SIGTERM)
    #[arg(short, long, value_name = "SIG", default_value = "SIGTERM")]
    signal: String,
    #[arg(required = true, value_name = "ids")]
    ids: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job killall [OPTIONS]")]
pub(super) struct KillAll {
    /// Send signal SIG (default SIGTERM)
    #[arg(short, long, value_name = "SIG", default_value = "SIGTERM")]
    signal: String,
    /// Set target user or 'all' (instance owner only)
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Confirm the command
    #[arg(short, long)]
    force: bool,
}

impl Kill {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let mut ids = Vec::new();
        for text in &self.ids {
            let id = JobId::parse(text)
                .map_err(|_| Failure::new(format_args!("invalid jobid: {text}")))?;
            ids.push((text, id));
        }
        let signum = signum("kill", &self.signal)?;
        let flux = context.connect().await?;
        let mut pending = Vec::new();
        for (text, id) in ids {
            let request = KillRequest { id, signum };
            pending.push((text, flux.start::<job_manager::Kill>(Nodeid::ANY, &request)?));
        }
        let mut code = 0;
        for (text, pending) in pending {
            if let Err(e) = pending.await {
                eprintln!("flux-job: kill {text}: {e}");
                code = 1;
            }
        }
        Ok(code)
    }
}

impl KillAll {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let signum = signum("killall", &self.signal)?;
        let request =
            KillAllRequest { dry_run: !self.force, userid: userid(self.user.as_deref())?, signum };
        let flux = context.connect().await?;
        let matched = flux
            .rpc::<job_manager::KillAll>(Nodeid::ANY, &request)
            .await
            .map_err(|e| Failure::of("killall", e))?;
        match (matched.count, self.force) {
            (0, _) => eprintln!("flux-job: Command matched 0 jobs"),
            (count, false) => eprintln!("flux-job: Command matched {count} jobs (-f to confirm)"),
            (count, true) => {
                let what = signal::describe(i32::try_from(signum).unwrap_or_default());
                eprintln!("flux-job: {what} {count} jobs ({} errors)", matched.errors);
            }
        }
        Ok(0)
    }
}

/// A signal by name, with or without `SIG`, or by number.
fn signum(verb: &str, text: &str) -> Result<i64, Failure> {
    let upper = text.to_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let named = name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i64);
    let number = text.parse().ok().filter(|number| *number > 0);
    number.or(named).ok_or_else(|| Failure::new(format_args!("{verb}: Invalid signal {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["SIGTERM", "TERM", "term", "15"] {
            assert_eq!(signum("kill", text).unwrap(), 15);
        }
        assert!(signum("kill", "SIGNOPE").is_err() && signum("kill", "-1").is_err());
    }
}
