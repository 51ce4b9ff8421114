use super::*;
use flux_plugin::testing;
use flux_plugin::types::{DependencyRequest, EventPosted, StateChange};
use flux_protocol::fluid::JobId as Fluid;

struct World {
    plugin: Dependency,
}

fn world() -> World {
    testing::reset();
    World { plugin: Dependency::default() }
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
        Effect::Raise(raise) => format!("{}!{} {}", raise.id, raise.severity, raise.note),
        Effect::Subscribe(id) => format!("watch {id}"),
        Effect::Unsubscribe(id) => format!("leave {id}"),
        other => format!("{other:?}"),
    };
    effects.iter().map(text).collect::<Vec<_>>().join("; ")
}

/// A running job 1, and what it becomes.
fn running() -> Job {
    let job = Job { state: JobState::Run, ..testing::job(1) };
    testing::put_job(job.clone());
    testing::put_event(1, "alloc");
    job
}

fn over(result: JobResult, end: &str) -> Job {
    let job = Job {
        state: JobState::Inactive,
        job_result: Some(result),
        end_event: Some(end.to_owned()),
        ..testing::job(1)
    };
    testing::put_job(job.clone());
    job
}

#[test]
fn waiting_jobs_go_on_or_fail_by_how_the_other_ends() {
    let cases = [
        ("afterok", JobResult::Completed, "finish", "2-after-success=1"),
        (
            "afterok",
            JobResult::Failed,
            "finish",
            "2!0 dependency after-success=1 can never be satisfied",
        ),
        ("afterany", JobResult::Failed, "finish", "2-after-finish=1"),
        ("afternotok", JobResult::Failed, "finish", "2-after-failure=1"),
        (
            "afternotok",
            JobResult::Completed,
            "finish",
            "2!0 dependency after-failure=1 can never be satisfied",
        ),
        ("afterexcept", JobResult::Canceled, "exception", "2-after-except=1"),
        (
            "afterexcept",
            JobResult::Failed,
            "finish",
            "2!0 dependency after-except=1 can never be satisfied",
        ),
    ];
    for (scheme, result, end, expected) in cases {
        let mut world = world();
        running();
        let added = world.depend(&testing::job(2), scheme, "1");
        assert!(added.starts_with("2+after-") && added.ends_with("=1"), "{added}");
        assert_eq!(world.end(&over(result, end)), expected, "{scheme}");
    }
}

#[test]
fn afterstart_is_satisfied_by_the_start() {
    let mut world = world();
    let first = running();
    assert_eq!(world.depend(&testing::job(2), "afterstart", "1"), "2+after-start=1; watch 1");
    let posted = EventPosted { job: first, entry: entry("start") };
    let (_, effects) = world.call(Event::Posted(posted));
    assert_eq!(describe(&effects), "2-after-start=1; leave 1");
    testing::put_event(1, "start");
    assert_eq!(
        world.depend(&testing::job(3), "afterstart", "1"),
        "3+after-start=1; 3-after-start=1"
    );
    let deprecated = "3!3 dependency scheme 'after' is deprecated, use 'afterstart'";
    assert!(world.depend(&testing::job(3), "after", "1").starts_with(deprecated));
}

#[test]
fn a_job_that_never_ran_satisfies_afterany_alone() {
    let mut world = world();
    testing::put_job(testing::job(1));
    for (id, scheme) in [(2, "afterany"), (3, "afternotok")] {
        world.depend(&testing::job(id), scheme, "1");
    }
    let expected = "2-after-finish=1; 3!0 dependency after-failure=1 job never started";
    assert_eq!(world.end(&over(JobResult::Canceled, "exception")), expected);
}

#[test]
fn a_job_that_is_over_satisfies_or_refuses_at_once() {
    let mut world = world();
    running();
    over(JobResult::Failed, "finish");
    let second = testing::job(2);
    assert_eq!(world.depend(&second, "afternotok", "1"), "2+after-failure=1; 2-after-failure=1");
    assert_eq!(
        world.depend(&second, "afterok", "1"),
        "dependency: afterok: job 1 failed or was canceled"
    );
    assert_eq!(
        world.depend(&second, "afterexcept", "1"),
        "dependency: afterexcept: job 1: no exception"
    );
    assert_eq!(world.depend(&second, "afterstart", "1"), "dependency: after: 1 never started");
}

#[test]
fn bad_targets_are_refused_in_the_known_words() {
    let mut world = world();
    testing::put_job(Job { userid: 7, ..testing::job(1) });
    let second = testing::job(2);
    let cases = [
        ("nojob", "dependency: afterok: \"nojob\" is not a valid jobid"),
        ("99", "dependency: afterok: id 99: job not found"),
        ("1", "afterok: Permission denied for job 1"),
    ];
    for (value, expected) in cases {
        assert_eq!(world.depend(&second, "afterok", value), expected);
    }
}

#[test]
fn job_ids_may_be_written_in_any_form() {
    let mut world = world();
    let id = 43_218_120_704;
    testing::put_job(Job { state: JobState::Run, ..testing::job(id) });
    let name = Fluid(id).f58();
    let expected = format!("2+after-success={name}");
    assert_eq!(world.depend(&testing::job(2), "afterok", &name), expected);
}
