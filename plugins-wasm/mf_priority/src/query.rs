//! `flux jobtap query mf_priority`, with the keys that flux-accounting's tools read.

use crate::data::{Association, Data, Key};
use crate::ledger::Ledger;
use flux_plugin::types::JobId;
use serde_json::{Map, Value, json};

pub(crate) fn report(data: &Data, ledger: &Ledger) -> String {
    let users = data.users.iter().map(|(user, banks)| {
        let bank = |(bank, association): (&String, &Association)| {
            association_report(data, ledger, &(*user, bank.clone()), association)
        };
        json!({ "userid": user, "banks": banks.iter().map(bank).collect::<Vec<_>>() })
    });
    let queue = |(name, queue): (&String, &crate::data::Queue)| {
        let mut report = serde_json::to_value(queue).unwrap_or_default();
        if let Some(report) = report.as_object_mut() {
            report.insert("name".to_owned(), json!(name));
        }
        (name.clone(), report)
    };
    json!({
        "mf_priority_map": users.collect::<Vec<_>>(),
        "queues": data.queues.iter().map(queue).collect::<Map<_, _>>(),
        "projects": data.projects,
    })
    .to_string()
}

fn association_report(data: &Data, ledger: &Ledger, key: &Key, of: &Association) -> Value {
    let total = ledger.total(key);
    let queue_usage: Map<String, Value> = ledger
        .queues(key)
        .map(|(name, usage)| {
            let report = json!({
                "cur_run_jobs": usage.run.jobs,
                "cur_nodes": usage.run.nodes,
                "cur_sched_jobs": usage.sched.jobs,
                "cur_sched_nodes": usage.sched.nodes,
                "cur_sched_cores": usage.sched.cores,
            });
            (name.clone(), report)
        })
        .collect();
    let held = |id: JobId| {
        let record = ledger.get(id)?;
        let report = json!({
            "nnodes": record.amount.nodes,
            "ncores": record.amount.cores,
            "queue": record.queue,
            "deps": record.held_by,
        });
        Some((id.to_string(), report))
    };
    let held: Map<String, Value> = ledger.held(key).into_iter().filter_map(held).collect();
    let last_queue = ledger.queues(key).last().map(|(name, _)| name.as_str());
    json!({
        "bank_name": key.1,
        "fairshare": of.fairshare,
        "max_run_jobs": of.max_running_jobs,
        "cur_run_jobs": total.run.jobs,
        "max_active_jobs": of.max_active_jobs,
        "cur_active_jobs": total.active.jobs,
        "queues": of.queues,
        "queue_factor": data.queue_priority(of, last_queue).unwrap_or(0),
        "projects": of.projects,
        "def_project": of.def_project,
        "max_nodes": of.max_nodes,
        "max_cores": of.max_cores,
        "cur_nodes": total.run.nodes,
        "cur_cores": total.run.cores,
        "active": i32::from(of.active),
        "cur_sched_jobs": total.sched.jobs,
        "max_sched_jobs": of.max_sched_jobs,
        "queue_usage": queue_usage,
        "held_jobs": held,
    })
}
