//! A jobspec from a file: submit.

use std::io::Read;

use clap::Args;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_ingest::{self, SubmitRequest, flags};

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::{jobid, outln};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job submit [OPTIONS] [jobspec]")]
pub(super) struct Submit {
    /// Set job urgency (0-31), hold=0, default=16, expedite=31
    #[arg(short, long, value_name = "N", default_value_t = 16, allow_negative_numbers = true)]
    urgency: i64,
    /// Set submit comma-separated flags (e.g. debug, waitable)
    #[arg(short, long, value_name = "FLAGS", value_delimiter = ',')]
    flags: Vec<String>,
    #[arg(default_value = "-")]
    jobspec: String,
}

impl Submit {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let mut bits = 0;
        for name in &self.flags {
            bits |= match name.as_str() {
                "debug" => flags::DEBUG,
                "waitable" => flags::WAITABLE,
                "signed" => flags::SIGNED,
                "novalidate" => flags::NOVALIDATE,
                _ => return Err(Failure::new(format_args!("unknown flag: {name}"))),
            };
        }
        let flux = context.connect().await?;
        let jobspec = self.read()?;
        if jobspec.is_empty() {
            return Err(Failure::new("required jobspec is empty"));
        }
        let j = if bits & flags::SIGNED != 0 {
            String::from_utf8_lossy(&jobspec).trim().to_owned()
        } else {
            crate::signing::sign(&flux, &jobspec).await.map_err(Failure::new)?
        };
        let request = SubmitRequest { j, urgency: self.urgency, flags: i64::from(bits) };
        let response = flux.rpc::<job_ingest::Submit>(Nodeid::ANY, &request).await?;
        outln!("{}", jobid::f58(response.id));
        Ok(0)
    }

    fn read(&self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let result = match self.jobspec.as_str() {
            "-" => std::io::stdin().read_to_end(&mut bytes).map(|_| bytes),
            path => std::fs::read(path),
        };
        result.map_err(|e| Failure::of(&self.jobspec, strerror(&e)))
    }
}
