//! Jobs as `job-list` tells of them, for the commands that list, find and watch jobs.

mod fields;
mod info;
mod instance;
mod query;
mod reason;
mod state;
mod stats;

pub(crate) use self::fields::{attributes, headings, needs_instance};
pub(crate) use self::info::JobInfo;
pub(crate) use self::query::{Filter, Query, user, user_or_own};
pub(crate) use self::state::{ACTIVE, INACTIVE, State, state_mask};
pub(crate) use self::stats::JobStats;
