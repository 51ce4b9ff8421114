//! Dependencies on other jobs (RFC 26): after, afterstart, afterany, afterok, afternotok and
//! afterexcept.
//!
//! A dependency is known by a text such as `after-success=JOBID`; the job waits in DEPEND until
//! it is removed. The job that others wait for is subscribed to, so that its start and its end
//! are seen.

mod after;

use after::After;
use flux_plugin::prelude::*;

#[derive(Default)]
struct Dependency {
    after: After,
}

impl Plugin for Dependency {
    fn init(_: &Context) -> Result<Self, String> {
        Ok(Dependency::default())
    }

    fn query(&self) -> String {
        serde_json::json!({ "dependencies": self.after.report() }).to_string()
    }
}

impl Jobtap for Dependency {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::Dependency(request) => return self.after.depend(&request, effects),
            Event::State(change) if change.job.state == JobState::Inactive => {
                self.after.ended(&change.job, effects);
            }
            Event::Posted(posted) if posted.entry.name == "start" => {
                self.after.started(posted.job.id, effects);
            }
            _ => {}
        }
        Reply::Pass
    }
}

flux_plugin::jobtap! {
    Dependency,
    name: "dependency-after",
    description: "Dependencies on the start or the end of other jobs",
    topics: [
        "job.dependency.after",
        "job.dependency.afterstart",
        "job.dependency.afterany",
        "job.dependency.afterok",
        "job.dependency.afternotok",
        "job.dependency.afterexcept",
        "job.state.inactive",
        "job.event.start",
    ],
    order: "state",
}

#[cfg(test)]
mod tests;
