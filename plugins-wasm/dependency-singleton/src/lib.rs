//! The dependency `singleton` (RFC 26): of a user's jobs of one name, one runs at a time.

mod singletons;

use flux_plugin::prelude::*;
use singletons::Singletons;

#[derive(Default)]
struct Singleton {
    singletons: Singletons,
}

impl Plugin for Singleton {
    fn init(_: &Context) -> Result<Self, String> {
        Ok(Singleton::default())
    }

    fn query(&self) -> String {
        self.singletons.report().to_string()
    }
}

impl Jobtap for Singleton {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::Dependency(request) => {
                return self.singletons.depend(&request.job, effects);
            }
            Event::New(news) => self.singletons.arrived(&news.job),
            Event::State(change) if change.job.state == JobState::Inactive => {
                self.singletons.ended(change.job.id, effects);
            }
            // Refused by another plugin, after it was seen here.
            Event::Destroy(id) => self.singletons.ended(id, effects),
            _ => {}
        }
        Reply::Pass
    }
}

flux_plugin::jobtap! {
    Singleton,
    name: "dependency-singleton",
    description: "One job of a user and name at a time",
    topics: ["job.dependency.singleton", "job.new", "job.state.inactive", "job.destroy"],
    order: "state",
}

#[cfg(test)]
mod tests;
