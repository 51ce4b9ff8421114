//! `memo`: what users note down on a job.

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
}
