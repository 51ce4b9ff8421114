//! Between what RFC 27 sends and what the contract with plugins has.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::sched as rpc;
use serde_json::Value;

use crate::job_record;
use crate::plugin::resource_record;
use crate::plugin::types::{Job, Targets};

pub(super) fn decode_r(text: &str) -> Result<ResourceSet, Failure> {
    ResourceSet::decode(text).map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))
}

pub(super) fn targets(r: &ResourceSet) -> Vec<Targets> {
    resource_record(r).targets
}

/// The record of a job that asks for resources.
pub(super) fn record(request: &rpc::AllocRequest) -> Job {
    let mut record =
        job_record::from_jobspec(request.jobspec.get()).unwrap_or_else(job_record::blank);
    record.id = request.id.0;
    record.userid = request.userid;
    record.priority = Some(u32::try_from(request.priority).unwrap_or(0));
    record.t_submit = request.t_submit;
    record
}

/// `spec={nodes,slots,cores per slot} duration=SECONDS`
pub(super) fn spec_text(job: &Job) -> String {
    let Some(request) = &job.request else { return "spec={} (not V1)".to_owned() };
    let nodes = request.nodes.as_ref().map_or(0, |nodes| nodes.min);
    format!(
        "spec={{{nodes},{},{}}} duration={:.1}",
        request.slots.min, request.cores_per_slot, job.duration
    )
}

pub(super) fn status_response(
    all: &ResourceSet,
    allocated: &ResourceSet,
    down: &ResourceSet,
) -> Result<rpc::ResourceStatusResponse, Failure> {
    let value = |r: &ResourceSet| {
        let invalid = |text: String| Failure::new(Errno::EINVAL, text);
        if r.is_empty() {
            return Ok(Value::Null);
        }
        let text = r.encode().map_err(|error| invalid(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))
    };
    Ok(rpc::ResourceStatusResponse {
        all: value(all)?,
        allocated: value(allocated)?,
        down: value(down)?,
    })
}
