//! Dependencies on other jobs (RFC 26): after, afterstart, afterany, afterok, afternotok,
//! afterexcept, and singleton.
//!
//! A dependency is known by a text such as `after-success=JOBID`; the job waits in DEPEND until
//! it is removed. The job that others wait for is subscribed to, so that its start and its end
//! are seen.

mod after;
mod singleton;

use after::After;
use flux_plugin::prelude::*;
use singleton::Singletons;

#[derive(Default)]
struct Dependency {
    after: After,
    singletons: Singletons,
}

impl Plugin for Dependency {
    fn init(_: &Context) -> Result<Self, String> {
        Ok(Dependency::default())
    }

    fn query(&self) -> String {
        serde_json::json!({
            "dependencies": self.after.report(),
            "singletons": self.singletons.report(),
        })
        .to_string()
    }
}

impl Jobtap for Dependency {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::Dependency(request) if request.scheme == "singleton" => {
                return self.singletons.depend(&request.job, effects);
            }
            Event::Dependency(request) => return self.after.depend(&request, effects),
            Event::New(news) => self.singletons.arrived(&news.job),
            Event::State(change) if change.job.state == JobState::Inactive => {
                self.singletons.ended(&change.job, effects);
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
    name: "dependency",
    description: "Dependencies on other jobs",
    topics: [
        "job.dependency.after",
        "job.dependency.afterstart",
        "job.dependency.afterany",
        "job.dependency.afterok",
        "job.dependency.afternotok",
        "job.dependency.afterexcept",
        "job.dependency.singleton",
        "job.new",
        "job.state.inactive",
        "job.event.start",
    ],
    order: "state",
}

#[cfg(test)]
mod tests;
