//! `[policy]`, which a queue has too (RFC 33).

use super::Config;
use super::table::{Table, TableError};

/// What jobs get that do not say otherwise, and what they may ask for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    pub defaults: Defaults,
    pub limits: Limits,
    pub access: QueueAccess,
    /// Options of the scheduler, which reads them itself.
    pub scheduler: Option<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Defaults {
    /// Seconds.
    pub duration: Option<f64>,
    pub queue: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// Seconds; 0 is unlimited.
    pub duration: Option<f64>,
    pub min: JobSize,
    pub max: JobSize,
}

/// -1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobSize {
    pub nnodes: Option<i64>,
    pub ncores: Option<i64>,
    pub ngpus: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueAccess {
    pub allow_user: Option<Vec<String>>,
    pub allow_group: Option<Vec<String>>,
}

impl Policy {
    pub fn parse(config: &Config) -> Result<Policy, TableError> {
        Policy::read(Table::of(config, "policy")?)
    }

    pub(super) fn read(mut table: Table<'_>) -> Result<Policy, TableError> {
        let policy = Policy {
            defaults: defaults(table.table("jobspec")?)?,
            limits: limits(table.table("limits")?)?,
            access: access(table.table("access")?)?,
            scheduler: table.any("scheduler").cloned(),
        };
        if policy.scheduler.as_ref().is_some_and(|scheduler| !scheduler.is_object()) {
            return Err(table.bad("scheduler", "'scheduler' must be a table"));
        }
        table.finish()?;
        Ok(policy)
    }
}

fn defaults(mut jobspec: Table<'_>) -> Result<Defaults, TableError> {
    let mut defaults = jobspec.table("defaults")?;
    let mut system = defaults.table("system")?;
    let bad = |key: &str, what: &str| {
        jobspec.bad(&format!("defaults.system.{key}"), format!("'defaults.system.{key}' {what}"))
    };
    let values = Defaults {
        duration: system.fsd("duration").map_err(|_| bad("duration", "is not a valid FSD"))?,
        queue: system
            .string("queue")
            .map_err(|_| bad("queue", "is not a string"))?
            .map(str::to_owned),
    };
    system.finish()?;
    defaults.finish()?;
    jobspec.finish()?;
    Ok(values)
}

fn limits(mut table: Table<'_>) -> Result<Limits, TableError> {
    let duration = table
        .fsd("duration")
        .map_err(|_| table.bad("duration", "'duration' is not a valid FSD"))?;
    let mut size = table.table("job-size")?;
    let limits =
        Limits { duration, min: job_size(size.table("min")?)?, max: job_size(size.table("max")?)? };
    size.finish()?;
    table.finish()?;
    Ok(limits)
}

fn job_size(mut table: Table<'_>) -> Result<JobSize, TableError> {
    let size = JobSize {
        nnodes: table.integer("nnodes")?,
        ncores: table.integer("ncores")?,
        ngpus: table.integer("ngpus")?,
    };
    for (key, value) in [("nnodes", size.nnodes), ("ncores", size.ncores), ("ngpus", size.ngpus)] {
        if value.is_some_and(|value| value < -1) {
            return Err(table.bad(key, "values must be >= -1"));
        }
    }
    table.finish()?;
    Ok(size)
}

fn access(mut table: Table<'_>) -> Result<QueueAccess, TableError> {
    let access = QueueAccess {
        allow_user: string_array(&mut table, "allow-user")?,
        allow_group: string_array(&mut table, "allow-group")?,
    };
    table.finish()?;
    Ok(access)
}

fn string_array(
    table: &mut Table<'_>,
    key: &'static str,
) -> Result<Option<Vec<String>>, TableError> {
    let strings = table
        .strings(key)
        .map_err(|_| table.bad(key, format!("'{key}' must be a string array")))?;
    Ok(strings.map(|strings| strings.into_iter().map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: serde_json::Value) -> Result<Policy, String> {
        let config = Config::from_object(value.as_object().unwrap().clone());
        Policy::parse(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn the_guides_policy_is_read() {
        let policy = parse(json!({"policy": {
            "jobspec": {"defaults": {"system": {"duration": "1m"}}},
            "limits": {"duration": "2h", "job-size": {"max": {"nnodes": 8, "ncores": 32}}},
        }}))
        .unwrap();
        assert_eq!(policy.defaults.duration, Some(60.0));
        assert_eq!(policy.limits.duration, Some(7200.0));
        assert_eq!(policy.limits.max.nnodes, Some(8));
    }

    #[test]
    fn refusals_have_the_words_of_flux() {
        let limit = parse(json!({"policy": {"limits": {"duration": "xx"}}})).unwrap_err();
        assert_eq!(
            limit,
            "error parsing [policy.limits] config table: 'duration' is not a valid FSD"
        );
        let unknown = parse(json!({"policy": {"bogus": 1}})).unwrap_err();
        assert_eq!(
            unknown,
            "error parsing [policy] config table: 1 object item(s) left unpacked: bogus"
        );
        let size = parse(json!({"policy": {"limits": {"job-size": {"max": {"ncores": -2}}}}}));
        assert_eq!(
            size.unwrap_err(),
            "error parsing [policy.limits.job-size.max] config table: values must be >= -1"
        );
    }
}
