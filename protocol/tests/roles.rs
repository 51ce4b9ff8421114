//! Who may call what, held against what a real Flux lets guests do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use flux_protocol::rpc::{self, Reply, Who};
use serde_json::Value;

const ALL: [&[(&str, Who, Reply)]; 27] = [
    rpc::attr::METHODS,
    rpc::broker::METHODS,
    rpc::config::METHODS,
    rpc::connector_local::METHODS,
    rpc::content::METHODS,
    rpc::content_backing::METHODS,
    rpc::cron::METHODS,
    rpc::event::METHODS,
    rpc::groups::METHODS,
    rpc::heaptrace::METHODS,
    rpc::heartbeat::METHODS,
    rpc::job_exec::METHODS,
    rpc::job_info::METHODS,
    rpc::job_ingest::METHODS,
    rpc::job_list::METHODS,
    rpc::job_manager::METHODS,
    rpc::kvs::METHODS,
    rpc::kvs_watch::METHODS,
    rpc::log::METHODS,
    rpc::module::METHODS,
    rpc::overlay::METHODS,
    rpc::resource::METHODS,
    rpc::rexec::METHODS,
    rpc::sched::METHODS,
    rpc::service::METHODS,
    rpc::shutdown::METHODS,
    rpc::state_machine::METHODS,
];

/// A real Flux serves them to users, too, but not before they are needed: the table has been made
/// without them. The service asks whose the job is.
const LATECOMERS: [&str; 1] = ["job-exec.override"];

/// What is served here and not there is the owner's, and nothing is given to guests that a real
/// Flux keeps from them.
#[test]
fn nothing_is_open_to_guests_that_a_real_flux_keeps_to_its_owner() {
    let text = include_str!("../../tests/vectors/services.json");
    let services: Value = serde_json::from_str(text).unwrap();
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let table: BTreeMap<String, String> = services["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (word(row, "topic"), word(row, "who")))
        .collect();
    let mut open = Vec::new();
    for (topic, who, _) in ALL.concat() {
        let there = table.get(topic);
        let guests = there.is_some_and(|who| !who.starts_with(['O', 'I']) || who == "O here");
        if who != Who::Owner && !guests && !LATECOMERS.contains(&topic) {
            open.push(topic);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    assert!(ALL.concat().len() > 150);
}
