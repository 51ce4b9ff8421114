//! `policy.limits.job-size`: the smallest and the largest job, in nodes, cores and GPUs.

use flux_plugin::prelude::*;
use limit_policy::{Config, Size};

struct LimitJobSize {
    limits: Config,
}

impl Plugin for LimitJobSize {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(LimitJobSize { limits: Config::parse(&context.broker_config)? })
    }

    fn configure(&mut self, _: &str, broker_config: &str) -> Result<(), String> {
        self.limits = Config::parse(broker_config)?;
        Ok(())
    }
}

impl Jobtap for LimitJobSize {
    fn handle(&mut self, event: Event, _: &mut Effects) -> Reply {
        let Event::Validate(job) = event else { return Reply::Pass };
        match self.check(&job) {
            Ok(()) => Reply::Pass,
            Err(text) => Reply::Refuse(refuse_with(errno::EINVAL, text)),
        }
    }
}

impl LimitJobSize {
    fn check(&self, job: &Job) -> Result<(), String> {
        let limits = self.limits.of(job.queue.as_deref());
        let queue = job.queue.as_ref().map(|queue| format!(" for queue {queue}"));
        let queue = queue.unwrap_or_default();
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

flux_plugin::jobtap! {
    LimitJobSize,
    name: "limit-job-size",
    description: "Policy limits on size",
    topics: ["job.validate"],
    capabilities: ["config:policy", "config:queues"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;
    use flux_plugin::types::{Count, Request};

    const CONFIG: &str = r#"{
        "policy":{"limits":{"job-size":{"max":{"nnodes":8,"ncores":32}}}},
        "queues":{
            "debug":{"policy":{"limits":{"job-size":{"max":{"nnodes":2},"min":{"ngpus":1}}}}},
            "free":{"policy":{"limits":{"job-size":{"max":{"nnodes":-1,"ncores":-1}}}}},
            "night":{"parent":"debug"}
        }}"#;

    fn check(nodes: u32, cores: u32, queue: Option<&str>) -> String {
        let count = |n| Count { min: n, max: Some(n), step: None };
        let request = Request {
            nodes: (nodes > 0).then(|| count(nodes)),
            slots: count(1),
            cores_per_slot: cores,
            gpus_per_slot: u32::from(queue == Some("night")),
            exclusive: false,
        };
        let queue = queue.map(str::to_owned);
        let job = Job { request: Some(request), queue, ..testing::job(1) };
        let plugin = LimitJobSize::init(&testing::context("{}", CONFIG)).unwrap();
        plugin.check(&job).err().unwrap_or_else(|| "ok".to_owned())
    }

    #[test]
    fn the_limit_itself_is_within_and_what_is_over_is_refused_in_the_known_words() {
        assert_eq!((check(8, 4, None), check(0, 32, None)), ("ok".into(), "ok".into()));
        let cases = [
            (check(9, 1, None), "requested nnodes (9) exceeds policy limit of 8"),
            (check(0, 33, None), "requested ncores (33) exceeds policy limit of 32"),
            (
                check(3, 1, Some("debug")),
                "requested nnodes (3) exceeds policy limit of 2 for queue debug",
            ),
            (
                check(1, 1, Some("debug")),
                "requested ngpus (0) is under policy limit of 1 for queue debug",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_queue_may_lift_a_limit_and_inherits_from_its_parent() {
        assert_eq!(check(100, 100, Some("free")), "ok");
        assert!(check(3, 1, Some("night")).contains("limit of 2 for queue night"));
    }
}
