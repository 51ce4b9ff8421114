//! Exceptions: `raise` and `raiseall`.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Flags;
use flux_protocol::payload::{Empty, encode_json};
use flux_protocol::rpc::job_manager as rpc;
use serde::Serialize;
use serde_json::json;

use super::{Context, JobManager};
use crate::call::Sender;
use crate::log::Severity;

const NOT_YOURS: &str = "guests can only raise exceptions on their own jobs";

/// Of the exception event, in the order in which it is shown.
#[derive(Serialize)]
struct ExceptionContext<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    severity: u32,
    note: &'a str,
    userid: u32,
    /// What a task ended with, for those who look for the job's exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_status: Option<i64>,
}

impl JobManager {
    pub(super) fn raise(
        &mut self,
        context: &Context,
        request: rpc::RaiseRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        let severity = check(request.severity, &request.kind)?;
        let job = self.active_job(request.id)?;
        if !sender.cred.authorizes(flux_protocol::credential::Userid(job.userid)) {
            return Err(Failure::new(Errno::EPERM, NOT_YOURS));
        }
        let note = request.note.unwrap_or_default();
        let event = ExceptionContext {
            kind: &request.kind,
            severity,
            note: &note,
            userid: sender.cred.userid.0,
            wait_status: request.wait_status,
        };
        self.post_exception(context, request.id, &event);
        Ok(Empty)
    }

    pub(super) fn raise_all(
        &mut self,
        context: &Context,
        request: rpc::RaiseAllRequest,
        sender: &Sender,
    ) -> Result<rpc::CountErrors, Failure> {
        let severity = check(request.severity, &request.kind)?;
        if !sender.cred.authorizes(flux_protocol::credential::Userid(request.userid)) {
            return Err(Failure::new(Errno::EPERM, NOT_YOURS));
        }
        let mut matched: Vec<JobId> = self
            .active_jobs()
            .filter(|job| job.state.is_in(request.states))
            .filter(|job| request.userid == rpc::ANY_USER || job.userid == request.userid)
            .map(|job| job.id)
            .collect();
        matched.sort_unstable();
        let count = matched.len() as u64;
        if !request.dry_run {
            let note = request.note.unwrap_or_default();
            let userid = sender.cred.userid.0;
            for id in matched {
                self.raise_exception(context, id, &request.kind, severity, userid, &note);
            }
        }
        Ok(rpc::CountErrors { count, errors: 0 })
    }

    /// Post an exception, and tell the instance: the execution service and others act on the
    /// event.
    pub(super) fn raise_exception(
        &mut self,
        context: &Context,
        id: JobId,
        kind: &str,
        severity: u32,
        userid: u32,
        note: &str,
    ) {
        let event = ExceptionContext { kind, severity, note, userid, wait_status: None };
        self.post_exception(context, id, &event);
    }

    fn post_exception(&mut self, context: &Context, id: JobId, event: &ExceptionContext<'_>) {
        self.post_with(context, id, "exception", event);
        let ExceptionContext { kind, severity, wait_status, .. } = event;
        let mut told = json!({ "id": id, "type": kind, "severity": severity });
        if let (Some(status), Some(told)) = (wait_status, told.as_object_mut()) {
            told.insert("wait_status".to_owned(), (*status).into());
        }
        let Ok(payload) = encode_json(&told) else { return };
        if let Err(failure) =
            context.handle().publish_flags("job-exception", Flags::PRIVATE, payload)
        {
            context.log(Severity::Err, format!("job-exception event of {id}: {failure}"));
        }
    }
}

fn check(severity: i64, kind: &str) -> Result<u32, Failure> {
    let severity = u32::try_from(severity).ok().filter(|severity| *severity <= 7);
    let severity =
        severity.ok_or_else(|| Failure::new(Errno::EPROTO, "invalid exception severity"))?;
    if kind.is_empty() || kind.contains(char::is_whitespace) {
        return Err(Failure::new(Errno::EPROTO, "invalid exception type"));
    }
    Ok(severity)
}
