//! The default priority: a job's urgency (RFC 30), and the maximum for an expedited job.

use flux_plugin::prelude::*;

struct PriorityDefault;

/// What an expedited job (urgency 31) gets.
const PRIORITY_MAX: u32 = u32::MAX;
const URGENCY_EXPEDITE: u8 = 31;

fn priority(urgency: u8) -> u32 {
    if urgency == URGENCY_EXPEDITE { PRIORITY_MAX } else { u32::from(urgency) }
}

impl Plugin for PriorityDefault {
    fn init(_: &Context) -> Result<Self, String> {
        Ok(PriorityDefault)
    }
}

impl Jobtap for PriorityDefault {
    fn handle(&mut self, event: Event, _: &mut Effects) -> Reply {
        match event {
            Event::State(change) if change.job.state == JobState::Priority => {
                Reply::Priority(priority(change.job.urgency))
            }
            Event::PriorityGet(job) => Reply::Priority(priority(job.urgency)),
            _ => Reply::Pass,
        }
    }
}

flux_plugin::jobtap! {
    PriorityDefault,
    name: "priority-default",
    description: "Job priority equals urgency",
    topics: ["job.state.priority", "job.priority.get"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    #[test]
    fn priority_is_the_urgency_and_expedited_jobs_get_the_most() {
        let mut plugin = PriorityDefault;
        for (urgency, expected) in [(0, 0), (16, 16), (30, 30), (31, u32::MAX)] {
            let job = Job { urgency, ..testing::job(1) };
            let reply = plugin.handle(Event::PriorityGet(job), &mut Effects::default());
            assert_eq!(reply, Reply::Priority(expected));
        }
    }
}
