//! Numbers of jobs.

use flux_protocol::rpc::job_list::Stats;

use super::job::{Job, State, result};

/// Count jobs by state and result.
pub(super) fn count<'a>(jobs: impl Iterator<Item = &'a Job>, purged: u64) -> Stats {
    let mut stats = Stats { inactive_purged: purged, ..Stats::default() };
    for job in jobs {
        let states = &mut stats.job_states;
        let slot = match job.state {
            State::New => continue,
            State::Depend => &mut states.depend,
            State::Priority => &mut states.priority,
            State::Sched => &mut states.sched,
            State::Run => &mut states.run,
            State::Cleanup => &mut states.cleanup,
            State::Inactive => &mut states.inactive,
        };
        *slot += 1;
        states.total += 1;
        if job.state == State::Inactive {
            // Each job in one of them only: those who want all failures add them up.
            match job.result {
                Some(result::COMPLETED) => stats.successful += 1,
                Some(result::CANCELED) => stats.canceled += 1,
                Some(result::TIMEOUT) => stats.timeout += 1,
                _ => stats.failed += 1,
            }
        }
    }
    stats
}

#[cfg(test)]
mod tests {
    use flux_protocol::fluid::JobId;

    use super::*;

    #[test]
    fn an_ended_job_counts_for_one_result_only() {
        let results = [
            result::COMPLETED,
            result::FAILED,
            result::CANCELED,
            result::CANCELED,
            result::TIMEOUT,
        ];
        let jobs: Vec<Job> = results
            .into_iter()
            .map(|result| {
                let mut job = Job::new(JobId(1));
                job.state = State::Inactive;
                job.result = Some(result);
                job
            })
            .collect();
        let stats = count(jobs.iter(), 0);
        assert_eq!((stats.successful, stats.failed, stats.canceled, stats.timeout), (1, 1, 2, 1));
        assert_eq!(stats.job_states.inactive, 5);
    }
}
