//! Lets a pending job change its queue, if it keeps to the constraints of the queue that it
//! leaves: they are replaced by those of the new one (RFC 33).

use flux_plugin::prelude::*;
use flux_plugin::types::{UpdateAllowed, UpdateRequest};
use serde_json::{Map, Value, json};

struct UpdateQueue {
    queues: Map<String, Value>,
}

impl Plugin for UpdateQueue {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(UpdateQueue { queues: queues(&context.broker_config)? })
    }

    fn configure(&mut self, _: &str, broker_config: &str) -> Result<(), String> {
        self.queues = queues(broker_config)?;
        Ok(())
    }
}

impl Jobtap for UpdateQueue {
    fn handle(&mut self, event: Event, _: &mut Effects) -> Reply {
        let Event::Update(request) = event else { return Reply::Pass };
        match self.judge(&request) {
            Ok(allowed) => Reply::Allow(allowed),
            Err(text) => Reply::Refuse(refuse_with(errno::EINVAL, text)),
        }
    }
}

impl UpdateQueue {
    fn judge(&self, request: &UpdateRequest) -> Result<UpdateAllowed, String> {
        let value = serde_json::from_str(&request.value).unwrap_or_default();
        let Value::String(name) = value else {
            return Err("queue must be a string".to_owned());
        };
        if matches!(request.job.state, JobState::Run | JobState::Cleanup) {
            return Err("update of queue for running job not supported".to_owned());
        }
        let current = request.job.queue.as_deref();
        if current == Some(name.as_str()) {
            return Err(format!("job queue is already set to {name}"));
        }
        let constraints = self.constraints(Some(&name))?;
        let expected = self.constraints(current)?;
        let given = request.job.constraints.as_deref().map(serde_json::from_str::<Value>);
        let given = given.transpose().map_err(|error| error.to_string())?.unwrap_or(json!({}));
        if given != expected {
            return Err(format!(
                "job appears to have non-queue constraints, unable to update queue to {name}"
            ));
        }
        let updates = json!({ "attributes.system.constraints": constraints });
        let updates = Some(updates.to_string());
        Ok(UpdateAllowed { validated: false, feasibility: true, updates })
    }

    /// What a job in the queue is held to; a virtual queue has the properties of its parent.
    fn constraints(&self, name: Option<&str>) -> Result<Value, String> {
        let Some(name) = name else { return Ok(json!({})) };
        let queue = |name: &str| {
            self.queues.get(name).ok_or_else(|| format!("'{name}' is not a valid queue"))
        };
        let own = queue(name)?;
        let table = match own.get("parent").and_then(Value::as_str) {
            Some(parent) => queue(parent)?,
            None => own,
        };
        Ok(match table.get("requires") {
            Some(requires) => json!({ "properties": requires }),
            None => json!({}),
        })
    }
}

fn queues(config: &str) -> Result<Map<String, Value>, String> {
    let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
    match config.get("queues") {
        None => Ok(Map::new()),
        Some(Value::Object(queues)) => Ok(queues.clone()),
        Some(_) => Err("queues must be a table".to_owned()),
    }
}

flux_plugin::jobtap! {
    UpdateQueue,
    name: "update-queue",
    description: "Lets pending jobs change their queue",
    topics: ["job.update.attributes.system.queue"],
    capabilities: ["config:queues"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    const QUEUES: &str = r#"{"queues":{
        "batch":{"requires":["batch"]},"debug":{"requires":["debug"]},"any":{},
        "night":{"parent":"batch"}}}"#;

    fn update(state: JobState, queue: &str, constraints: &str, to: &str) -> String {
        let mut plugin = UpdateQueue::init(&testing::context("{}", QUEUES)).unwrap();
        let (queue, constraints) = (Some(queue.to_owned()), Some(constraints.to_owned()));
        let request = UpdateRequest {
            job: Job { state, queue, constraints, ..testing::job(1) },
            userid: 0,
            rolemask: 5,
            key: "attributes.system.queue".to_owned(),
            value: format!("\"{to}\""),
            updates: "{}".to_owned(),
        };
        match plugin.handle(Event::Update(request), &mut Effects::default()) {
            Reply::Allow(allowed) => allowed.updates.unwrap(),
            Reply::Refuse(refusal) => refusal.text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn constraints_follow_the_queue() {
        let batch = r#"{"properties":["batch"]}"#;
        let to = |queue: &str| update(JobState::Sched, "batch", batch, queue);
        assert_eq!(to("debug"), r#"{"attributes.system.constraints":{"properties":["debug"]}}"#);
        assert_eq!(to("night"), r#"{"attributes.system.constraints":{"properties":["batch"]}}"#);
        assert_eq!(to("any"), r#"{"attributes.system.constraints":{}}"#);
    }

    #[test]
    fn what_cannot_change_its_queue_is_told_why() {
        let batch = r#"{"properties":["batch"]}"#;
        let cases = [
            (
                update(JobState::Run, "batch", batch, "any"),
                "update of queue for running job not supported",
            ),
            (update(JobState::Sched, "batch", batch, "batch"), "job queue is already set to batch"),
            (update(JobState::Sched, "batch", batch, "x"), "'x' is not a valid queue"),
            (
                update(JobState::Sched, "batch", r#"{"hostlist":["a"]}"#, "any"),
                "job appears to have non-queue constraints, unable to update queue to any",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
    }
}
