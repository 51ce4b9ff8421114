//! What makes an entry run: time that passes, events, or times of the clock.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Object;
use serde_json::{Value, json};

use super::datetime::Datetime;
use crate::trace::glob;

#[derive(Debug)]
pub(super) enum Schedule {
    Interval(Interval),
    Event(Event),
    Datetime(Datetime),
}

/// Every so many seconds, first after others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) interval: f64,
    pub(super) after: f64,
}

/// On events of a topic, or of a pattern of topics.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) topic: String,
    /// Only at every nth; 0 is each.
    pub(super) nth: u64,
    /// Not before so many have come.
    pub(super) after: u64,
    /// Seconds between two runs.
    pub(super) min_interval: f64,
    pub(super) counter: u64,
}

// === impl Schedule ===

impl Schedule {
    /// ENOSYS: no such kind. EPROTO, EINVAL: not its arguments.
    pub(super) fn parse(kind: &str, args: &Object) -> Result<Schedule, Failure> {
        match kind {
            "interval" => Interval::parse(args).map(Schedule::Interval),
            "event" => Event::parse(args).map(Schedule::Event),
            "datetime" => Datetime::parse(args).map(Schedule::Datetime),
            _ => Err(Errno::ENOSYS.into()),
        }
    }

    /// As an entry shows it; `next` is when it runs next, in seconds since 1970.
    pub(super) fn typedata(&self, next: f64) -> Object {
        let mut object = match self {
            Schedule::Interval(Interval { interval, after }) => {
                pairs([("interval", json!(interval)), ("after", json!(after))])
            }
            Schedule::Event(event) => {
                return pairs([
                    ("topic", json!(event.topic)),
                    ("nth", json!(event.nth)),
                    ("after", json!(event.after)),
                    ("counter", json!(event.counter)),
                    ("min_interval", json!(event.min_interval)),
                ]);
            }
            Schedule::Datetime(datetime) => datetime.describe(),
        };
        object.insert("next_wakeup".to_owned(), json!(next));
        object
    }
}

impl Interval {
    fn parse(args: &Object) -> Result<Interval, Failure> {
        let interval = seconds(args, "interval")?.ok_or(Errno::EPROTO)?;
        let after = seconds(args, "after")?.filter(|after| *after >= 0.0).unwrap_or(interval);
        if interval < 0.0 {
            return Err(Errno::EINVAL.into());
        }
        Ok(Interval { interval, after })
    }
}

impl Event {
    fn parse(args: &Object) -> Result<Event, Failure> {
        let topic = args.get("topic").and_then(Value::as_str).ok_or(Errno::EPROTO)?;
        let count = |name: &str| match args.get(name) {
            None => Ok(0),
            Some(value) => value.as_u64().ok_or(Errno::EPROTO),
        };
        Ok(Event {
            topic: topic.to_owned(),
            nth: count("nth")?,
            after: count("after")?,
            min_interval: seconds(args, "min_interval")?.unwrap_or(0.0),
            counter: 0,
        })
    }

    /// What to subscribe to: the topic up to its first wildcard.
    pub(super) fn prefix(&self) -> &str {
        self.topic.split(['*', '?', '[']).next().unwrap_or_default()
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        glob(&self.topic, topic)
    }

    /// Count an event; true where the entry is to run.
    pub(super) fn count(&mut self) -> bool {
        self.counter += 1;
        let Some(since) = self.counter.checked_sub(self.after) else { return false };
        self.nth == 0 || since.is_multiple_of(self.nth)
    }
}

fn seconds(args: &Object, name: &str) -> Result<Option<f64>, Failure> {
    match args.get(name) {
        None => Ok(None),
        Some(value) => {
            let number = value.as_f64().filter(|number| number.is_finite());
            Ok(Some(number.ok_or(Errno::EPROTO)?))
        }
    }
}

fn pairs<const N: usize>(pairs: [(&str, Value); N]) -> Object {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(args: Value) -> Event {
        Event::parse(&serde_json::from_value(args).unwrap()).unwrap()
    }

    #[test]
    fn events_are_counted_before_they_make_it_run() {
        let runs = |args| {
            let mut event = event(args);
            (1..=6).filter(|_| event.count()).collect::<Vec<_>>()
        };
        assert_eq!(runs(json!({"topic": "a"})), [1, 2, 3, 4, 5, 6]);
        assert_eq!(runs(json!({"topic": "a", "nth": 2})), [2, 4, 6]);
        assert_eq!(runs(json!({"topic": "a", "after": 3})), [3, 4, 5, 6]);
        assert_eq!(runs(json!({"topic": "a", "after": 2, "nth": 3})), [2, 5]);
    }

    #[test]
    fn topic_may_be_a_pattern() {
        let event = event(json!({"topic": "job.*"}));
        assert_eq!(event.prefix(), "job.");
        assert!(event.matches("job.state") && !event.matches("jobs"));
    }

    #[test]
    fn arguments_of_another_kind_are_refused() {
        let parse = |kind, args: Value| {
            Schedule::parse(kind, &serde_json::from_value(args).unwrap()).map_err(|f| f.errno)
        };
        assert_eq!(parse("interval", json!({})).unwrap_err(), Errno::EPROTO);
        assert_eq!(parse("interval", json!({"interval": -1})).unwrap_err(), Errno::EINVAL);
        assert_eq!(parse("event", json!({"nth": 1})).unwrap_err(), Errno::EPROTO);
        assert_eq!(parse("datetime", json!({"hour": "x"})).unwrap_err(), Errno::EINVAL);
        assert_eq!(parse("never", json!({})).unwrap_err(), Errno::ENOSYS);
        let Ok(Schedule::Interval(interval)) = parse("interval", json!({"interval": 3})) else {
            panic!("an interval");
        };
        assert_eq!(interval, Interval { interval: 3.0, after: 3.0 });
    }
}
