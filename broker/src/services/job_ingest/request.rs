//! A submission: what is checked before any plugin sees it.

use flux_protocol::credential::Credential;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::job_ingest::{SubmitRequest, flags};
use flux_protocol::rpc::job_manager::Signed;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::spans::{Began, Span};

/// Urgencies above this are for the owner.
const GUEST_URGENCY: u32 = 16;
const MAX_URGENCY: i64 = 31;

/// A request that is well formed and from whom it says.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: JobId,
    /// As it was signed.
    pub(super) j: String,
    /// Nothing where the sender is believed without a signature.
    pub(super) signed: Option<Signed>,
    pub(super) userid: u32,
    pub(super) urgency: u32,
    pub(super) flags: u32,
    /// As the submitter wrote it, then as the frobnicators left it.
    pub(super) jobspec: Value,
    /// Did a frobnicator change the jobspec?
    pub(super) changed: bool,
    pub(super) began: Began,
    /// What the plugins took.
    pub(super) judged: Vec<Span>,
}

/// A submission whose urgency and flags its sender may use.
#[derive(Debug)]
pub(super) struct Checked {
    id: JobId,
    cred: Credential,
    urgency: u32,
    flags: u32,
    began: Began,
}

pub(super) fn check(
    request: &SubmitRequest,
    id: JobId,
    cred: Credential,
) -> Result<Checked, Failure> {
    let flags = check_flags(request.flags, cred)?;
    let urgency = u32::try_from(request.urgency).ok().filter(|_| request.urgency <= MAX_URGENCY);
    let urgency = urgency.ok_or_else(|| invalid("urgency range is [0:31]".to_owned()))?;
    if !cred.is_owner() && urgency > GUEST_URGENCY {
        let text = format!("only the instance owner can submit with urgency >{GUEST_URGENCY}");
        return Err(invalid(text));
    }
    Ok(Checked { id, cred, urgency, flags, began: Began::now() })
}

impl Checked {
    pub(super) fn cred(&self) -> Credential {
        self.cred
    }

    /// A request must be its sender's own.
    pub(super) fn check_signer(&self, signer: i64) -> Result<(), Failure> {
        if signer != i64::from(self.cred.userid.0) {
            let text = format!("signer={signer} != requestor={}", self.cred.userid);
            return Err(Failure::new(Errno::EPERM, text));
        }
        Ok(())
    }

    /// Hold the signer against the sender, and parse what was signed.
    pub(super) fn admit(self, j: String, signed: flux_sign::Request) -> Result<Request, Failure> {
        self.check_signer(i64::from(signed.userid))?;
        let jobspec = serde_json::from_slice(&signed.payload)
            .map_err(|error| invalid(not_json(&signed.payload, &error)))?;
        let userid = signed.userid;
        let signed = signed.ends.map(|ends| Signed { digest: digest(&j), ends });
        let Checked { id, urgency, flags, began, .. } = self;
        let (changed, judged) = (false, Vec::new());
        Ok(Request { id, j, signed, userid, urgency, flags, jobspec, changed, began, judged })
    }
}

fn digest(j: &str) -> String {
    Sha256::digest(j).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn invalid(text: String) -> Failure {
    Failure::new(Errno::EINVAL, text)
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
