//! Numbers of jobs, of all and of each queue, kept as the jobs change.

use std::collections::BTreeMap;

use flux_protocol::rpc::job_list::{QueueStats, Stats};
use serde_json::Value;

use super::job::{Job, State, result};
use crate::config::Config;

#[derive(Debug, Default)]
pub(super) struct Tally {
    all: Stats,
    queues: BTreeMap<String, Stats>,
}

impl Tally {
    /// Have numbers of the queues that are configured, before they have jobs.
    pub(super) fn configure(&mut self, config: &Config) {
        let queues = config.get("queues").and_then(Value::as_object);
        for name in queues.into_iter().flat_map(|queues| queues.keys()) {
            self.queues.entry(name.clone()).or_default();
        }
    }

    pub(super) fn add(&mut self, job: &Job) {
        self.update(job, |count| *count += 1);
    }

    /// Take back what [`Tally::add`] has counted of a job as it is now.
    pub(super) fn remove(&mut self, job: &Job) {
        self.update(job, |count| *count = count.saturating_sub(1));
    }

    /// A job that was removed is forgotten.
    pub(super) fn purged(&mut self, job: &Job) {
        self.all.inactive_purged += 1;
        if let Some(queue) = job.queue().and_then(|name| self.queues.get_mut(name)) {
            queue.inactive_purged += 1;
        }
    }

    pub(super) fn encode(&self) -> Stats {
        let named = |(name, stats): (&String, &Stats)| QueueStats {
            stats: stats.clone(),
            name: name.clone(),
        };
        Stats { queues: Some(self.queues.iter().map(named).collect()), ..self.all.clone() }
    }

    fn update(&mut self, job: &Job, change: impl Fn(&mut u64)) {
        update(&mut self.all, job, &change);
        if let Some(name) = job.queue() {
            if !self.queues.contains_key(name) {
                self.queues.insert(name.to_owned(), Stats::default());
            }
            if let Some(queue) = self.queues.get_mut(name) {
                update(queue, job, &change);
            }
        }
    }
}

fn update(stats: &mut Stats, job: &Job, change: &impl Fn(&mut u64)) {
    let states = &mut stats.job_states;
    let state = match job.state {
        State::New => return,
        State::Depend => &mut states.depend,
        State::Priority => &mut states.priority,
        State::Sched => &mut states.sched,
        State::Run => &mut states.run,
        State::Cleanup => &mut states.cleanup,
        State::Inactive => &mut states.inactive,
    };
    change(state);
    change(&mut states.total);
    if job.state == State::Inactive {
        // Each job in one of them only: those who want all failures add them up.
        change(match job.result {
            Some(result::COMPLETED) => &mut stats.successful,
            Some(result::CANCELED) => &mut stats.canceled,
            Some(result::TIMEOUT) => &mut stats.timeout,
            _ => &mut stats.failed,
        });
    }
}

#[cfg(test)]
mod tests {
    use flux_protocol::fluid::JobId;

    use super::*;

    fn ended(queue: &str, result: u32) -> Job {
        let mut job = Job::new(JobId(1));
        job.set_jobspec(&format!(r#"{{"attributes": {{"system": {{"queue": "{queue}"}}}}}}"#));
        job.state = State::Inactive;
        job.result = Some(result);
        job
    }

    #[test]
    fn an_ended_job_counts_for_one_result_only() {
        let mut tally = Tally::default();
        for result in
            [result::COMPLETED, result::FAILED, result::CANCELED, result::CANCELED, result::TIMEOUT]
        {
            tally.add(&ended("batch", result));
        }
        let stats = tally.encode();
        assert_eq!((stats.successful, stats.failed, stats.canceled, stats.timeout), (1, 1, 2, 1));
        assert_eq!(stats.job_states.inactive, 5);
    }

    #[test]
    fn queues_have_numbers_of_their_own_and_purged_jobs_are_counted_as_such() {
        let mut tally = Tally::default();
        let (first, second) = (ended("batch", result::COMPLETED), ended("debug", result::FAILED));
        tally.add(&first);
        tally.add(&second);
        tally.remove(&first);
        tally.purged(&first);
        let stats = serde_json::to_value(tally.encode()).unwrap();
        let batch = &stats["queues"][0];
        assert_eq!(batch["name"], "batch");
        assert_eq!((&batch["successful"], &batch["inactive_purged"]), (&0.into(), &1.into()));
        assert_eq!(stats["queues"][1]["failed"], 1);
        assert_eq!((&stats["failed"], &stats["inactive_purged"]), (&1.into(), &1.into()));
        assert!(batch.get("queues").is_none());
    }
}
