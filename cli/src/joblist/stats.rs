//! How many jobs there are in which state.

use flux_client::{Client, RpcError};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::job_list::{self, Stats};

/// Numbers of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct JobStats {
    pub(crate) pending: u64,
    pub(crate) running: u64,
    pub(crate) successful: u64,
    /// All that did not end well: failed, canceled and timed out.
    pub(crate) failed: u64,
    pub(crate) inactive: u64,
    pub(crate) inactive_purged: u64,
    pub(crate) total: u64,
}

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatsError {
    #[error("no stats available for queue {0}")]
    Queue(String),
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

impl JobStats {
    /// Of all jobs, or of those in some queues.
    pub(crate) async fn fetch(flux: &Client, queues: &[String]) -> Result<JobStats, StatsError> {
        let stats = flux.rpc::<job_list::JobStats>(Nodeid::ANY, &Empty).await?;
        if queues.is_empty() {
            return Ok(JobStats::of(&stats));
        }
        let mut sum = JobStats::default();
        for queue in queues {
            let entry = stats
                .queues
                .iter()
                .flatten()
                .find(|entry| entry.name == *queue)
                .ok_or_else(|| StatsError::Queue(queue.clone()))?;
            sum.add(JobStats::of(&entry.stats));
        }
        Ok(sum)
    }

    pub(crate) fn active(&self) -> u64 {
        self.total.saturating_sub(self.inactive)
    }

    fn of(stats: &Stats) -> JobStats {
        let states = &stats.job_states;
        JobStats {
            pending: states.depend + states.priority + states.sched,
            running: states.run + states.cleanup,
            successful: stats.successful,
            failed: stats.failed + stats.timeout + stats.canceled,
            inactive: states.inactive,
            inactive_purged: stats.inactive_purged,
            total: states.total,
        }
    }

    fn add(&mut self, other: JobStats) {
        self.pending += other.pending;
        self.running += other.running;
        self.successful += other.successful;
        self.failed += other.failed;
        self.inactive += other.inactive;
        self.inactive_purged += other.inactive_purged;
        self.total += other.total;
    }
}
