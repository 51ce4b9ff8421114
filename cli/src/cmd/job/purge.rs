//! Forget inactive jobs: purge.

use clap::Args;
use flux_client::{Client, Request};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::decode_json;
use flux_protocol::rpc::job_manager::{self, PurgeIdRequest, PurgeRequest};
use serde::Deserialize;
use serde_json::json;

use crate::args;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{jobid, outln};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job purge [--age-limit=FSD] [--num-limit=N] [--batch=COUNT] \
                            [--force] [ID ...]")]
pub(super) struct Purge {
    /// Purge jobs that became inactive beyond age-limit.
    #[arg(long, value_name = "FSD", value_parser = args::duration)]
    age_limit: Option<std::time::Duration>,
    /// Purge oldest inactive jobs until COUNT are left.
    #[arg(long, value_name = "COUNT", default_value_t = -1, allow_negative_numbers = true)]
    num_limit: i64,
    /// Perform the irreversible purge.
    #[arg(short, long)]
    force: bool,
    /// Limit number of jobs per request (default 50).
    #[arg(long, value_name = "COUNT", default_value_t = 50, allow_negative_numbers = true)]
    batch: i64,
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

#[derive(Deserialize)]
struct ManagerStats {
    inactive_jobs: u64,
}

impl Purge {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let total =
            if self.ids.is_empty() { self.oldest(&flux).await? } else { self.some(&flux).await? };
        let stats = Request::new("job-manager.stats-get").to(Nodeid(0));
        let failed = || Failure::new("purge: failed to fetch inactive job count");
        let stats = flux.rpc_raw(stats).await.map_err(|_| failed())?;
        let stats: ManagerStats = decode_json(stats.payload.as_ref()).map_err(|_| failed())?;
        let left = stats.inactive_jobs;
        if self.force {
            outln!("purged {total} inactive jobs, {left} remaining");
        } else {
            outln!("use --force to purge {total} of {left} inactive jobs");
        }
        Ok(0)
    }

    async fn oldest(&self, flux: &Client) -> Result<u64, Failure> {
        let request = PurgeRequest {
            age_limit: self.age_limit.map_or(-1.0, |limit| limit.as_secs_f64()),
            num_limit: self.num_limit,
            batch: self.batch,
            force: self.force,
        };
        let mut total = 0;
        loop {
            let count = flux
                .rpc::<job_manager::Purge>(Nodeid(0), &request)
                .await
                .map_err(|e| Failure::of("purge", e))?
                .count;
            total += count;
            if !self.force || i64::try_from(count) != Ok(self.batch) {
                return Ok(total);
            }
        }
    }

    async fn some(&self, flux: &Client) -> Result<u64, Failure> {
        let mut total = 0;
        for text in &self.ids {
            let force = json!(i32::from(self.force));
            let request = PurgeIdRequest { id: jobid::parse(text)?, force };
            let response = flux.rpc::<job_manager::PurgeId>(Nodeid(0), &request).await;
            total += response.map_err(|e| Failure::of("purge", e))?.count;
        }
        Ok(total)
    }
}
