//! What job-list tells of jobs.

use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::job_list::{self, LegacyConstraint, ListIdRequest, ListRequest};
use flux_protocol::rpc::job_manager;
use serde_json::{Value, json};

use crate::instance::{Instance, Options, run, simulated, until};

async fn list(
    instance: &Instance,
    since: f64,
    constraint: Option<Value>,
    legacy: Option<LegacyConstraint>,
) -> Result<Vec<u64>, String> {
    let request = ListRequest { max_entries: 0, attrs: Vec::new(), since, constraint, legacy };
    match instance.handle.rpc::<job_list::List>(&request).await {
        Ok(response) => Ok(response.jobs.iter().map(|job| job["id"].as_u64().unwrap()).collect()),
        Err(failure) => Err(failure.to_string()),
    }
}

fn by_id(id: JobId) -> ListIdRequest {
    ListIdRequest { id, attrs: Vec::new(), state: None }
}

async fn ended(instance: &Instance) -> JobId {
    let id = instance.submit(&simulated("0.001s")).await.unwrap();
    instance.wait_event(id, "clean").await;
    let inactive = ListIdRequest { state: Some(64), ..by_id(id) };
    instance.handle.rpc::<job_list::ListId>(&inactive).await.unwrap();
    id
}

#[test]
fn a_listing_can_be_asked_for_as_before_there_were_constraints() {
    run(async {
        let instance = Instance::with(Options::default()).await.unwrap();
        let id = ended(&instance).await.0;
        let all = LegacyConstraint { userid: -1, states: 0, results: 0, name: None, queue: None };
        let cases = [
            (all.clone(), true),
            (LegacyConstraint { states: 64, results: 1, ..all.clone() }, true),
            (LegacyConstraint { states: 16, ..all.clone() }, false),
            (LegacyConstraint { results: 2, ..all.clone() }, false),
            (LegacyConstraint { userid: 4711, ..all.clone() }, false),
            (LegacyConstraint { name: Some("nobody".to_owned()), ..all.clone() }, false),
            (LegacyConstraint { queue: Some("none".to_owned()), ..all.clone() }, false),
        ];
        for (legacy, is_listed) in cases {
            let listed = list(&instance, 0.0, None, Some(legacy.clone())).await.unwrap();
            assert_eq!(listed, if is_listed { vec![id] } else { vec![] }, "{legacy:?}");
        }
        instance.stop().await;
    });
}

#[test]
fn jobs_are_found_by_the_time_at_which_they_reached_any_state() {
    run(async {
        let instance = Instance::with(Options::default()).await.unwrap();
        let id = ended(&instance).await.0;
        for state in ["submit", "depend", "priority", "sched", "run", "cleanup", "inactive"] {
            let key = format!("t_{state}");
            let after = list(&instance, 0.0, Some(json!({ &key: [">1.5"] })), None).await;
            let before = list(&instance, 0.0, Some(json!({ &key: ["<1.5"] })), None).await;
            assert_eq!((after, before), (Ok(vec![id]), Ok(vec![])), "{key}");
        }
        let refused = list(&instance, -1.0, None, None).await.unwrap_err();
        assert!(refused.contains("since < 0.0 not allowed"), "{refused}");
        instance.stop().await;
    });
}

#[test]
fn a_job_that_the_journal_has_not_told_of_yet_is_waited_for() {
    run(async {
        let instance = Instance::with(Options::default()).await.unwrap();
        instance.handle.rpc::<job_list::StatePause>(&Empty).await.unwrap();
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        let handle = instance.handle.clone();
        let asked =
            tokio::task::spawn_local(
                async move { handle.rpc::<job_list::ListId>(&by_id(id)).await },
            );
        let none = instance.handle.rpc::<job_list::ListId>(&by_id(JobId(1))).await.unwrap_err();
        assert_eq!(none.errno, Errno::ENOENT);
        until(async || {
            instance.stats("job-list").await["idsync"] == json!({ "lookups": 0, "waits": 1 })
        })
        .await;
        instance.handle.rpc::<job_list::StateUnpause>(&Empty).await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap().job["id"], id.0);
        instance.stop().await;
    });
}

#[test]
fn a_state_that_a_job_never_came_to_is_answered_at_its_end() {
    run(async {
        let config = json!({ "fake-resources": { "nnodes": 1, "cores-per-node": 1 } });
        let instance = Instance::with(Options { config, ..Options::default() }).await.unwrap();
        let running = instance.submit(&simulated("10m")).await.unwrap();
        instance.wait_event(running, "start").await;
        let id = instance.submit(&simulated("10m")).await.unwrap();
        instance.wait_event(id, "priority").await;
        let handle = instance.handle.clone();
        let ran = ListIdRequest { state: Some(16), attrs: vec!["state".to_owned()], ..by_id(id) };
        let asked =
            tokio::task::spawn_local(async move { handle.rpc::<job_list::ListId>(&ran).await });
        for id in [id, running] {
            let cancel = job_manager::RaiseRequest {
                id,
                severity: 0,
                kind: "cancel".to_owned(),
                note: None,
                wait_status: None,
            };
            instance.handle.rpc::<job_manager::Raise>(&cancel).await.unwrap();
        }
        assert_eq!(asked.await.unwrap().unwrap().job["state"], 64);
        instance.stop().await;
    });
}

#[test]
fn a_constraint_that_costs_too_much_is_given_up() {
    run(async {
        let config = json!({ "job-list": { "max_comparisons": 50 } });
        let instance = Instance::with(Options { config, ..Options::default() }).await.unwrap();
        let id = ended(&instance).await.0;
        let names = |count: usize| json!({ "name": vec!["nobody"; count] });
        assert_eq!(list(&instance, 0.0, Some(names(50)), None).await, Ok(vec![]));
        let costly = [
            names(51),
            json!({ "or": [names(40), { "and": [names(9), { "states": [64] }] }, names(11)] }),
            json!({ "not": [{ "ranks": ["0"] }, { "userid": vec![4711; 60] }] }),
        ];
        for constraint in costly {
            let listed = list(&instance, 0.0, Some(constraint.clone()), None).await;
            let is_given_up =
                listed.as_ref().is_err_and(|text| text.contains("Excessive comparisons made"));
            assert!(is_given_up, "{constraint}: {listed:?}");
        }
        let cheap = json!({ "states": [64] });
        assert_eq!(list(&instance, 0.0, Some(cheap), None).await, Ok(vec![id]));
        instance.stop().await;
    });
}
