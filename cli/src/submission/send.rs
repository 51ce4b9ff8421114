//! A jobspec on its way to the instance.

use flux_client::{Client, RpcError};
use flux_protocol::fluid::JobId;
use flux_protocol::jobspec::Jobspec;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_ingest::{self, SubmitRequest, flags};
use serde_json::value::RawValue;

use super::options::Common;
use super::refuse;
use crate::failure::Failure;
use crate::{json_text, outln, signing};

/// Urgency of a job that says nothing of it, and of one that is to run ahead of all others.
const DEFAULT: i64 = 16;
const EXPEDITE: i64 = 31;

/// A request that nobody has signed yet.
#[derive(Debug)]
pub(crate) struct Unsigned {
    jobspec: String,
    urgency: i64,
    flags: i64,
    /// Refusals are told as `flux mini` told them, with their number.
    numbers_errors: bool,
}

pub(crate) fn request(common: &Common, jobspec: &Jobspec) -> Result<Unsigned, Failure> {
    Ok(Unsigned {
        jobspec: jobspec.encode().map_err(refuse)?,
        urgency: urgency(common.urgency.as_deref().unwrap_or("default"))?,
        flags: i64::from(submit_flags(&common.flags)?),
        numbers_errors: common.as_mini,
    })
}

impl Unsigned {
    pub(crate) async fn sign(&self, flux: &Client) -> Result<SubmitRequest, Failure> {
        let j = signing::sign(flux, self.jobspec.as_bytes()).await.map_err(refuse)?;
        Ok(SubmitRequest { j, urgency: self.urgency, flags: self.flags })
    }
}

/// Sign and submit one job, and wait for its id.
pub(crate) async fn send(flux: &Client, request: &Unsigned) -> Result<JobId, Failure> {
    let signed = request.sign(flux).await?;
    match flux.rpc::<job_ingest::Submit>(Nodeid::ANY, &signed).await {
        Ok(response) => Ok(response.id),
        Err(error) if request.numbers_errors => Err(refuse(with_errno(&error))),
        Err(error) => Err(refuse(error)),
    }
}

/// As Python shows an `OSError`.
pub(crate) fn with_errno(error: &RpcError) -> String {
    format!("[Errno {}] {error}", error.errno().0)
}

/// `--dry-run`
pub(crate) fn print(jobspec: &Jobspec) -> Result<(), Failure> {
    let text = jobspec.encode().map_err(refuse)?;
    let raw = RawValue::from_string(text).map_err(refuse)?;
    outln!("{}", json_text::spaced(&raw));
    Ok(())
}

fn urgency(text: &str) -> Result<i64, Failure> {
    match text {
        "default" => Ok(DEFAULT),
        "hold" => Ok(0),
        "expedite" => Ok(EXPEDITE),
        text => text
            .trim()
            .parse()
            .map_err(|_| refuse(format_args!("invalid literal for int() with base 10: '{text}'"))),
    }
}

fn submit_flags(lists: &[String]) -> Result<u32, Failure> {
    let mut bits = 0;
    for flag in lists.iter().flat_map(|list| list.split(',')) {
        bits |= match flag {
            "debug" => flags::DEBUG,
            "waitable" => flags::WAITABLE,
            "novalidate" => flags::NOVALIDATE,
            flag => return Err(refuse(format_args!("--flags: Unknown flag {flag}"))),
        };
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgencies_have_names() {
        assert_eq!(urgency("hold").unwrap(), 0);
        assert_eq!(urgency("7").unwrap(), 7);
        assert!(urgency("x").is_err());
    }

    #[test]
    fn flags_may_be_in_one_list_or_several() {
        let bits = |lists: &[&str]| {
            submit_flags(&lists.iter().map(|list| (*list).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(bits(&["debug,waitable", "novalidate"]).unwrap(), 14);
        assert!(bits(&["bogus"]).is_err());
    }
}
