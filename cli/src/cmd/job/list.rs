//! Jobs as `job-list` has them, a JSON object per line: list, list-inactive, list-ids.

use std::io::IsTerminal;

use clap::Args;
use flux_client::Client;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_list::{self, ListIdRequest, ListRequest};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::control::{state_mask, userid};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::json_text::spaced;
use crate::{jobid, joblist, outln};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job list [OPTIONS]")]
pub(super) struct List {
    /// Limit output to N jobs
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    count: i64,
    /// List jobs in specific states
    #[arg(short, long, value_name = "STATES", value_delimiter = ',')]
    states: Vec<String>,
    /// Limit output to specific user. Specify "all" for all users.
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// List my jobs, regardless of state
    #[arg(short = 'a', long)]
    all_user: bool,
    /// List jobs for all users, regardless of state
    #[arg(short = 'A', long)]
    all: bool,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job list-inactive [OPTIONS]")]
pub(super) struct ListInactive {
    /// Limit output to N jobs
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    count: i64,
    /// Limit output to jobs that entered the inactive state since timestamp T
    #[arg(short, long, value_name = "T", default_value_t = 0.0)]
    since: f64,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job list-ids [OPTIONS] ID [ID ...]")]
pub(super) struct ListIds {
    /// Return only after jobid has reached specified state
    #[arg(short = 'W', long, value_name = "STATE", default_value = "depend")]
    wait_state: String,
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl List {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        not_for_people()?;
        let states = if self.all_user || self.all {
            joblist::ACTIVE | joblist::INACTIVE
        } else if self.states.is_empty() {
            joblist::ACTIVE
        } else {
            state_mask(&self.states)?
        };
        let userid = if self.all { u32::MAX } else { userid(self.user.as_deref())? };
        let constraint = json!({ "and": [{ "userid": [userid] }, { "states": [states] }] });
        let flux = context.connect().await?;
        print(&flux, self.count, 0.0, constraint).await
    }
}

impl ListInactive {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        not_for_people()?;
        let constraint = json!({ "states": [joblist::INACTIVE] });
        let flux = context.connect().await?;
        print(&flux, self.count, self.since, constraint).await
    }
}

async fn print(flux: &Client, max_entries: i64, since: f64, constraint: Value) -> Outcome {
    let failed = |e| Failure::of("flux job-list.list", e);
    let attrs = vec!["all".to_owned()];
    let request =
        ListRequest { max_entries, attrs, since, constraint: Some(constraint), legacy: None };
    let mut stream = flux.stream::<job_list::List>(Nodeid::ANY, &request)?;
    while let Some(response) = stream.next().await.map_err(failed)? {
        for job in &response.jobs {
            print_job(job)?;
        }
    }
    Ok(0)
}

impl ListIds {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        not_for_people()?;
        let state = joblist::state_mask(&self.wait_state)
            .filter(|mask| mask.is_power_of_two())
            .ok_or_else(|| Failure::new("invalid job state specified"))?;
        let flux = context.connect().await?;
        let mut pending = Vec::new();
        for text in &self.ids {
            let request = ListIdRequest {
                id: jobid::parse(text)?,
                attrs: vec!["all".to_owned()],
                state: Some(state),
            };
            pending.push(flux.start::<job_list::ListId>(Nodeid::ANY, &request)?);
        }
        for pending in pending {
            let response = pending.await.map_err(|e| Failure::of("flux job-list.list-id", e))?;
            print_job(&Value::Object(response.job))?;
        }
        Ok(0)
    }
}

fn print_job(job: &Value) -> Result<(), Failure> {
    let raw = RawValue::from_string(job.to_string()).map_err(Failure::new)?;
    outln!("{}", spaced(&raw));
    Ok(())
}

fn not_for_people() -> Result<(), Failure> {
    if std::io::stdout().is_terminal() {
        eprintln!("This is not the command you are looking for. Try flux-jobs(1).");
        return Err(Failure::silent(1));
    }
    Ok(())
}
