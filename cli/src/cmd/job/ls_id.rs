//! Job ids and names made of them: id, namespace, last.

use std::io::BufRead;

use clap::Args;
use flux_protocol::fluid::{Encoding, JobId};
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_manager::{self, HistoryRequest};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{jobid, outln};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job id [OPTIONS] [id ...]")]
pub(super) struct Id {
    /// Convert jobid to specified form
    #[arg(short, long, value_name = "dec|kvs|hex|dothex|words|f58", default_value = "dec")]
    to: String,
    ids: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job namespace [id ...]")]
pub(super) struct Namespace {
    ids: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job last SLICE")]
pub(super) struct Last {
    /// A number of jobs, or a Python slice such as [::-1]
    #[arg(value_name = "SLICE")]
    slice: Option<String>,
}

impl Id {
    pub(super) fn run(&self) -> Outcome {
        let mut encoding: Encoding =
            self.to.parse().map_err(|_| Failure::new(format_args!("Unknown to={}", self.to)))?;
        if encoding == Encoding::F58 {
            encoding = jobid::f58_encoding();
        }
        let mut any = false;
        for text in words(&self.ids) {
            let text = text?;
            let id = JobId::parse(&text)
                .map_err(|_| Failure::new(format_args!("{text}: malformed input")))?;
            outln!("{}", id.encode(encoding));
            any = true;
        }
        // Without any id there is no success.
        Ok(u8::from(!any))
    }
}

impl Namespace {
    pub(super) fn run(&self) -> Outcome {
        for text in words(&self.ids) {
            let id = jobid::parse(&text?)?;
            outln!("job-{}", id.0);
        }
        Ok(0)
    }
}

impl Last {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let slice = match self.slice.as_deref() {
            None => "[:1]".to_owned(),
            Some(slice) if slice.contains('[') => slice.to_owned(),
            Some(number) => {
                let number: i64 = number.parse().map_err(|_| {
                    eprintln!("Usage: flux-job last SLICE");
                    Failure::silent(1)
                })?;
                format!("[:{number}]")
            }
        };
        let flux = context.connect().await?;
        let request = HistoryRequest { slice };
        let jobs = flux.rpc::<job_manager::History>(Nodeid::ANY, &request).await?.jobs;
        if jobs.is_empty() {
            return Err(Failure::new("job history is empty"));
        }
        for id in jobs {
            outln!("{}", jobid::f58(id));
        }
        Ok(0)
    }
}

/// Arguments, or lines of standard input where there are none.
fn words(args: &[String]) -> Box<dyn Iterator<Item = Result<String, Failure>> + '_> {
    if !args.is_empty() {
        return Box::new(args.iter().cloned().map(Ok));
    }
    let lines = std::io::stdin().lock().lines();
    Box::new(lines.map(|line| match line {
        Ok(line) => Ok(line.trim().to_owned()),
        Err(e) => Err(Failure::new(crate::failure::strerror(&e))),
    }))
}
