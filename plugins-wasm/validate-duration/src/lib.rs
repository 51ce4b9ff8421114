//! A job may not ask for more time than the instance has left.
//!
//! The end of the instance is told by the broker (`instance.expiration`), at first and whenever it
//! changes; until then, and where there is none, any duration will do.

use flux_plugin::prelude::*;
use flux_protocol::fsd;
use serde_json::Value;

const EXPIRATION: &str = "instance.expiration";

struct ValidateDuration {
    /// Seconds since the epoch; 0 for never.
    expiration: f64,
}

impl Plugin for ValidateDuration {
    fn init(_: &Context) -> Result<Self, String> {
        Ok(ValidateDuration { expiration: 0.0 })
    }
}

impl Jobtap for ValidateDuration {
    fn handle(&mut self, event: Event, _: &mut Effects) -> Reply {
        match event {
            Event::Validate(job) => match self.check(&job) {
                Ok(()) => Reply::Pass,
                Err(text) => Reply::Refuse(refuse_with(errno::EINVAL, text)),
            },
            Event::Other((name, json)) if name == EXPIRATION => {
                self.learn(&json);
                Reply::Pass
            }
            _ => Reply::Pass,
        }
    }
}

impl ValidateDuration {
    fn learn(&mut self, json: &str) {
        let value: Value = serde_json::from_str(json).unwrap_or_default();
        if let Some(expiration) = value.get("expiration").and_then(Value::as_f64) {
            self.expiration = expiration;
        }
    }

    fn check(&self, job: &Job) -> Result<(), String> {
        let left = self.expiration - host::now();
        if self.expiration <= 0.0 || job.duration <= left {
            return Ok(());
        }
        let text = |seconds: f64| fsd::format_with_precision(seconds, 2);
        Err(match (text(job.duration), text(left)) {
            (Ok(duration), Ok(left)) => {
                format!("job duration ({duration}) exceeds remaining instance lifetime ({left})")
            }
            _ => "duration exceeds instance lifetime".to_owned(),
        })
    }
}

flux_plugin::jobtap! {
    ValidateDuration,
    name: "validate-duration",
    description: "No job lasts longer than the instance",
    topics: ["job.validate", "instance.expiration"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    fn check(plugin: &mut ValidateDuration, duration: f64) -> String {
        let job = Job { duration, ..testing::job(1) };
        match plugin.handle(Event::Validate(job), &mut Effects::default()) {
            Reply::Refuse(refusal) => refusal.text,
            _ => "ok".to_owned(),
        }
    }

    #[test]
    fn a_job_that_would_outlive_the_instance_is_refused() {
        testing::reset();
        testing::set_now(1000.0);
        let mut plugin = ValidateDuration::init(&testing::context("{}", "{}")).unwrap();
        assert_eq!(check(&mut plugin, 1e9), "ok");
        let end = Event::Other((EXPIRATION.into(), r#"{"expiration":4600.0}"#.into()));
        plugin.handle(end, &mut Effects::default());
        assert_eq!(check(&mut plugin, 3600.0), "ok");
        assert_eq!(check(&mut plugin, 0.0), "ok");
        let text = "job duration (2h) exceeds remaining instance lifetime (1h)";
        assert_eq!(check(&mut plugin, 7200.0), text);
        let never = Event::Other((EXPIRATION.into(), r#"{"expiration":0}"#.into()));
        plugin.handle(never, &mut Effects::default());
        assert_eq!(check(&mut plugin, 7200.0), "ok");
    }
}
