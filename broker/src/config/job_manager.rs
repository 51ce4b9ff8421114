//! `[job-manager]`: inactive jobs, plugins, prolog, epilog, housekeeping.

use serde_json::Value;

use super::Config;
use super::table::{Table, TableError};
use crate::plugin::PluginSpec;

#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobManager {
    /// Seconds after which an inactive job is forgotten; never without.
    pub inactive_age_limit: Option<f64>,
    /// Number of inactive jobs that are kept; all without.
    pub inactive_num_limit: Option<u64>,
    pub plugins: Vec<Plugin>,
    pub prolog: Option<Perilog>,
    pub epilog: Option<Perilog>,
    pub housekeeping: Option<Housekeeping>,
    /// `perilog.log-ignore`: patterns of prolog and epilog output that is not logged.
    pub log_ignore: Vec<String>,
    pub stop_queues_on_restart: bool,
}

/// An entry of `plugins`: one to load, or one to remove.
#[derive(Debug, Clone, PartialEq)]
pub enum Plugin {
    Load { path: String, conf: Option<Value> },
    Remove { name: String },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Perilog {
    /// Empty runs the IMP's own.
    pub command: Vec<String>,
    /// Run on each rank of the job, not on rank 0 alone.
    pub per_rank: bool,
    /// Seconds, 0 for none.
    pub timeout: Option<f64>,
    pub kill_timeout: Option<f64>,
    pub cancel_on_exception: Option<bool>,
    pub exit_on_first_error: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Housekeeping {
    pub command: Vec<String>,
    /// Seconds after which nodes that are ready do not wait for the others; 0 is at once.
    pub release_after: Option<f64>,
    pub exit_on_first_error: bool,
}

impl JobManager {
    pub fn parse(config: &Config) -> Result<JobManager, TableError> {
        let mut table = Table::of(config, "job-manager")?;
        let mut perilog = table.table("perilog")?;
        let job_manager = JobManager {
            inactive_age_limit: table.fsd("inactive-age-limit")?,
            inactive_num_limit: table.count("inactive-num-limit")?,
            plugins: plugins(&mut table)?,
            prolog: perilog_table(&mut table, "prolog")?,
            epilog: perilog_table(&mut table, "epilog")?,
            housekeeping: housekeeping(&mut table)?,
            log_ignore: patterns(&mut perilog)?,
            stop_queues_on_restart: table.bool("stop-queues-on-restart")?.unwrap_or(false),
        };
        perilog.finish()?;
        // Plugins have keys of their own here.
        table.finish_among_others(config);
        Ok(job_manager)
    }
}

fn patterns(perilog: &mut Table<'_>) -> Result<Vec<String>, TableError> {
    let patterns = owned(perilog.strings("log-ignore")?);
    for pattern in &patterns {
        if let Err(error) = regex_lite::Regex::new(pattern) {
            let text = format!("Failed to compile pattern '{pattern}': {error}");
            return Err(perilog.bad("log-ignore", text));
        }
    }
    Ok(patterns)
}

fn plugins(table: &mut Table<'_>) -> Result<Vec<Plugin>, TableError> {
    if table.any("plugins").is_some_and(|plugins| !plugins.is_array()) {
        return Err(table.bad("plugins", "[job-manager.plugins] config must be an array"));
    }
    let mut plugins = Vec::new();
    for mut entry in table.tables("plugins")?.into_iter().flatten() {
        let (load, remove) = (entry.string("load")?, entry.string("remove")?);
        let conf = entry.any("conf").cloned();
        // How the plugin is confined; what the values say is read below.
        for key in ["sha256", "memory", "deadline", "on-fault", "record"] {
            entry.string(key)?;
        }
        entry.strings("caps")?;
        entry.count("max-faults")?;
        let plugin = match (load, remove) {
            (Some(path), None) => Plugin::Load { path: path.to_owned(), conf },
            (None, Some(name)) => Plugin::Remove { name: name.to_owned() },
            _ => return Err(entry.bad("load", "one of 'load' and 'remove' must be there")),
        };
        let (name, whole) = (entry.name().to_owned(), entry.whole());
        entry.finish()?;
        if let Plugin::Load { .. } = plugin {
            PluginSpec::from_value(&whole)
                .map_err(|error| TableError::value(&name, error.key(), error.to_string()))?;
        }
        plugins.push(plugin);
    }
    Ok(plugins)
}

fn perilog_table(parent: &mut Table<'_>, key: &'static str) -> Result<Option<Perilog>, TableError> {
    let mut table = parent.table(key)?;
    if table.any("command").is_some_and(|command| !command.is_array()) {
        let text = format!("[job-manager.{key}]: command must be an array");
        return Err(table.bad("command", text));
    }
    let perilog = Perilog {
        command: owned(table.strings("command")?),
        per_rank: table.bool("per-rank")?.unwrap_or(false),
        timeout: seconds(&mut table, "timeout")?,
        kill_timeout: seconds(&mut table, "kill-timeout")?,
        cancel_on_exception: table.bool("cancel-on-exception")?,
        exit_on_first_error: table.bool("exit-on-first-error")?.unwrap_or(false),
    };
    let there = !table.is_empty();
    table.finish()?;
    Ok(there.then_some(perilog))
}

/// A duration that may be given as a bare number of seconds.
fn seconds(table: &mut Table<'_>, key: &'static str) -> Result<Option<f64>, TableError> {
    match table.any(key) {
        Some(Value::Number(number)) => Ok(number.as_f64()),
        _ => table.fsd(key),
    }
}

fn housekeeping(parent: &mut Table<'_>) -> Result<Option<Housekeeping>, TableError> {
    let mut table = parent.table("housekeeping")?;
    let there = parent.any("housekeeping").is_some();
    let housekeeping = Housekeeping {
        command: owned(table.strings("command")?),
        release_after: table.fsd("release-after")?,
        exit_on_first_error: table.bool("exit-on-first-error")?.unwrap_or(false),
    };
    table.bool("use-systemd-unit")?;
    table.finish()?;
    Ok(there.then_some(housekeeping))
}

fn owned(strings: Option<Vec<&str>>) -> Vec<String> {
    strings.into_iter().flatten().map(str::to_owned).collect()
}
