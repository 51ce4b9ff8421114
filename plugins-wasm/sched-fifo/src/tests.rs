use super::*;
use flux_plugin::testing;
use flux_plugin::types::{
    Count, ExpirationRequest, FeasibilityRequest, Freed, Request, ResourceSet, Targets,
};

fn fifo() -> Fifo {
    testing::reset();
    testing::set_now(1000.0);
    let mut fifo = Fifo::init(&testing::context("{}", "{}")).unwrap();
    let set = ResourceSet {
        targets: cores("0-1", "0-1"),
        nodelist: "n[0-1]".to_owned(),
        properties: Vec::new(),
        starttime: 0.0,
        expiration: 0.0,
        scheduling: None,
    };
    tell(&mut fifo, Change::Resources(set));
    tell(&mut fifo, Change::Up("0-1".to_owned()));
    fifo
}

fn cores(ranks: &str, cores: &str) -> Vec<Targets> {
    let children = vec![("core".to_owned(), cores.to_owned())];
    vec![Targets { ranks: ranks.to_owned(), children }]
}

fn job(id: JobId, priority: u32, slots: u32) -> Job {
    let request = Request {
        nodes: None,
        slots: Count { min: slots, max: Some(slots), step: None },
        cores_per_slot: 1,
        gpus_per_slot: 0,
        exclusive: false,
    };
    Job { priority: Some(priority), request: Some(request), ..testing::job(id) }
}

fn tell(fifo: &mut Fifo, change: Change) -> Vec<Decision> {
    let mut decisions = Vec::new();
    fifo.update(change, &mut decisions);
    decisions
}

/// Ids of the jobs that are started by a pass.
fn started(fifo: &mut Fifo) -> Vec<JobId> {
    let started = |decision| match decision {
        Decision::Allocate(allocation) => Some(allocation.id),
        _ => None,
    };
    fifo.schedule(1.0).decisions.into_iter().filter_map(started).collect()
}

#[test]
fn jobs_start_by_priority_then_by_id() {
    let mut fifo = fifo();
    let jobs = vec![job(3, 16, 1), job(1, 16, 1), job(2, 30, 1), job(4, 16, 2)];
    tell(&mut fifo, Change::Alloc(jobs));
    assert_eq!(started(&mut fifo), [2, 1, 3]);
    tell(&mut fifo, Change::Free(vec![Freed { id: 1, resources: Vec::new(), final_: true }]));
    assert_eq!(started(&mut fifo), [4]);
}

#[test]
fn blocked_head_blocks_the_rest() {
    let mut fifo = fifo();
    tell(&mut fifo, Change::Alloc(vec![job(1, 16, 3), job(2, 16, 2), job(3, 16, 1)]));
    assert_eq!(started(&mut fifo), [1]);
    assert_eq!(tell(&mut fifo, Change::Cancel(vec![2, 99])), [Decision::Canceled(2)]);
    assert_eq!(started(&mut fifo), [3]);
}

