//! The names of callback topics.

use super::v1::types::{Event, JobState};

/// Name of a state as topics and eventlogs have it.
pub fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::New => "new",
        JobState::Depend => "depend",
        JobState::Priority => "priority",
        JobState::Sched => "sched",
        JobState::Run => "run",
        JobState::Cleanup => "cleanup",
        JobState::Inactive => "inactive",
    }
}

/// The full topic of an event: "job.dependency.afterok". None for what needs no topic.
pub fn topic(event: &Event) -> Option<String> {
    match event {
        Event::Dependency(request) => Some(format!("job.dependency.{}", request.scheme)),
        Event::Update(request) => Some(format!("job.update.{}", request.key)),
        Event::Call(call) => Some(call.topic.clone()),
        Event::Other((name, _)) => Some(name.clone()),
        Event::Timer(_)
        | Event::Rpc(_)
        | Event::RpcResponse(_)
        | Event::Exec(_)
        | Event::Published(_) => None,
        Event::Posted(posted) => Some(format!("job.event.{}", posted.entry.name)),
        _ => Some(label(event).to_owned()),
    }
}

/// The topic without what varies; counters are kept under it.
pub fn label(event: &Event) -> &'static str {
    match event {
        Event::Create(_) => "job.create",
        Event::Validate(_) => "job.validate",
        Event::New(_) => "job.new",
        Event::Dependency(_) => "job.dependency",
        Event::State(change) => match change.job.state {
            JobState::New => "job.state.new",
            JobState::Depend => "job.state.depend",
            JobState::Priority => "job.state.priority",
            JobState::Sched => "job.state.sched",
            JobState::Run => "job.state.run",
            JobState::Cleanup => "job.state.cleanup",
            JobState::Inactive => "job.state.inactive",
        },
        Event::PriorityGet(_) => "job.priority.get",
        Event::Posted(_) => "job.event",
        Event::Update(_) => "job.update.KEY",
        Event::Updated(_) => "job.update",
        Event::Admit(_) => "job.admit",
        Event::InactiveAdd(_) => "job.inactive-add",
        Event::InactiveRemove(_) => "job.inactive-remove",
        Event::Destroy(_) => "job.destroy",
        Event::Timer(_) => "timer",
        Event::Rpc(_) => "rpc",
        Event::RpcResponse(_) => "rpc-response",
        Event::Exec(_) => "exec",
        Event::Published(_) => "event",
        Event::Call(_) => "call",
        Event::Other(_) => "other",
    }
}
