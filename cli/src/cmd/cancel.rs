//! `flux cancel`: cancel jobs by id, or all that match.

use clap::Args;
use flux_client::Client;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_manager::{self, RaiseAllRequest, RaiseRequest};

use super::jobs::bad_id;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{jobid, joblist};

#[derive(Debug, Args)]
#[command(override_usage = "flux cancel [OPTIONS] [JOBID...]")]
pub(crate) struct Cancel {
    /// Target all jobs
    #[arg(long)]
    all: bool,
    /// Do not cancel any jobs
    #[arg(short = 'n', long, alias = "dry")]
    dry_run: bool,
    /// Suppress output when no jobs match
    #[arg(short, long)]
    quiet: bool,
    /// Set target user or 'all' (instance owner only)
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// List of job states to target (default=active)
    #[arg(short = 'S', long, alias = "state", value_name = "STATES", value_delimiter = ',')]
    states: Vec<String>,
    /// Set optional cancel exception note
    #[arg(short, long, value_name = "NOTE")]
    message: Option<String>,
    /// jobids to cancel
    #[arg(value_name = "JOBID...")]
    jobids: Vec<String>,
}

impl Cancel {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let all = self.all || self.user.is_some() || !self.states.is_empty();
        let mut ids = Vec::new();
        for text in &self.jobids {
            ids.push(JobId::parse(text).map_err(|_| bad_id("flux-cancel", text))?);
        }
        match (all, ids.is_empty()) {
            (true, false) => Err(Failure::new(
                "ERROR: Do not specify a list of jobids with --all,--user,--states options",
            )),
            (true, true) => self.cancel_all(&context).await,
            (false, true) => Err(Failure::new("ERROR: No target jobs were provided")),
            (false, false) if self.dry_run => {
                eprintln!("flux-cancel: Would cancel {}", count(ids.len() as u64, "job"));
                Ok(0)
            }
            (false, false) => {
                let flux = context.connect().await?;
                let errors = cancel(&flux, &ids, self.message.as_deref()).await?;
                for (id, reason) in &errors {
                    eprintln!("flux-cancel: ERROR: {}: {reason}", jobid::f58(*id));
                }
                Ok(u8::from(!errors.is_empty()))
            }
        }
    }

    async fn cancel_all(&self, context: &Context) -> Outcome {
        let userid = joblist::user_or_own(self.user.as_deref())?;
        let mut states = 0;
        for name in &self.states {
            let mask = joblist::state_mask(name).filter(|mask| mask & joblist::INACTIVE == 0);
            states |= mask.ok_or_else(|| {
                Failure::new(format_args!("ERROR: Invalid state {name} specified"))
            })?;
        }
        let request = RaiseAllRequest {
            dry_run: self.dry_run,
            userid,
            states: if states == 0 { joblist::ACTIVE } else { states },
            severity: 0,
            kind: "cancel".to_owned(),
            note: self.message.clone(),
        };
        let flux = context.connect().await?;
        let matched = flux
            .rpc::<job_manager::RaiseAll>(Nodeid::ANY, &request)
            .await
            .map_err(|e| Failure::new(format_args!("ERROR: {e}")))?;
        if matched.count == 0 {
            if !self.quiet {
                eprintln!("flux-cancel: Matched 0 jobs");
            }
        } else if self.dry_run {
            eprintln!("flux-cancel: Would cancel {}", count(matched.count, "job"));
        } else {
            eprintln!(
                "flux-cancel: Canceled {} ({})",
                count(matched.count, "job"),
                count(matched.errors, "error")
            );
        }
        Ok(0)
    }
}

/// Cancel jobs; returns those for which it failed.
pub(super) async fn cancel(
    flux: &Client,
    ids: &[JobId],
    note: Option<&str>,
) -> Result<Vec<(JobId, flux_client::RpcError)>, Failure> {
    let mut pending = Vec::new();
    for &id in ids {
        let request = RaiseRequest {
            id,
            severity: 0,
            kind: "cancel".to_owned(),
            note: note.map(str::to_owned),
            wait_status: None,
        };
        pending.push((id, flux.start::<job_manager::Raise>(Nodeid::ANY, &request)?));
    }
    let mut errors = Vec::new();
    for (id, pending) in pending {
        if let Err(e) = pending.await {
            errors.push((id, e));
        }
    }
    Ok(errors)
}

/// `1 job`, `2 jobs`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
