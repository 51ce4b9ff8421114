use super::*;
use crate::{Forecast, summary};
use flux_plugin::types::{Count, CountOperator, CountStep, Request};

fn exactly(n: u32) -> Count {
    Count { min: n, max: Some(n), step: None }
}

fn slots(n: u32, cores: u32) -> Want {
    let request = Request {
        nodes: None,
        slots: exactly(n),
        cores_per_slot: cores,
        gpus_per_slot: 0,
        exclusive: false,
    };
    Want { request, duration: 0.0, constraint: None }
}

fn nodes(n: u32, slots: u32, cores: u32) -> Want {
    let mut want = self::slots(slots, cores);
    want.request.nodes = Some(exactly(n));
    want
}

fn with_gpus(mut want: Want, gpus: u32) -> Want {
    want.request.gpus_per_slot = gpus;
    want
}

fn exclusive(mut want: Want) -> Want {
    want.request.exclusive = true;
    want
}

/// Four nodes of four cores, two GPUs on nodes 2 and 3; property "big" on node 3. All up.
fn pool() -> Pool {
    let targets = |ranks: &str, gpus: &str| {
        let mut children = vec![("core".to_owned(), "0-3".to_owned())];
        if !gpus.is_empty() {
            children.push(("gpu".to_owned(), gpus.to_owned()));
        }
        Targets { ranks: ranks.to_owned(), children }
    };
    let set = ResourceSet {
        targets: vec![targets("0-1", ""), targets("2-3", "0-1")],
        nodelist: "n[0-3]".to_owned(),
        properties: vec![Property { name: "big".to_owned(), ranks: "3".to_owned() }],
        starttime: 0.0,
        expiration: 0.0,
        scheduling: None,
    };
    let mut pool = Pool::new(&set).unwrap();
    pool.set_up("0-3", true).unwrap();
    pool
}

fn got(pool: &mut Pool, id: JobId, want: &Want) -> String {
    match pool.allocate(id, want, 0.0) {
        Ok(grant) => summary(&grant.shares),
        Err(NoGrant::Insufficient) => match pool.feasible(want) {
            Ok(()) => "later".to_owned(),
            Err(NoGrant::Infeasible(text)) => text,
            Err(NoGrant::Insufficient) => "?".to_owned(),
        },
        Err(NoGrant::Infeasible(text)) => text,
    }
}

#[test]
fn the_emptiest_node_is_taken_first() {
    let mut pool = pool();
    let one = slots(1, 1);
    // Nodes with GPUs count as emptier.
    let ranks: Vec<String> = (0..5).map(|id| got(&mut pool, id, &one)).collect();
    assert_eq!(ranks, ["rank2/core0", "rank3/core0", "rank0/core0", "rank1/core0", "rank2/core1"]);
}

#[test]
fn slots_are_spread_as_nodes_have_room() {
    let mut pool = pool();
    assert_eq!(got(&mut pool, 1, &slots(6, 1)), "rank2/core[0-3] rank3/core[0-1]");
    assert_eq!(got(&mut pool, 2, &slots(3, 2)), "rank0/core[0-3] rank1/core[0-1]");
    assert_eq!(got(&mut pool, 3, &slots(3, 2)), "later");
    assert_eq!(got(&mut pool, 4, &slots(2, 2)), "rank[1,3]/core[2-3]");
}

#[test]
fn nodes_and_gpus_and_exclusive_nodes() {
    let mut pool = pool();
    assert_eq!(got(&mut pool, 1, &with_gpus(slots(1, 1), 1)), "rank2/core0,gpu0");
    assert_eq!(got(&mut pool, 2, &exclusive(nodes(1, 1, 1))), "rank3/core[0-3],gpu[0-1]");
    assert_eq!(got(&mut pool, 3, &nodes(2, 2, 1)), "rank[0-1]/core[0-1]");
    assert_eq!(got(&mut pool, 4, &with_gpus(slots(2, 1), 1)), "later");
    assert_eq!(got(&mut pool, 5, &exclusive(nodes(1, 1, 1))), "later");
    pool.free(2, &[], true).unwrap();
    assert_eq!(got(&mut pool, 4, &with_gpus(slots(2, 1), 1)), "rank3/core[0-1],gpu[0-1]");
}

