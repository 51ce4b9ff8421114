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
            match job.result {
                Some(result::COMPLETED) => stats.successful += 1,
                Some(result::CANCELED) => stats.canceled += 1,
                Some(result::TIMEOUT) => stats.timeout += 1,
                _ => {}
            }
            if job.result != Some(result::COMPLETED) {
                // As the real one has it: canceled and timed-out jobs have failed, too.
                stats.failed += 1;
            }
        }
    }
    stats
}
