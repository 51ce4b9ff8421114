//! `flux plugin record`: jobs as `flux plugin test` replays them, a line each.

use clap::Args;
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Object;
use flux_protocol::rpc::job_info::{Lookup, LookupRequest};
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::outln;

#[derive(Debug, Args)]
pub(super) struct Record {
    /// Ids of jobs
    #[arg(required = true, value_name = "JOBID")]
    jobs: Vec<String>,
}

impl Record {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        for text in self.jobs {
            let id = text.parse::<JobId>().map_err(|_| Failure::of(&text, "not a job id"))?;
            let job = lookup(&flux, id).await.map_err(|error| Failure::of(&text, error))?;
            outln!("{}", Value::Object(job));
        }
        Ok(0)
    }
}

/// A job that was not given resources has no R.
async fn lookup(flux: &Client, id: JobId) -> Result<Object, flux_client::RpcError> {
    let keys = |keys: &[&str]| LookupRequest {
        id,
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        flags: 0,
    };
    let all = flux.rpc::<Lookup>(Nodeid::ANY, &keys(&["eventlog", "jobspec", "R"])).await;
    match all {
        Err(error) if error.errno() == Errno::ENOENT => {
            flux.rpc::<Lookup>(Nodeid::ANY, &keys(&["eventlog", "jobspec"])).await
        }
        all => all,
    }
}