#[test]
fn requests_that_can_never_be_met_say_why() {
    let mut pool = pool();
    let cases = [
        (
            slots(17, 1),
            "unsatisfiable request: need 17 slot(s) of 1 core(s), only 16 such slot(s) available \
             (total cores: 16)",
        ),
        (
            slots(1, 5),
            "unsatisfiable request: need 1 slot(s) of 5 core(s), only 0 such slot(s) available \
             (total cores: 16)",
        ),
        (
            nodes(5, 2, 1),
            "unsatisfiable request: need 5 node(s) with 2 cores each, only 4 eligible",
        ),
        (
            with_gpus(nodes(3, 1, 1), 1),
            "unsatisfiable request: need 3 node(s) with 1 cores and 1 GPUs each, only 2 eligible",
        ),
        (
            exclusive(nodes(5, 1, 1)),
            "unsatisfiable request: need 5 exclusive node(s), only 4 eligible",
        ),
        (
            with_gpus(slots(3, 1), 2),
            "unsatisfiable request: need 3 slot(s) with 2 GPU(s) each, only 2 available \
             (total GPUs: 4)",
        ),
    ];
    for (want, text) in cases {
        assert_eq!(got(&mut pool, 1, &want), text);
    }
}

#[test]
fn constraints_and_the_state_of_nodes_are_honoured() {
    let mut pool = pool();
    let big = |name: &str| {
        let constraint = Some(format!(r#"{{"properties":["{name}"]}}"#));
        Want { constraint, ..slots(1, 1) }
    };
    assert_eq!(got(&mut pool, 1, &big("big")), "rank3/core0");
    assert_eq!(got(&mut pool, 2, &big("^big")), "rank2/core0");
    assert!(got(&mut pool, 3, &big("none")).starts_with("unsatisfiable request"));
    pool.set_up("3", false).unwrap();
    assert_eq!(got(&mut pool, 4, &big("big")), "later");
    pool.shrink("3").unwrap();
    assert!(got(&mut pool, 4, &big("big")).starts_with("unsatisfiable request"));
    let everywhere = [Property { name: "big".to_owned(), ranks: "0-3".to_owned() }];
    pool.add_properties(&everywhere).unwrap();
    assert_eq!(got(&mut pool, 4, &big("big")), "rank0/core0");
    pool.remove_properties(&everywhere).unwrap();
    assert!(got(&mut pool, 5, &big("big")).starts_with("unsatisfiable request"));
}

#[test]
fn counts_with_a_range_take_what_there_is() {
    let mut pool = pool();
    let range = Count { min: 2, max: None, step: None };
    let mut want = nodes(2, 4, 1);
    want.request.nodes = Some(range);
    let doubling = Some(CountStep { operator: CountOperator::Multiply, operand: 2 });
    let mut power = nodes(1, 1, 1);
    power.request.nodes = Some(Count { min: 1, max: Some(8), step: doubling });
    pool.set_up("0", false).unwrap();
    assert_eq!(pool.allocate(1, &power, 0.0).unwrap().shares.len(), 2);
    pool.free(1, &[], true).unwrap();
    let grant = pool.allocate(2, &want, 0.0).unwrap();
    assert_eq!((grant.shares.len(), grant.nslots), (3, 12));
}

#[test]
fn a_forecast_lets_running_jobs_end_one_after_the_other() {
    let mut pool = pool();
    let timed = |want: Want, duration| Want { duration, ..want };
    pool.allocate(1, &slots(12, 1), 100.0).unwrap();
    pool.allocate(2, &slots(4, 1), 50.0).unwrap();
    let mut forecast = Forecast::new(&pool, 10.0);
    assert_eq!(forecast.place(3, &timed(slots(4, 1), 100.0)), Some(50.0));
    assert_eq!(forecast.place(4, &timed(slots(16, 1), 10.0)), Some(150.0));
    assert_eq!(forecast.place(5, &slots(1, 1)), Some(160.0));
    assert_eq!(forecast.place(6, &slots(1, 1)), None);
}
