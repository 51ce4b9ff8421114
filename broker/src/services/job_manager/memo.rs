//! `memo`: what users note down on a job. `explain`: what is told of why it waits.

use flux_protocol::credential::Userid;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::job_manager as rpc;
use serde_json::json;

use super::{Context, JobManager};
use crate::call::Sender;

impl JobManager {
    /// A volatile memo is an annotation; others are in the eventlog.
    pub(super) fn memo(
        &mut self,
        context: &Context,
        request: rpc::MemoRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        let job = self.active_job(request.id)?;
        if !sender.cred.authorizes(Userid(job.userid)) {
            let text = "guests can only add a memo to their own jobs";
            return Err(Failure::new(Errno::EPERM, text));
        }
        if request.volatile {
            self.annotate(context, request.id, &json!({ "user": request.memo }));
        } else {
            self.post_with(context, request.id, "memo", &request.memo);
        }
        Ok(Empty)
    }

    /// Of a program of the owner's that runs for the job, such as `flux perilog-run`.
    pub(super) fn explain_for(
        &mut self,
        context: &Context,
        request: rpc::ExplainRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        self.active_job(request.id)?;
        match &request.text {
            Some(text) => self.explain(context, request.id, &request.name, text),
            None => self.unexplain(context, request.id, &request.name),
        }
        Ok(Empty)
    }
}
