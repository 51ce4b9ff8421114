//! A jobspec from a file: submit.

use std::io::Read;

use clap::Args;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_ingest::{self, SubmitRequest, flags};

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::{errln, jobid, outln};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job submit [OPTIONS] [jobspec]")]
pub(super) struct Submit {
    /// Set job urgency (0-31), hold=0, default=16, expedite=31
    #[arg(short, long, value_name = "N", default_value_t = 16, allow_negative_numbers = true)]
    urgency: i64,
    /// Set submit comma-separated flags (e.g. debug, waitable)
    #[arg(short, long, value_name = "FLAGS", value_delimiter = ',')]
    flags: Vec<String>,
    /// Use non-default mechanism type to sign J
    #[arg(short, long, value_name = "TYPE")]
    sign_type: Option<String>,
    #[arg(default_value = "-")]
    jobspec: String,
}

impl Submit {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let (bits, presigned) = self.flags()?;
        if presigned && self.sign_type.is_some() {
            errln!("flux-job: Ignoring security config with --flags=pre-signed");
        }
        let flux = context.connect().await?;
        let jobspec = self.read()?;
        if jobspec.is_empty() {
            return Err(Failure::new("required jobspec is empty"));
        }
        let j = match &self.sign_type {
            _ if presigned => Ok(String::from_utf8_lossy(&jobspec).trim().to_owned()),
            Some(mechanism) => crate::signing::sign_with(mechanism, &jobspec),
            None => crate::signing::sign(&flux, &jobspec).await,
        };
        let j = j.map_err(Failure::new)?;
        let request = SubmitRequest { j, urgency: self.urgency, flags: i64::from(bits) };
        let response = flux.rpc::<job_ingest::Submit>(Nodeid::ANY, &request).await?;
        outln!("{}", jobid::f58(response.id));
        Ok(0)
    }

    /// What the broker is told, and whether the request is signed already, which it is not told.
    fn flags(&self) -> Result<(u32, bool), Failure> {
        let (mut bits, mut presigned) = (0, false);
        for name in &self.flags {
            match name.as_str() {
                "debug" => bits |= flags::DEBUG,
                "waitable" => bits |= flags::WAITABLE,
                "signed" => presigned = true,
                "novalidate" => bits |= flags::NOVALIDATE,
                _ => return Err(Failure::new(format_args!("unknown flag: {name}"))),
            }
        }
        Ok((bits, presigned))
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
