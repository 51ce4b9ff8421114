use super::*;
use flux_plugin::testing;
use flux_plugin::types::{Count, Freed, Request, ResourceSet, Targets};

/// Four nodes of one core.
fn scheduler(config: &str) -> Backfill {
    testing::reset();
    testing::set_now(1000.0);
    let mut scheduler = Backfill::init(&testing::context(config, "{}")).unwrap();
    let children = vec![("core".to_owned(), "0".to_owned())];
    let set = ResourceSet {
        targets: vec![Targets { ranks: "0-3".to_owned(), children }],
        nodelist: "n[0-3]".to_owned(),
        properties: Vec::new(),
        starttime: 0.0,
        expiration: 0.0,
        scheduling: None,
    };
    tell(&mut scheduler, Change::Resources(set));
    tell(&mut scheduler, Change::Up("0-3".to_owned()));
    scheduler
}

fn job(id: JobId, nodes: u32, duration: f64) -> Job {
    let count = |n| Count { min: n, max: Some(n), step: None };
    let request = Request {
        nodes: Some(count(nodes)),
        slots: count(1),
        cores_per_slot: 1,
        gpus_per_slot: 0,
        exclusive: false,
    };
    Job { priority: Some(16), request: Some(request), duration, ..testing::job(id) }
}

fn tell(scheduler: &mut Backfill, change: Change) {
    scheduler.update(change, &mut Vec::new());
}

fn end(scheduler: &mut Backfill, now: f64, id: JobId) {
    testing::set_now(now);
    tell(scheduler, Change::Free(vec![Freed { id, resources: Vec::new(), final_: true }]));
}

fn started(scheduler: &mut Backfill) -> Vec<JobId> {
    let started = |decision| match decision {
        Decision::Allocate(allocation) => Some(allocation.id),
        _ => None,
    };
    scheduler.schedule(1.0).decisions.into_iter().filter_map(started).collect()
}

#[test]
fn a_short_job_goes_first_where_it_delays_nobody() {
    let mut scheduler = scheduler("{}");
    // Two nodes are busy until 1100; the head wants all four.
    let jobs = vec![job(1, 2, 100.0), job(2, 4, 50.0), job(3, 1, 100.0), job(4, 1, 101.0)];
    tell(&mut scheduler, Change::Alloc(jobs));
    assert_eq!(started(&mut scheduler), [1, 3]);
    end(&mut scheduler, 1100.0, 1);
    assert!(started(&mut scheduler).is_empty());
    end(&mut scheduler, 1100.0, 3);
    assert_eq!(started(&mut scheduler), [2]);
}

#[test]
fn a_long_job_goes_first_on_nodes_that_the_head_does_not_need() {
    let mut scheduler = scheduler("{}");
    // The head needs three of four nodes at 1100: one is left for as long as it takes.
    let jobs = vec![job(1, 2, 100.0), job(2, 3, 50.0), job(3, 1, 0.0), job(4, 1, 0.0)];
    tell(&mut scheduler, Change::Alloc(jobs));
    assert_eq!(started(&mut scheduler), [1, 3]);
    end(&mut scheduler, 1100.0, 1);
    assert_eq!(started(&mut scheduler), [2]);
}

#[test]
fn behind_a_job_without_an_end_nothing_is_promised() {
    let mut scheduler = scheduler("{}");
    let jobs = vec![job(1, 2, 0.0), job(2, 4, 50.0), job(3, 1, 10.0)];
    tell(&mut scheduler, Change::Alloc(jobs));
    assert_eq!(started(&mut scheduler), [1]);
}

#[test]
fn only_as_many_jobs_are_looked_at_as_configured() {
    let mut scheduler = scheduler(r#"{"backfill-depth":1}"#);
    let jobs = vec![job(1, 2, 100.0), job(2, 4, 50.0), job(3, 3, 10.0), job(4, 1, 10.0)];
    tell(&mut scheduler, Change::Alloc(jobs));
    assert_eq!(started(&mut scheduler), [1]);
    let error = Backfill::init(&testing::context(r#"{"backfill-depth":"all"}"#, "{}")).err();
    assert!(error.unwrap().starts_with("backfill-depth must be"));
}

/// Whatever is started early, the first job starts no later than without it.
#[test]
fn the_head_is_never_delayed() {
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..200 {
        let list: Vec<(u32, f64)> =
            (0..8).map(|_| (1 + next(4) as u32, 10.0 * (1 + next(9)) as f64)).collect();
        let starts = |depth: usize| {
            let mut scheduler = scheduler(&format!("{{\"backfill-depth\":{depth}}}"));
            let jobs = list.iter().zip(1..).map(|((nodes, time), id)| job(id, *nodes, *time));
            tell(&mut scheduler, Change::Alloc(jobs.collect()));
            simulate(&mut scheduler, &list)
        };
        let (plain, early) = (starts(0), starts(100));
        let blocked = plain.iter().position(|start| *start > 1000.0);
        if let Some(head) = blocked {
            assert!(early[head] <= plain[head], "{list:?}: {plain:?} {early:?}");
        }
    }
}

/// Runs all jobs to their end; when each started.
fn simulate(scheduler: &mut Backfill, list: &[(u32, f64)]) -> Vec<f64> {
    let mut now = 1000.0;
    let mut starts = vec![0.0; list.len()];
    let mut running: Vec<(f64, JobId)> = Vec::new();
    loop {
        for id in started(scheduler) {
            starts[id as usize - 1] = now;
            running.push((now + list[id as usize - 1].1, id));
        }
        running.sort_by(|a, b| a.0.total_cmp(&b.0));
        let Some((time, id)) = (!running.is_empty()).then(|| running.remove(0)) else {
            return starts;
        };
        now = time;
        end(scheduler, now, id);
    }
}
