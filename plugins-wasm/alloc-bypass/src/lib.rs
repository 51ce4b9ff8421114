//! A job of the owner with `attributes.system.alloc-bypass.R` runs on those resources without
//! asking the scheduler: for tools that must reach nodes that are in use.

use flux_plugin::prelude::*;
use flux_protocol::r::ResourceSet;
use serde_json::Value;

struct AllocBypass {
    owner: u32,
}

impl Plugin for AllocBypass {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(AllocBypass { owner: context.instance.owner })
    }
}

impl Jobtap for AllocBypass {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::Validate(job) => match bypass(job.id) {
                None => Reply::Pass,
                Some(r) => self.validate(&job, &r, effects),
            },
            Event::State(change) if change.job.state == JobState::Sched => {
                match bypass(change.job.id) {
                    Some(r) => Reply::Allocate(r.to_string()),
                    None => Reply::Pass,
                }
            }
            _ => Reply::Pass,
        }
    }
}

impl AllocBypass {
    fn validate(&self, job: &Job, r: &Value, effects: &mut Effects) -> Reply {
        if job.userid != self.owner {
            let text = "Guest user cannot use alloc bypass";
            return Reply::Refuse(refuse_with(errno::EINVAL, text));
        }
        let problem = match ResourceSet::decode(&r.to_string()) {
            Ok(set) if set.ranks().is_empty() => Some("no resources".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            let text = format!("alloc-bypass: invalid R: {problem}");
            return Reply::Refuse(refuse_with(errno::EINVAL, text));
        }
        effects.set_flag(job.id, "alloc-bypass");
        Reply::Pass
    }
}

/// The resources that a jobspec names. Most jobspecs do not have the word in them at all.
fn bypass(id: JobId) -> Option<Value> {
    let jobspec = host::jobspec(id)?;
    if !jobspec.contains("alloc-bypass") {
        return None;
    }
    let jobspec: Value = serde_json::from_str(&jobspec).ok()?;
    jobspec.pointer("/attributes/system/alloc-bypass/R").cloned()
}

flux_plugin::jobtap! {
    AllocBypass,
    name: "alloc-bypass",
    description: "Run a job of the owner on resources named in its jobspec",
    topics: ["job.validate", "job.state.sched"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;
    use flux_plugin::types::StateChange;

    const R: &str = r#"{"execution":{"R_lite":[{"children":{"core":"0"},"rank":"0"}],"expiration":0.0,"nodelist":["n0"],"starttime":0.0},"version":1}"#;

    fn plugin(r: &str) -> AllocBypass {
        testing::reset();
        testing::put_jobspec(
            3,
            &format!(r#"{{"attributes":{{"system":{{"alloc-bypass":{{"R":{r}}}}}}}}}"#),
        );
        testing::put_jobspec(4, r#"{"attributes":{"system":{}}}"#);
        AllocBypass::init(&testing::context("{}", "{}")).unwrap()
    }

    fn validate(r: &str, id: JobId, userid: u32) -> String {
        let job = Job { userid, ..testing::job(id) };
        match plugin(r).handle(Event::Validate(job), &mut Effects::default()) {
            Reply::Refuse(refusal) => refusal.text,
            reply => format!("{reply:?}"),
        }
    }

    #[test]
    fn only_the_owner_may_bypass_and_only_with_a_good_r() {
        assert_eq!(validate(R, 3, 0), "Reply::Pass");
        assert_eq!(validate(R, 4, 7), "Reply::Pass");
        assert_eq!(validate(R, 3, 7), "Guest user cannot use alloc bypass");
        assert!(validate("{}", 3, 0).starts_with("alloc-bypass: invalid R"));
        assert_eq!(validate(r#"{"version":1}"#, 3, 0), "alloc-bypass: invalid R: no resources");
    }

    #[test]
    fn the_named_resources_are_allocated() {
        let entry = Entry { timestamp: 0.0, name: "priority".into(), context: "{}".into() };
        let job = |id| Job { state: JobState::Sched, ..testing::job(id) };
        let change =
            |id| StateChange { job: job(id), previous: JobState::Priority, entry: entry.clone() };
        let mut plugin = plugin(R);
        let mut call = |id| plugin.handle(Event::State(change(id)), &mut Effects::default());
        assert_eq!(call(3), Reply::Allocate(R.to_owned()));
        assert_eq!(call(4), Reply::Pass);
    }
}
