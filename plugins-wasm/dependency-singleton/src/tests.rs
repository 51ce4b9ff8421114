use super::*;
use flux_plugin::testing;
use flux_plugin::types::{DependencyRequest, JobNew, Origin, StateChange};

struct World {
    plugin: Singleton,
}

fn world() -> World {
    testing::reset();
    World { plugin: Singleton::default() }
}

fn entry(name: &str) -> Entry {
    Entry { timestamp: 0.0, name: name.to_owned(), context: "{}".to_owned() }
}

impl World {
    fn call(&mut self, event: Event) -> (Reply, Vec<Effect>) {
        let mut effects = Effects::default();
        let reply = self.plugin.handle(event, &mut effects);
        let mut list = effects.into_list();
        list.retain(|effect| !matches!(effect, Effect::Explain(_)));
        (reply, list)
    }

    /// Effects as "+text", "-text" of the waiting job, or the refusal.
    fn depend(&mut self, job: &Job, scheme: &str, value: &str) -> String {
        let request = DependencyRequest {
            job: job.clone(),
            scheme: scheme.to_owned(),
            value: value.to_owned(),
            dependency: "{}".to_owned(),
        };
        match self.call(Event::Dependency(request)) {
            (Reply::Refuse(refusal), _) => refusal.text,
            (Reply::Accept, effects) => describe(&effects),
            (reply, _) => format!("{reply:?}"),
        }
    }

    fn arrive(&mut self, job: &Job) {
        let news = JobNew { job: job.clone(), origin: Origin::Submitted };
        self.call(Event::New(news));
    }

    fn end(&mut self, job: &Job) -> String {
        let job = Job { state: JobState::Inactive, ..job.clone() };
        let change = StateChange { job, previous: JobState::Cleanup, entry: entry("clean") };
        describe(&self.call(Event::State(change)).1)
    }
}

fn describe(effects: &[Effect]) -> String {
    let text = |effect: &Effect| match effect {
        Effect::DependencyAdd(note) => format!("{}+{}", note.id, note.text),
        Effect::DependencyRemove(note) => format!("{}-{}", note.id, note.text),
        other => format!("{other:?}"),
    };
    effects.iter().map(text).collect::<Vec<_>>().join("; ")
}

#[test]
fn singletons_run_one_after_the_other() {
    let mut world = world();
    let named = |id| Job { name: "solo".to_owned(), named: true, ..testing::job(id) };
    assert_eq!(world.depend(&named(1), "singleton", ""), "");
    world.arrive(&named(1));
    for id in [2, 3] {
        assert_eq!(world.depend(&named(id), "singleton", ""), format!("{id}+singleton"));
        world.arrive(&named(id));
    }
    assert_eq!(world.end(&named(1)), "2-singleton");
    assert_eq!(world.end(&named(2)), "3-singleton");
    assert_eq!(world.end(&named(3)), "");
    assert_eq!(world.plugin.query(), "{}");
    assert_eq!(
        world.depend(&testing::job(4), "singleton", ""),
        "singleton jobs require a job name"
    );
}

#[test]
fn singleton_that_is_cancelled_while_it_waits_frees_its_place() {
    let mut world = world();
    let named = |id| Job { name: "solo".to_owned(), named: true, ..testing::job(id) };
    world.arrive(&named(1));
    for id in [2, 3] {
        world.depend(&named(id), "singleton", "");
        world.arrive(&named(id));
    }
    assert_eq!(world.end(&named(2)), "");
    assert_eq!(world.end(&named(1)), "3-singleton");
}

#[test]
fn a_job_that_is_refused_in_the_end_keeps_nobody_waiting() {
    let mut world = world();
    let named = |id| Job { name: "solo".to_owned(), named: true, ..testing::job(id) };
    world.arrive(&named(1));
    world.depend(&named(2), "singleton", "");
    world.call(Event::Destroy(2));
    world.depend(&named(3), "singleton", "");
    world.arrive(&named(3));
    assert_eq!(describe(&world.call(Event::Destroy(1)).1), "3-singleton");
}
