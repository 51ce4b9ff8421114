//! `[job-list]`: how much a listing may cost.

use super::Config;
use super::table::{Table, TableError};

/// Comparisons of a listing, unless configured.
const MAX_COMPARISONS: u64 = 1_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobList {
    /// How often a request may have something of a job compared with something of its constraint
    /// before it fails; without a limit when `None`.
    pub max_comparisons: Option<u64>,
}

impl Default for JobList {
    fn default() -> JobList {
        JobList { max_comparisons: Some(MAX_COMPARISONS) }
    }
}

impl JobList {
    /// 0 takes the limit away.
    pub fn parse(config: &Config) -> Result<JobList, TableError> {
        let mut table = Table::lenient(config, "job-list")?;
        let max_comparisons = table.count("max_comparisons")?.unwrap_or(MAX_COMPARISONS);
        table.finish()?;
        Ok(JobList { max_comparisons: Some(max_comparisons).filter(|max| *max > 0) })
    }
}
