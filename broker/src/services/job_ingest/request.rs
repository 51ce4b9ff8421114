//! A submission: what is checked before any plugin sees it.

use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::job_ingest::{SubmitRequest, flags};
use serde_json::Value;

/// Urgencies above this are for the owner.
const GUEST_URGENCY: u32 = 16;
const MAX_URGENCY: i64 = 31;

/// A request that is well formed and from whom it says.
#[derive(Debug)]
pub(super) struct Request {
    /// As it was signed.
    pub(super) j: String,
    pub(super) userid: u32,
    pub(super) urgency: u32,
    pub(super) flags: u32,
    /// As the submitter wrote it, then as the frobnicators left it.
    pub(super) jobspec: Value,
    /// Did a frobnicator change the jobspec?
    pub(super) changed: bool,
}

/// Check urgency and flags, verify the signature, and parse the jobspec.
pub(super) fn unwrap(request: &SubmitRequest, cred: Credential) -> Result<Request, Failure> {
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let flags = check_flags(request.flags, cred)?;
    let urgency = u32::try_from(request.urgency).ok().filter(|_| request.urgency <= MAX_URGENCY);
    let urgency = urgency.ok_or_else(|| invalid("urgency range is [0:31]".to_owned()))?;
    if !cred.is_owner() && urgency > GUEST_URGENCY {
        let text = format!("only the instance owner can submit with urgency >{GUEST_URGENCY}");
        return Err(invalid(text));
    }
    let envelope =
        flux_sign::unwrap_none(&request.j).map_err(|error| invalid(error.to_string()))?;
    let signer = envelope.header.userid;
    let presigned = flags & flags::SIGNED != 0;
    if signer != i64::from(cred.userid.0) && !presigned {
        let text = format!("signer={signer} != requestor={}", cred.userid);
        return Err(Failure::new(Errno::EPERM, text));
    }
    let userid = u32::try_from(signer).map_err(|_| invalid(format!("userid {signer}")))?;
    let jobspec = serde_json::from_slice(&envelope.payload)
        .map_err(|error| invalid(not_json(&envelope.payload, &error)))?;
    let flags = flags & !flags::SIGNED;
    Ok(Request { j: request.j.clone(), userid, urgency, flags, jobspec, changed: false })
}

/// Where not even an object begins, in the words of the real service.
fn not_json(payload: &[u8], error: &serde_json::Error) -> String {
    let text = String::from_utf8_lossy(payload);
    let word: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric()).collect();
    match word.is_empty() {
        true => format!("jobspec: invalid JSON: {error}"),
        false => format!("jobspec: invalid JSON: '[' or '{{' expected near '{word}'"),
    }
}

fn check_flags(requested: i64, cred: Credential) -> Result<u32, Failure> {
    let bad = || Failure::new(Errno::EPROTO, "invalid job flags");
    let requested = u32::try_from(requested).map_err(|_| bad())?;
    if requested & !flags::ALL != 0 {
        return Err(bad());
    }
    let for_owner = [
        (flags::SIGNED, "only the instance owner can submit pre-signed jobs"),
        (flags::WAITABLE, "only the instance owner can submit with FLUX_JOB_WAITABLE"),
        (flags::NOVALIDATE, "only the instance owner can submit with FLUX_JOB_NOVALIDATE"),
    ];
    for (flag, text) in for_owner {
        if requested & flag != 0 && !cred.is_owner() {
            return Err(Failure::new(Errno::EINVAL, text));
        }
    }
    Ok(requested)
}
