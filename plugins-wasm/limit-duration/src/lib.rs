//! `policy.limits.duration`: the longest duration that a job may ask for.

use flux_plugin::prelude::*;
use flux_protocol::fsd;
use limit_policy::Config;

struct LimitDuration {
    limits: Config,
}

impl Plugin for LimitDuration {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(LimitDuration { limits: Config::parse(&context.broker_config)? })
    }

    fn configure(&mut self, _: &str, broker_config: &str) -> Result<(), String> {
        self.limits = Config::parse(broker_config)?;
        Ok(())
    }
}

impl Jobtap for LimitDuration {
    fn handle(&mut self, event: Event, _: &mut Effects) -> Reply {
        let Event::Validate(job) = event else { return Reply::Pass };
        match self.check(&job) {
            Ok(()) => Reply::Pass,
            Err(text) => Reply::Refuse(refuse_with(errno::EINVAL, text)),
        }
    }
}

impl LimitDuration {
    fn check(&self, job: &Job) -> Result<(), String> {
        let limits = self.limits.of(job.queue.as_deref());
        let Some(limit) = limits.duration.filter(|&limit| limit > 0.0) else { return Ok(()) };
        let unlimited = job.duration == 0.0;
        if !unlimited && job.duration <= limit {
            return Ok(());
        }
        let text = |seconds| fsd::format_with_precision(seconds, 2).unwrap_or_default();
        let requested = if unlimited { "unlimited".to_owned() } else { text(job.duration) };
        let limit = text(limit);
        let queue = job.queue.as_ref().map(|queue| format!(" for queue {queue}"));
        let queue = queue.unwrap_or_default();
        Err(format!("requested duration ({requested}) exceeds policy limit of {limit}{queue}"))
    }
}

flux_plugin::jobtap! {
    LimitDuration,
    name: "limit-duration",
    description: "Policy limits on duration",
    topics: ["job.validate"],
    capabilities: ["config:policy", "config:queues"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    const CONFIG: &str = r#"{
        "policy":{"limits":{"duration":"2h"}},
        "queues":{
            "debug":{"policy":{"limits":{"duration":"30m"}}},
            "free":{"policy":{"limits":{"duration":"0"}}},
            "night":{"parent":"debug","policy":{"limits":{"duration":"1h"}}}
        }}"#;

    fn check(duration: f64, queue: Option<&str>) -> String {
        let job = Job { duration, queue: queue.map(str::to_owned), ..testing::job(1) };
        let plugin = LimitDuration::init(&testing::context("{}", CONFIG)).unwrap();
        plugin.check(&job).err().unwrap_or_else(|| "ok".to_owned())
    }

    #[test]
    fn the_limit_itself_is_within_and_what_is_over_is_refused_in_the_known_words() {
        assert_eq!(check(7200.0, None), "ok");
        let cases = [
            (check(10800.0, None), "requested duration (3h) exceeds policy limit of 2h"),
            (check(0.0, None), "requested duration (unlimited) exceeds policy limit of 2h"),
            (
                check(7200.0, Some("debug")),
                "requested duration (2h) exceeds policy limit of 30m for queue debug",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_queue_may_lift_the_limit_and_inherits_from_its_parent() {
        assert_eq!(check(0.0, Some("free")), "ok");
        assert_eq!(check(3600.0, Some("night")), "ok");
    }
}
