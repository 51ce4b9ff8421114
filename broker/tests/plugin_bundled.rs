//! The bundled plugins, as the broker loads them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod plugin_support;

use flux_broker::plugin::types::{Event, Job, JobState, Reply};
use flux_broker::plugin::{Kind, PluginSpec};
use plugin_support::Fixture;

pub fn job(id: u64) -> Job {
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
        queue: None,
        bank: None,
        project: None,
        constraints: None,
        job_result: None,
        end_event: None,
    }
}

#[tokio::test]
async fn default_priority_is_the_urgency() {
    let fixture = Fixture::new();
    let spec = PluginSpec::named("priority-default");
    let plugin = fixture.host.load(&spec, Kind::Jobtap, Default::default()).await.unwrap();
    assert!(plugin.facts().bundled);
    let events = (0..200).map(|id| Event::PriorityGet(Job { urgency: 3, ..job(id) })).collect();
    let answers = plugin.handle(events).await;
    assert_eq!(answers.len(), 200);
    for answer in answers {
        assert_eq!(answer.unwrap().reply, Reply::Priority(3));
    }
    let stats = plugin.stats();
    assert_eq!(stats.callbacks["job.priority.get"].calls, 200);
}
