//! Holds a job in DEPEND until a time that its dependency `begin-time:SECONDS` names.

use flux_plugin::prelude::*;
use flux_plugin::types::DependencyRequest;
use std::collections::BTreeMap;

#[derive(Default)]
struct BeginTime {
    /// Text of the dependency by job.
    waiting: BTreeMap<JobId, String>,
}

impl Plugin for BeginTime {
    fn init(_: &Context) -> Result<Self, String> {
        Ok(BeginTime::default())
    }

    fn query(&self) -> String {
        serde_json::json!({ "waiting": self.waiting.len() }).to_string()
    }
}

impl Jobtap for BeginTime {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::Dependency(request) => return self.depend(request, effects),
            Event::Timer(name) => {
                if let Some(id) = job_of(&name)
                    && let Some(text) = self.waiting.remove(&id)
                {
                    effects.remove_dependency(id, text);
                    effects.unsubscribe(id);
                }
            }
            // A job that ends early needs no timer any more.
            Event::Posted(posted)
                if posted.entry.name == "clean"
                    && self.waiting.remove(&posted.job.id).is_some() =>
            {
                effects.cancel_timer(timer_of(posted.job.id));
            }
            _ => {}
        }
        Reply::Pass
    }
}

impl BeginTime {
    fn depend(&mut self, request: DependencyRequest, effects: &mut Effects) -> Reply {
        let id = request.job.id;
        let time = request.value.parse::<f64>();
        let time = time.ok().filter(|time| time.is_finite() && *time >= 0.0);
        let Some(time) = time else {
            let text = format!("Invalid begin-time={}", request.value);
            return Reply::Refuse(refuse_with(errno::EINVAL, text));
        };
        let text = format!("begin-time={time:.3}");
        effects.add_dependency(id, text.clone());
        effects.subscribe(id);
        effects.set_timer(timer_of(id), time, None);
        effects.explain(id, format!("waits until its begin time {time:.0}"));
        self.waiting.insert(id, text);
        Reply::Accept
    }
}

fn timer_of(id: JobId) -> String {
    format!("job-{id}")
}

fn job_of(timer: &str) -> Option<JobId> {
    timer.strip_prefix("job-")?.parse().ok()
}

flux_plugin::jobtap! {
    BeginTime,
    name: "begin-time",
    description: "Hold a job until its begin time",
    topics: ["job.dependency.begin-time", "job.event.clean"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;
    use flux_plugin::types::{EventPosted, JobNote};

    fn depend(plugin: &mut BeginTime, value: &str) -> (Reply, Vec<Effect>) {
        let request = DependencyRequest {
            job: testing::job(9),
            scheme: "begin-time".to_owned(),
            value: value.to_owned(),
            dependency: "{}".to_owned(),
        };
        call(plugin, Event::Dependency(request))
    }

    fn call(plugin: &mut BeginTime, event: Event) -> (Reply, Vec<Effect>) {
        let mut effects = Effects::default();
        let reply = plugin.handle(event, &mut effects);
        (reply, effects.into_list())
    }

    #[test]
    fn a_job_waits_for_the_timer_and_goes_on() {
        let mut plugin = BeginTime::default();
        let (reply, effects) = depend(&mut plugin, "1795361379.485");
        assert_eq!(reply, Reply::Accept);
        let note = JobNote { id: 9, text: "begin-time=1795361379.485".to_owned() };
        assert_eq!(effects[0], Effect::DependencyAdd(note.clone()));
        assert!(matches!(&effects[2], Effect::SetTimer(t) if t.at == 1795361379.485));
        let (_, effects) = call(&mut plugin, Event::Timer("job-9".to_owned()));
        assert_eq!(effects[0], Effect::DependencyRemove(note));
        assert_eq!(call(&mut plugin, Event::Timer("job-9".to_owned())).1, []);
    }

    #[test]
    fn a_time_that_is_none_is_refused() {
        for value in ["x", "-1", "nan", "inf", ""] {
            let (reply, effects) = depend(&mut BeginTime::default(), value);
            let text = format!("Invalid begin-time={value}");
            assert_eq!(reply, Reply::Refuse(refuse_with(errno::EINVAL, text)));
            assert_eq!(effects, []);
        }
    }

    #[test]
    fn the_timer_of_a_job_that_ended_is_cancelled() {
        let mut plugin = BeginTime::default();
        depend(&mut plugin, "99");
        let entry = Entry { timestamp: 0.0, name: "clean".into(), context: "{}".into() };
        let clean = EventPosted { job: testing::job(9), entry };
        let (_, effects) = call(&mut plugin, Event::Posted(clean));
        assert_eq!(effects, [Effect::CancelTimer("job-9".to_owned())]);
    }
}
