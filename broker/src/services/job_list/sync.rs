//! Jobs that are asked for before the journal has told of them.
//!
//! Whoever has submitted a job knows its id at once; the journal may still be on its way. A job
//! that has an eventlog will come, and the question waits for it.

use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::job_list::{ListIdRequest, ListIdResponse};
use flux_protocol::rpc::kvs;

use super::{Context, JobList};
use crate::call::Call;
use crate::handle::Handle;

impl JobList {
    pub(super) fn await_unknown(
        &mut self,
        context: &Context,
        request: ListIdRequest,
        call: Call<ListIdResponse>,
    ) {
        let id = request.id;
        self.waiting.insert(call, request);
        self.lookups += 1;
        let handle = context.handle().clone();
        context.spawn(
            async move { has_eventlog(&handle, id).await },
            move |list: &mut JobList, exists| {
                list.lookups -= 1;
                if !exists && !list.jobs.contains_key(&id) {
                    for (call, _) in list.waiting.take(|_, request| request.id == id) {
                        call.fail(Errno::ENOENT);
                    }
                }
            },
        );
    }
}

async fn has_eventlog(handle: &Handle, id: JobId) -> bool {
    let request = kvs::LookupRequest {
        key: format!("{}.eventlog", id.kvs()),
        namespace: Some(kvs::PRIMARY.to_owned()),
        flags: kvs::lookup::TREEOBJ,
        rootdir: None,
        rootseq: None,
    };
    handle.rpc::<kvs::Lookup>(&request).await.is_ok()
}
