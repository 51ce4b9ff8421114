//! What a parallel debugger wants of a job: the table of its processes, and that it has any.

use flux_client::{Client, Request};
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{decode_json, encode_json};
use flux_protocol::proctable::{Packed, Row};
use flux_protocol::rpc::job_list::{self, ListIdRequest};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::joblist::State;

/// The processes of all tasks, from the shell that leads the others.
pub(crate) async fn processes(
    flux: &Client,
    service: &str,
    leader: Nodeid,
) -> Result<Vec<Row>, Failure> {
    let topic = format!("{service}.proctable");
    let request = Request::new(topic.as_str())
        .to(leader)
        .payload(encode_json(&json!({})).map_err(|e| Failure::of(&topic, e))?);
    let response = flux.rpc_raw(request).await.map_err(|e| Failure::of(&topic, e))?;
    let packed: Packed =
        decode_json(response.payload.as_ref()).map_err(|e| Failure::of(&topic, e))?;
    packed.unpack().ok_or_else(|| Failure::of(topic, "not a table of processes"))
}

/// Refuse a job that has no processes any more.
pub(super) async fn check(flux: &Client, id: JobId, shown: &str) -> Result<(), Failure> {
    const ATTRS: [&str; 4] = ["state", "exception_severity", "exception_type", "exception_note"];
    let attrs = ATTRS.iter().map(|attr| (*attr).to_owned()).collect();
    let request = ListIdRequest { id, attrs, state: None };
    let job = flux
        .rpc::<job_list::ListId>(Nodeid::ANY, &request)
        .await
        .map_err(|e| Failure::of(format_args!("Invalid job id ({shown}) for debugging"), e))?
        .job;
    let state = job.get("state").and_then(Value::as_u64).and_then(State::from_bit);
    if !matches!(state, None | Some(State::Cleanup | State::Inactive)) {
        return Ok(());
    }
    if job.get("exception_severity").and_then(Value::as_i64) == Some(0) {
        let text = |key: &str| job.get(key).and_then(Value::as_str).unwrap_or_default();
        let (kind, note) = (text("exception_type"), text("exception_note"));
        crate::errln!("flux-job: job.exception {shown} type={kind} severity=0 {note}");
    }
    Err(Failure::new("cannot debug job that has finished running"))
}
