//! All tables that Flux knows; others belong to somebody else and are let through.

use super::Config;
use super::access::Access;
use super::bootstrap::{Bootstrap, Tbon};
use super::execution::{Exec, Ingest};
use super::job_list::JobList;
use super::job_manager::JobManager;
use super::periodic::{Cron, Heartbeat};
use super::policy::Policy;
use super::queues::Queues;
use super::resource::{FakeResources, Resource};
use super::storage::{Archive, ContentSqlite, Kvs};
use super::table::{Table, TableError};

/// A table is not acceptable to the service that it is for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error updating {service}: {error}")]
pub struct Refusal {
    pub service: &'static str,
    pub error: TableError,
}

/// Whom to name for a table, and how to read it.
type Check = (&'static str, fn(&Config) -> Result<(), TableError>);

/// Names of the tables.
const NAMES: [&str; 18] = [
    "access",
    "archive",
    "bootstrap",
    "content-sqlite",
    "cron",
    "exec",
    "fake-resources",
    "heartbeat",
    "ingest",
    "job-list",
    "job-manager",
    "kvs",
    "policy",
    "queues",
    "resource",
    "sched",
    "sched-simple",
    "tbon",
];

const CHECKS: [Check; 17] = [
    ("connector-local", |config| Access::parse(config).map(drop)),
    ("overlay", |config| Bootstrap::parse(config).map(drop)),
    ("overlay", |config| Tbon::parse(config).map(drop)),
    ("job-ingest", |config| Ingest::parse(config).map(drop)),
    ("job-ingest", |config| Policy::parse(config).map(drop)),
    ("job-ingest", |config| Queues::parse(config).map(drop)),
    ("job-manager", |config| JobManager::parse(config).map(drop)),
    ("job-list", |config| JobList::parse(config).map(drop)),
    ("job-exec", |config| Exec::parse(config).map(drop)),
    ("sched-simple", sched),
    ("resource", |config| Resource::parse(config).map(drop)),
    ("resource", |config| FakeResources::parse(config).map(drop)),
    ("kvs", |config| Kvs::parse(config).map(drop)),
    ("content-sqlite", |config| ContentSqlite::parse(config).map(drop)),
    ("job-archive", |config| Archive::parse(config).map(drop)),
    ("heartbeat", |config| Heartbeat::parse(config).map(drop)),
    ("cron", |config| Cron::parse(config).map(drop)),
];

/// The scheduler reads what its plugin is; the rest may be for that plugin, or for others.
fn sched(config: &Config) -> Result<(), TableError> {
    let mut table = Table::of(config, "sched")?;
    table.any("plugin");
    table.finish_among_others(config);
    Ok(())
}

/// Read all tables; all that is wrong with each.
///
/// A table is read up to its first mistake, so what is found is taken out until nothing is.
pub fn check_all(config: &mut Config) -> Vec<TableError> {
    let mut errors: Vec<TableError> = Vec::new();
    for (_, check) in CHECKS {
        while let Err(error) = check(config) {
            // What is missing only because it was wrong has been told.
            if errors.iter().any(|other| other.explains(&error)) {
                break;
            }
            let removed = error.keys().into_iter().filter(|key| config.remove(key)).count();
            errors.push(error);
            if removed == 0 {
                break;
            }
        }
    }
    errors
}

/// A table that nobody knows may be some plugin's, unless its name looks like a slip.
pub fn slips(config: &Config) -> impl Iterator<Item = (&str, &'static str)> {
    let unknown = config.object().keys().filter(|name| !NAMES.contains(&name.as_str()));
    unknown.filter_map(|name| Some((name.as_str(), super::table::nearest(name, &NAMES)?)))
}

/// Read all tables, and refuse the first that is wrong.
pub fn check(config: &Config) -> Result<(), Refusal> {
    CHECKS
        .iter()
        .try_for_each(|(service, check)| check(config).map_err(|error| Refusal { service, error }))
}