/// Only the return of its node can help it, perhaps in days; it has its turn again then.
#[test]
fn a_job_that_waits_for_a_drained_node_keeps_nobody_waiting() {
    let mut fifo = fifo();
    tell(&mut fifo, Change::Down("1".to_owned()));
    let rank1 = Some(r#"{"ranks":["1"]}"#.to_owned());
    let bound = Job { constraints: rank1, ..job(1, 20, 2) };
    tell(&mut fifo, Change::Alloc(vec![bound, job(2, 16, 1), job(3, 16, 4), job(4, 16, 1)]));
    assert_eq!(started(&mut fifo), [2, 4]);
    tell(&mut fifo, Change::Alloc(vec![job(5, 16, 2), job(6, 16, 1)]));
    assert!(started(&mut fifo).is_empty(), "a job that only waits for its turn was overtaken");
    assert_eq!(tell(&mut fifo, Change::Cancel(vec![3])), [Decision::Canceled(3)]);
    tell(&mut fifo, Change::Up("1".to_owned()));
    assert_eq!(started(&mut fifo), [1]);
    tell(&mut fifo, Change::Free(vec![Freed { id: 1, resources: Vec::new(), final_: true }]));
    assert_eq!(started(&mut fifo), [5]);
}

fn on(rank: &str, job: Job) -> Job {
    Job { constraints: Some(format!(r#"{{"ranks":["{rank}"]}}"#)), ..job }
}

#[test]
fn a_job_passes_those_that_wait_for_nodes_that_it_cannot_use() {
    let mut fifo = fifo();
    let jobs = vec![on("0", job(1, 16, 2)), on("0", job(2, 16, 1)), on("1", job(3, 16, 1))];
    tell(&mut fifo, Change::Alloc(jobs));
    assert_eq!(started(&mut fifo), [1, 3]);
    // A job that could use any node waits as well, and none behind it may have what it waits for.
    tell(&mut fifo, Change::Alloc(vec![job(4, 16, 2), on("1", job(5, 16, 1))]));
    assert!(started(&mut fifo).is_empty());
    assert_eq!(tell(&mut fifo, Change::Cancel(vec![4])), [Decision::Canceled(4)]);
    assert_eq!(started(&mut fifo), [5]);
    // Among those that pass, there is an order, too.
    tell(&mut fifo, Change::Alloc(vec![on("1", job(6, 16, 2)), on("1", job(7, 16, 1))]));
    tell(&mut fifo, Change::Free(vec![Freed { id: 3, resources: Vec::new(), final_: true }]));
    assert!(started(&mut fifo).is_empty());
    tell(&mut fifo, Change::Free(vec![Freed { id: 5, resources: Vec::new(), final_: true }]));
    assert_eq!(started(&mut fifo), [6]);
}

/// Depths that were told.
fn depths(fifo: &mut Fifo) -> Vec<String> {
    let depth = |decision| match decision {
        Decision::Effect(Effect::Other((name, json))) if name == "queue-depth" => Some(json),
        _ => None,
    };
    fifo.schedule(1.0).decisions.into_iter().filter_map(depth).collect()
}

#[test]
fn jobs_that_wait_for_a_drained_node_do_not_count_as_taken() {
    let mut fifo = fifo();
    tell(&mut fifo, Change::Down("1".to_owned()));
    tell(&mut fifo, Change::Alloc((1..=8).map(|id| on("1", job(id, 16, 2))).collect()));
    assert_eq!(depths(&mut fifo), ["16"]);
    assert!(depths(&mut fifo).is_empty());
    tell(&mut fifo, Change::Cancel(vec![8]));
    assert_eq!(depths(&mut fifo), ["15"]);
    // They are back in their places.
    tell(&mut fifo, Change::Up("1".to_owned()));
    assert_eq!(depths(&mut fifo), ["8"]);
}

#[test]
fn priorities_may_change_while_jobs_wait() {
    let mut fifo = fifo();
    tell(&mut fifo, Change::Alloc(vec![job(1, 16, 4), job(2, 16, 4), job(3, 16, 4)]));
    assert_eq!(started(&mut fifo), [1]);
    tell(&mut fifo, Change::Prioritize(vec![(3, 20), (9, 1)]));
    tell(&mut fifo, Change::Free(vec![Freed { id: 1, resources: Vec::new(), final_: true }]));
    assert_eq!(started(&mut fifo), [3]);
}

#[test]
fn what_can_never_run_is_denied_and_does_not_block() {
    let mut fifo = fifo();
    let unreadable = Job { request: None, ..job(7, 16, 1) };
    let denied = tell(&mut fifo, Change::Alloc(vec![job(1, 16, 5), job(2, 16, 1), unreadable]));
    assert!(matches!(denied.as_slice(), [Decision::Deny(denial)] if denial.id == 7));
    let decisions = fifo.schedule(1.0).decisions;
    let [Decision::Deny(denial), Decision::Allocate(allocation)] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    assert!(denial.note.starts_with("unsatisfiable request: need 5 slot(s)"), "{}", denial.note);
    assert_eq!(allocation.id, 2);
}

#[test]
fn allocation_says_what_was_given_and_until_when() {
    let mut fifo = fifo();
    let timed = Job { duration: 60.0, ..job(1, 16, 3) };
    tell(&mut fifo, Change::Alloc(vec![timed]));
    let decisions = fifo.schedule(1.0).decisions;
    let [Decision::Allocate(allocation)] = decisions.as_slice() else { panic!("{decisions:?}") };
    assert_eq!((allocation.starttime, allocation.expiration), (1000.0, 1060.0));
    assert_eq!(allocation.nslots, 3);
    let annotations = r#"{"resource_summary":"rank0/core[0-1] rank1/core0"}"#;
    assert_eq!(allocation.annotations.as_deref(), Some(annotations));
}

#[test]
fn instance_that_ends_ends_its_jobs() {
    let mut fifo = fifo();
    tell(&mut fifo, Change::Expiration(5000.0));
    tell(&mut fifo, Change::Alloc(vec![job(1, 16, 1)]));
    let decisions = fifo.schedule(1.0).decisions;
    assert!(matches!(&decisions[0], Decision::Allocate(a) if a.expiration == 5000.0));
}

#[test]
fn waiting_jobs_get_an_estimate_which_is_withdrawn_when_they_start() {
    let mut fifo = fifo();
    let timed = |id| Job { duration: 60.0, ..job(id, 16, 4) };
    tell(&mut fifo, Change::Alloc(vec![timed(1), timed(2), timed(3)]));
    let annotations = |decisions: Vec<Decision>| -> Vec<(JobId, String)> {
        let annotation = |decision| match decision {
            Decision::Annotate(annotation) => Some((annotation.id, annotation.annotations)),
            _ => None,
        };
        decisions.into_iter().filter_map(annotation).collect()
    };
    let expected = |id, t: f64| (id, format!(r#"{{"t_estimate":{t:?}}}"#));
    let seen = annotations(fifo.schedule(1.0).decisions);
    assert_eq!(seen, [expected(2, 1060.0), expected(3, 1120.0)]);
    testing::set_now(1030.0);
    tell(&mut fifo, Change::Free(vec![Freed { id: 1, resources: Vec::new(), final_: true }]));
    let decisions = fifo.schedule(1.0).decisions;
    let Some(Decision::Allocate(allocation)) = decisions.first() else { panic!("{decisions:?}") };
    let text = allocation.annotations.clone().unwrap();
    assert!(text.ends_with(r#","t_estimate":null}"#), "{text}");
    assert_eq!(annotations(decisions), [expected(3, 1090.0)]);
}

#[test]
fn feasibility_and_expiration_are_answered() {
    let mut fifo = fifo();
    let ask =
        |token, slots| FeasibilityRequest { token, job: job(0, 16, slots), jobspec: "{}".into() };
    assert_eq!(tell(&mut fifo, Change::Feasibility(ask(1, 4))), [Decision::Accept(1)]);
    let refused = tell(&mut fifo, Change::Feasibility(ask(2, 5)));
    assert!(matches!(&refused[0], Decision::Refuse(r) if r.refusal.errnum == errno::EOVERFLOW));
    let move_end = |id| Change::JobExpiration(ExpirationRequest { token: 3, id, expiration: 9.0 });
    assert!(matches!(tell(&mut fifo, move_end(1)).as_slice(), [Decision::Refuse(_)]));
    tell(&mut fifo, Change::Alloc(vec![job(1, 16, 1)]));
    started(&mut fifo);
    assert_eq!(tell(&mut fifo, move_end(1)), [Decision::Accept(3)]);
}

#[test]
fn queue_depth_is_configurable() {
    let depth = |config: &str| {
        let config = testing::context(config, "{}");
        Fifo::init(&config).map(|mut fifo| fifo.ready()).map_err(|e| e.contains("queue-depth"))
    };
    assert!(matches!(depth("{}"), Ok(Depth::Limited(8))));
    assert!(matches!(depth(r#"{"queue-depth":3}"#), Ok(Depth::Limited(3))));
    assert!(matches!(depth(r#"{"queue-depth":"unlimited"}"#), Ok(Depth::Unlimited)));
    assert!(matches!(depth(r#"{"mode":"limited=5"}"#), Ok(Depth::Limited(5))));
    assert!(matches!(depth(r#"{"mode":"limited=0"}"#), Err(true)));
}

/// What is explained to jobs by a pass.
fn reasons(fifo: &mut Fifo) -> Vec<(JobId, String)> {
    let reason = |decision| match decision {
        Decision::Effect(Effect::Explain(note)) => Some((note.id, note.text)),
        _ => None,
    };
    fifo.schedule(1.0).decisions.into_iter().filter_map(reason).collect()
}

#[test]
fn jobs_that_wait_are_told_what_they_lack_when_that_changes() {
    let mut fifo = fifo();
    tell(&mut fifo, Change::Alloc(vec![job(1, 16, 3), job(2, 16, 4), job(3, 16, 1)]));
    let first = "needs 4 slot(s) of 1 core(s), 1 of 4 are free".to_owned();
    let second = "needs 1 slot(s) of 1 core(s), 1 of 4 are free; 1 job(s) ahead in the queue";
    assert_eq!(reasons(&mut fifo), [(2, first), (3, second.to_owned())]);
    testing::set_now(1002.0);
    tell(&mut fifo, Change::Timer("forecast".to_owned()));
    assert_eq!(reasons(&mut fifo), []);
    testing::set_now(1004.0);
    tell(&mut fifo, Change::Down("1".to_owned()));
    let down = "needs 4 slot(s) of 1 core(s), 2 of 4 are up (others down or drained)".to_owned();
    assert_eq!(reasons(&mut fifo).first(), Some(&(2, down)));
}
