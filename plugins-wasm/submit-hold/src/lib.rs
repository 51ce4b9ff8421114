//! Every job is held (urgency 0) until someone raises its urgency.

use flux_plugin::prelude::*;

struct SubmitHold {
    owner: u32,
}

impl Plugin for SubmitHold {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(SubmitHold { owner: context.instance.owner })
    }
}

impl Jobtap for SubmitHold {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        if let Event::State(change) = event
            && change.job.state == JobState::Depend
            && change.job.urgency != 0
        {
            let context = serde_json::json!({ "userid": self.owner, "urgency": 0 });
            effects.post_event(change.job.id, "urgency", context.to_string());
        }
        Reply::Pass
    }
}

flux_plugin::jobtap! {
    SubmitHold,
    name: "submit-hold",
    description: "Submit all jobs held",
    topics: ["job.state.depend"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;
    use flux_plugin::types::{JobEvent, StateChange};

    #[test]
    fn a_job_is_held_unless_it_is_already() {
        let mut plugin = SubmitHold::init(&testing::context("{}", "{}")).unwrap();
        for (urgency, posts) in [(16, true), (0, false)] {
            let job = Job { urgency, state: JobState::Depend, ..testing::job(5) };
            let entry = Entry { timestamp: 0.0, name: "depend".into(), context: "{}".into() };
            let mut effects = Effects::default();
            let change = StateChange { job, previous: JobState::New, entry };
            plugin.handle(Event::State(change), &mut effects);
            let context = r#"{"urgency":0,"userid":0}"#.to_owned();
            let event = JobEvent { id: 5, name: "urgency".into(), context };
            let expected = if posts { vec![Effect::PostEvent(event)] } else { Vec::new() };
            assert_eq!(effects.list(), expected);
        }
    }
}
