//! `policy.limits`: the longest duration, and the smallest and largest size that a job may ask
//! for; a queue's limits, and those of its parent (RFC 33), go before the general ones.

mod config;

use config::{Limits, Size};
use flux_plugin::prelude::*;
use flux_protocol::fsd;

struct PolicyLimits {
    limits: config::Config,
}

impl Plugin for PolicyLimits {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(PolicyLimits { limits: config::Config::parse(&context.broker_config)? })
    }

    fn configure(&mut self, _: &str, broker_config: &str) -> Result<(), String> {
        self.limits = config::Config::parse(broker_config)?;
        Ok(())
    }
}

impl Jobtap for PolicyLimits {
    fn handle(&mut self, event: Event, _: &mut Effects) -> Reply {
        let Event::Validate(job) = event else { return Reply::Pass };
        match self.check(&job) {
            Ok(()) => Reply::Pass,
            Err(text) => Reply::Refuse(refuse_with(errno::EINVAL, text)),
        }
    }
}

impl PolicyLimits {
    fn check(&self, job: &Job) -> Result<(), String> {
        let limits = self.limits.of(job.queue.as_deref());
        let queue = job.queue.as_ref().map(|queue| format!(" for queue {queue}"));
        let queue = queue.unwrap_or_default();
        check_duration(&limits, job.duration, &queue)?;
        if limits.min == Size::default() && limits.max == Size::default() {
            return Ok(());
        }
        let request = job.request.as_ref();
        let request = request.ok_or("Unable to determine resource counts")?;
        let nodes = request.nodes.map_or(0, |nodes| i64::from(nodes.min));
        let slots = i64::from(request.slots.min).saturating_mul(nodes.max(1));
        let size = [
            ("nnodes", nodes),
            ("ncores", slots.saturating_mul(i64::from(request.cores_per_slot))),
            ("ngpus", slots.saturating_mul(i64::from(request.gpus_per_slot))),
        ];
        for ((what, value), limit) in size.iter().zip(limits.max.0) {
            if let Some(limit) = limit.filter(|&limit| limit >= 0 && *value > limit) {
                return Err(format!(
                    "requested {what} ({value}) exceeds policy limit of {limit}{queue}"
                ));
            }
        }
        for ((what, value), limit) in size.iter().zip(limits.min.0) {
            if let Some(limit) = limit.filter(|&limit| limit >= 0 && *value < limit) {
                return Err(format!(
                    "requested {what} ({value}) is under policy limit of {limit}{queue}"
                ));
            }
        }
        Ok(())
    }
}

fn check_duration(limits: &Limits, duration: f64, queue: &str) -> Result<(), String> {
    let unlimited = duration == 0.0;
    match limits.duration {
        Some(limit) if limit > 0.0 && (unlimited || duration > limit) => {
            let text = |seconds| fsd::format_with_precision(seconds, 2).unwrap_or_default();
            let requested = if unlimited { "unlimited".to_owned() } else { text(duration) };
            let limit = text(limit);
            Err(format!("requested duration ({requested}) exceeds policy limit of {limit}{queue}"))
        }
        _ => Ok(()),
    }
}

flux_plugin::jobtap! {
    PolicyLimits,
    name: "limits",
    description: "Policy limits on duration and size",
    topics: ["job.validate"],
    capabilities: ["config:policy", "config:queues"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;
    use flux_plugin::types::{Count, Request};

    const CONFIG: &str = r#"{
        "policy":{"limits":{"duration":"2h","job-size":{"max":{"nnodes":8,"ncores":32}}}},
        "queues":{
            "debug":{"policy":{"limits":{"duration":"30m","job-size":{"max":{"nnodes":2},"min":{"ngpus":1}}}}},
            "free":{"policy":{"limits":{"duration":"0","job-size":{"max":{"nnodes":-1,"ncores":-1}}}}},
            "night":{"parent":"debug","policy":{"limits":{"duration":"1h"}}}
        }}"#;

    fn check(nodes: u32, cores: u32, duration: f64, queue: Option<&str>) -> String {
        let count = |n| Count { min: n, max: Some(n), step: None };
        let request = Request {
            nodes: (nodes > 0).then(|| count(nodes)),
            slots: count(1),
            cores_per_slot: cores,
            gpus_per_slot: u32::from(queue == Some("night")),
            exclusive: false,
        };
        let queue = queue.map(str::to_owned);
        let job = Job { request: Some(request), duration, queue, ..testing::job(1) };
        let plugin = PolicyLimits::init(&testing::context("{}", CONFIG)).unwrap();
        plugin.check(&job).err().unwrap_or_else(|| "ok".to_owned())
    }

    #[test]
    fn a_job_within_the_limits_passes_and_the_limit_itself_is_within() {
        assert_eq!(check(8, 4, 7200.0, None), "ok");
        assert_eq!(check(0, 32, 1.0, None), "ok");
    }

    #[test]
    fn what_is_over_is_refused_in_the_known_words() {
        let cases = [
            (check(9, 1, 60.0, None), "requested nnodes (9) exceeds policy limit of 8"),
            (check(0, 33, 60.0, None), "requested ncores (33) exceeds policy limit of 32"),
            (check(1, 1, 10800.0, None), "requested duration (3h) exceeds policy limit of 2h"),
            (check(1, 1, 0.0, None), "requested duration (unlimited) exceeds policy limit of 2h"),
            (
                check(1, 1, 7200.0, Some("debug")),
                "requested duration (2h) exceeds policy limit of 30m for queue debug",
            ),
            (
                check(3, 1, 60.0, Some("debug")),
                "requested nnodes (3) exceeds policy limit of 2 for queue debug",
            ),
            (
                check(1, 1, 60.0, Some("debug")),
                "requested ngpus (0) is under policy limit of 1 for queue debug",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_queue_may_lift_a_limit_and_inherits_from_its_parent() {
        assert_eq!(check(100, 100, 0.0, Some("free")), "ok");
        assert_eq!(check(2, 1, 3600.0, Some("night")), "ok");
        assert!(check(3, 1, 60.0, Some("night")).contains("limit of 2 for queue night"));
    }

    #[test]
    fn bad_limits_are_refused_by_name() {
        let error = |config: &str| config::Config::parse(config).err().unwrap_or_default();
        let cases = [
            (r#"{"policy":{"limits":{"duration":5}}}"#, "policy.limits.duration: "),
            (
                r#"{"policy":{"limits":{"duration":"x"}}}"#,
                "policy.limits.duration: FSD value is malformed",
            ),
            (
                r#"{"policy":{"limits":{"job-size":{"max":{"ncores":-5}}}}}"#,
                "policy.limits.job-size.max: size must be -1 (unlimited), or >= 0",
            ),
            (
                r#"{"queues":{"a":{"policy":{"limits":{"duration":"x"}}}}}"#,
                "queues.a.policy.limits.duration: FSD value is malformed",
            ),
            (r#"{"queues":{"a":{"parent":"b"}}}"#, "queues.a: parent queue 'b' is not configured"),
        ];
        for (config, expected) in cases {
            assert!(error(config).starts_with(expected), "{}", error(config));
        }
    }
}
