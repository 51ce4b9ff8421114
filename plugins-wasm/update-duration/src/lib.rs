//! Lets the duration of jobs be changed: by their users while they wait, by the instance owner
//! also while they run.
//!
//! Configuration: `owner-allow-any = false` binds the owner to the policy's limits as well, and to
//! jobs that wait. Also `0`, as `flux jobtap load` passes it.

use flux_plugin::prelude::*;
use flux_plugin::types::{UpdateAllowed, UpdateRequest};
use serde_json::Value;

/// Bit of a rolemask (RFC 12).
const OWNER: u32 = 1;

struct UpdateDuration {
    owner_allow_any: bool,
}

impl Plugin for UpdateDuration {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(UpdateDuration { owner_allow_any: owner_allow_any(&context.config)? })
    }

    fn configure(&mut self, config: &str, _: &str) -> Result<(), String> {
        self.owner_allow_any = owner_allow_any(config)?;
        Ok(())
    }
}

impl Jobtap for UpdateDuration {
    fn handle(&mut self, event: Event, _: &mut Effects) -> Reply {
        let Event::Update(request) = event else { return Reply::Pass };
        match self.judge(&request) {
            Ok(allowed) => Reply::Allow(allowed),
            Err(text) => Reply::Refuse(refuse_with(errno::EINVAL, text)),
        }
    }
}

impl UpdateDuration {
    fn judge(&self, request: &UpdateRequest) -> Result<UpdateAllowed, &'static str> {
        let duration = request.value.parse::<f64>();
        match duration {
            Ok(duration) if duration < 0.0 => return Err("duration must not be negative"),
            Ok(_) => {}
            Err(_) => return Err("duration must be a number of seconds"),
        }
        let any = self.owner_allow_any && request.rolemask & OWNER != 0;
        let running = matches!(request.job.state, JobState::Run | JobState::Cleanup);
        if running && !any {
            return Err("duration update of running job requires instance owner privileges");
        }
        Ok(UpdateAllowed { validated: any, feasibility: false, updates: None })
    }
}

fn owner_allow_any(config: &str) -> Result<bool, String> {
    let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
    match config.get("owner-allow-any") {
        None => Ok(true),
        Some(Value::Bool(any)) => Ok(*any),
        Some(Value::Number(any)) => Ok(any.as_i64() != Some(0)),
        Some(other) => Err(format!("owner-allow-any must be true or false, got {other}")),
    }
}

flux_plugin::jobtap! {
    UpdateDuration,
    name: "update-duration",
    description: "Lets the duration of jobs be changed",
    topics: ["job.update.attributes.system.duration"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    const PRIVILEGE: &str = "duration update of running job requires instance owner privileges";

    fn update(config: &str, state: JobState, rolemask: u32, value: &str) -> String {
        let mut plugin = UpdateDuration::init(&testing::context(config, "{}")).unwrap();
        let request = UpdateRequest {
            job: Job { state, ..testing::job(1) },
            userid: 1000,
            rolemask,
            key: "attributes.system.duration".to_owned(),
            value: value.to_owned(),
            updates: "{}".to_owned(),
        };
        match plugin.handle(Event::Update(request), &mut Effects::default()) {
            Reply::Allow(UpdateAllowed { validated, .. }) => format!("validated {validated}"),
            Reply::Refuse(refusal) => refusal.text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_user_changes_a_job_that_waits_within_the_limits() {
        assert_eq!(update("{}", JobState::Sched, 2, "60.0"), "validated false");
        assert_eq!(update("{}", JobState::Run, 2, "60.0"), PRIVILEGE);
    }

    #[test]
    fn the_owner_changes_any_job_beyond_the_limits() {
        assert_eq!(update("{}", JobState::Sched, 5, "1e9"), "validated true");
        assert_eq!(update("{}", JobState::Run, 5, "0"), "validated true");
    }

    #[test]
    fn the_owner_can_be_bound_as_well() {
        for config in [r#"{"owner-allow-any":false}"#, r#"{"owner-allow-any":0}"#] {
            assert_eq!(update(config, JobState::Sched, 5, "60"), "validated false");
            assert_eq!(update(config, JobState::Run, 5, "60"), PRIVILEGE);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        assert_eq!(update("{}", JobState::Sched, 5, "-1"), "duration must not be negative");
        let text = "duration must be a number of seconds";
        assert_eq!(update("{}", JobState::Sched, 5, "\"5m\""), text);
    }
}
