//! The urgency of a job: between 0 (held) and 31 (first of all).

use clap::Args;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_manager::{self, UrgencyRequest};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::jobid;

const HOLD: i64 = 0;
const DEFAULT: i64 = 16;
const EXPEDITE: i64 = 31;

#[derive(Debug, Args)]
#[command(override_usage = "flux-job urgency [OPTIONS] id urgency")]
pub(super) struct Urgency {
    /// Output old urgency value on success
    #[arg(short, long)]
    verbose: bool,
    #[arg(required = true)]
    id: String,
    #[arg(required = true, allow_negative_numbers = true)]
    urgency: String,
}

impl Urgency {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let id = jobid::parse(&self.id)?;
        let request = UrgencyRequest { id, urgency: parse(&self.urgency)? };
        let old = flux
            .rpc::<job_manager::Urgency>(Nodeid::ANY, &request)
            .await
            .map_err(|e| Failure::of(&self.id, e))?
            .old_urgency;
        if self.verbose {
            match i64::from(old) {
                HOLD => eprintln!("old urgency: job held"),
                EXPEDITE => eprintln!("old urgency: job expedited"),
                old => eprintln!("old urgency: {old}"),
            }
        }
        Ok(0)
    }
}

fn parse(text: &str) -> Result<i64, Failure> {
    match text.to_lowercase().as_str() {
        "hold" => Ok(HOLD),
        "default" => Ok(DEFAULT),
        "expedite" => Ok(EXPEDITE),
        // The job manager knows the range.
        number => number
            .parse()
            .map_err(|_| Failure::new(format_args!("error parsing urgency: \"{text}\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_urgencies_have_names() {
        assert_eq!(parse("HOLD").unwrap(), 0);
        assert_eq!(parse("Default").unwrap(), 16);
        assert_eq!(parse("expedite").unwrap(), 31);
        assert_eq!(parse("5").unwrap(), 5);
        assert!(parse("x").is_err() && parse("").is_err());
    }
}
