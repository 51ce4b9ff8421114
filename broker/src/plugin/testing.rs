//! Records for tests.

use super::v1::types::{Job, JobId, JobState};

/// A new job with nothing special about it.
pub(super) fn job(id: JobId) -> Job {
    Job {
        id,
        userid: 1000,
        urgency: 16,
        priority: None,
        state: JobState::New,
        flags: 0,
        t_submit: 0.0,
        duration: 0.0,
        request: None,
        name: "true".to_owned(),
        named: false,
        queue: None,
        bank: None,
        project: None,
        constraints: None,
        job_result: None,
        end_event: None,
    }
}
