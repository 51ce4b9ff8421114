//! Dependencies that plugins add and remove, each once.

use flux_protocol::fluid::JobId;
use serde_json::json;

use super::job::{Job, State, description as description_of};
use super::{Context, JobManager};

/// What a dependency is to the job that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dependency {
    Holds,
    Satisfied,
}

impl JobManager {
    /// Adding a dependency that is, or was, there does nothing.
    pub(super) fn dependency_add(
        &mut self,
        context: &Context,
        id: JobId,
        description: String,
    ) -> Result<(), String> {
        let job = self.jobs.get(&self.known(id.0)?).ok_or("gone")?;
        if dependency(job, &description).is_some() {
            return Ok(());
        }
        if job.state > State::Depend {
            return Err(format!("job {} is past DEPEND", id.f58()));
        }
        let event = json!({ "description": description });
        self.post_with(context, id, "dependency-add", &event);
        Ok(())
    }

    pub(super) fn dependency_remove(
        &mut self,
        context: &Context,
        id: JobId,
        description: String,
    ) -> Result<(), String> {
        let job = self.jobs.get(&self.known(id.0)?).ok_or("gone")?;
        if dependency(job, &description) != Some(Dependency::Holds) {
            return Err(format!("job {} has no dependency {description}", id.f58()));
        }
        let event = json!({ "description": description });
        self.post_with(context, id, "dependency-remove", &event);
        Ok(())
    }
}

/// With what the events will change that wait for plugins; nothing where there never was one.
fn dependency(job: &Job, description: &str) -> Option<Dependency> {
    let changed = job.queued.iter().rev().find_map(|event| {
        let becomes = match event.name.as_str() {
            "dependency-add" => Dependency::Holds,
            "dependency-remove" => Dependency::Satisfied,
            _ => return None,
        };
        (description_of(event).as_deref() == Some(description)).then_some(becomes)
    });
    if changed.is_some() {
        return changed;
    }
    match () {
        () if job.dependencies.contains(description) => Some(Dependency::Holds),
        () if job.satisfied.contains(description) => Some(Dependency::Satisfied),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use flux_protocol::eventlog::Event;

    use super::*;

    #[test]
    fn events_that_wait_count_already() {
        let event = |name: &str, description: &str| {
            let context = json!({ "description": description });
            Event::new(1.0, name).with_context(&context).unwrap()
        };
        let jobspec = serde_json::value::to_raw_value(&json!({})).unwrap();
        let mut job = Job::new(JobId(1), Rc::from(jobspec));
        assert_eq!(dependency(&job, "a"), None);
        job.queued.push_back(event("dependency-add", "a"));
        assert_eq!(dependency(&job, "a"), Some(Dependency::Holds));
        assert_eq!(dependency(&job, "b"), None);
        job.queued.push_back(event("dependency-remove", "a"));
        job.queued.push_back(event("dependency-add", "b"));
        assert_eq!(dependency(&job, "a"), Some(Dependency::Satisfied));
        // What is applied has less to say than what comes.
        job.dependencies.insert("a".to_owned());
        assert_eq!(dependency(&job, "a"), Some(Dependency::Satisfied));
        job.queued.clear();
        assert_eq!(dependency(&job, "a"), Some(Dependency::Holds));
    }
}
