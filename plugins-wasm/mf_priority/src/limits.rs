//! Limits that make jobs wait, each known by the text of its dependency.

use crate::data::{Data, UNLIMITED};
use crate::ledger::{Ledger, Record};

pub(crate) const QUEUE_RUNNING: &str = "max-run-jobs-queue";
pub(crate) const QUEUE_SCHED_JOBS: &str = "max-sched-jobs-queue-limit";
pub(crate) const QUEUE_SCHED_NODES: &str = "max-sched-nodes-queue-limit";
pub(crate) const QUEUE_SCHED_CORES: &str = "max-sched-cores-queue-limit";
pub(crate) const QUEUE_RESOURCES: &str = "max-resources-queue";
pub(crate) const RUNNING: &str = "max-running-jobs-user-limit";
pub(crate) const SCHED_JOBS: &str = "max-sched-jobs-user-limit";
pub(crate) const RESOURCES: &str = "max-resources-user-limit";

/// The limits that a job would exceed if it went on now.
pub(crate) fn exceeded(data: &Data, ledger: &Ledger, record: &Record) -> Vec<&'static str> {
    let Some(association) = data.of(&record.key) else { return Vec::new() };
    let job = record.amount;
    let mut over = Vec::new();
    let mut check = |text, fits: bool| {
        if !fits {
            over.push(text);
        }
    };
    if let Some(queue) = data.queues.get(&record.queue) {
        let usage = ledger.in_queue(&record.key, &record.queue);
        let (committed, waiting) = (usage.committed(), usage.waiting());
        check(QUEUE_RUNNING, committed.jobs < queue.max_running_jobs);
        check(QUEUE_SCHED_JOBS, waiting.jobs < queue.max_sched_jobs);
        check(QUEUE_SCHED_NODES, waiting.nodes + job.nodes <= queue.max_sched_nodes_per_assoc);
        check(QUEUE_SCHED_CORES, waiting.cores + job.cores <= queue.max_sched_cores_per_assoc);
        check(QUEUE_RESOURCES, committed.nodes + job.nodes <= queue.max_nodes_per_assoc);
    }
    let total = ledger.total(&record.key);
    let (committed, waiting) = (total.committed(), total.waiting());
    check(RUNNING, committed.jobs < association.max_running_jobs);
    check(SCHED_JOBS, waiting.jobs < association.max_sched_jobs);
    let nodes = committed.nodes + job.nodes <= association.max_nodes;
    let cores = committed.cores + job.cores <= association.max_cores;
    check(RESOURCES, nodes && cores);
    over
}

/// In words, for `flux job why`.
pub(crate) fn explain(data: &Data, record: &Record, limit: &str) -> String {
    let bank = &record.key.1;
    let of = |limit: Option<i64>| match limit {
        Some(limit) if limit < UNLIMITED => format!(" ({limit})"),
        _ => String::new(),
    };
    let association = data.of(&record.key);
    let queue = data.queues.get(&record.queue);
    match limit {
        RUNNING => format!(
            "waits until fewer jobs of the user in bank {bank} run{}",
            of(association.map(|association| association.max_running_jobs))
        ),
        SCHED_JOBS => format!(
            "waits until fewer jobs of the user in bank {bank} wait for resources{}",
            of(association.map(|association| association.max_sched_jobs))
        ),
        RESOURCES => format!("waits until the user's jobs in bank {bank} leave it nodes and cores"),
        QUEUE_RUNNING => format!(
            "waits until fewer jobs of the user run in queue {}{}",
            record.queue,
            of(queue.map(|queue| queue.max_running_jobs))
        ),
        _ => format!("waits for the user's other jobs in queue {} ({limit})", record.queue),
    }
}
