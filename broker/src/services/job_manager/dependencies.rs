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
        match self.dependency_of(id, &description)? {
            (Some(_), _) => Ok(()),
            (None, state) if state > State::Depend => {
                Err(format!("job {} is past DEPEND", id.f58()))
            }
            (None, _) => {
                self.post_dependency(context, id, "dependency-add", &description);
                Ok(())
            }
        }
    }

    pub(super) fn dependency_remove(
        &mut self,
        context: &Context,
        id: JobId,
        description: String,
    ) -> Result<(), String> {
        if self.dependency_of(id, &description)?.0 != Some(Dependency::Holds) {
            return Err(format!("job {} has no dependency {description}", id.f58()));
        }
        self.post_dependency(context, id, "dependency-remove", &description);
        Ok(())
    }

    fn dependency_of(
        &self,
        id: JobId,
        description: &str,
    ) -> Result<(Option<Dependency>, State), String> {
        let job = self.jobs.get(&self.known(id.0)?).ok_or("gone")?;
        Ok((dependency(job, description), job.state))
    }

    fn post_dependency(&mut self, context: &Context, id: JobId, name: &str, description: &str) {
        self.post_with(context, id, name, &json!({ "description": description }));
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
