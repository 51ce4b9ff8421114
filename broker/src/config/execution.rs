//! `[exec]` and `[ingest]`: how jobs come in and are run.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::Config;
use super::table::{Table, TableError};
use crate::plugin::PluginSpec;

/// How jobs are run: in shells that job-exec starts through the brokers, and that end with them.
/// flux-core also has `bgexec`, whose shells run on when job-exec does not.
pub const METHOD: &str = "bulk-exec";

/// Who starts the shells on their nodes. flux-core also has `sdexec`, which has systemd do it.
pub const SERVICE: &str = "rexec";

/// `[exec]`; times in seconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exec {
    /// Path of the IMP; without it only the owner's jobs run.
    pub imp: Option<String>,
    pub job_shell: Option<String>,
    pub kill_timeout: Option<f64>,
    pub max_kill_timeout: Option<f64>,
    pub max_kill_count: Option<u32>,
    pub term_signal: Option<i32>,
    pub kill_signal: Option<i32>,
    /// 0 is none.
    pub barrier_timeout: Option<f64>,
    /// 0 is none.
    pub shell_exit_timeout: Option<f64>,
    pub max_start_delay_percent: Option<f64>,
    pub testexec_allow_guests: bool,
}

/// `[ingest]`
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ingest {
    pub batch_count: Option<u64>,
    /// Bytes as text, such as `10M`.
    pub buffer_size: Option<String>,
    pub validator: Stage,
    pub frobnicator: Stage,
}

/// A stage of ingest with its plugins.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stage {
    pub disable: bool,
    /// Names, paths, or tables as in `[job-manager] plugins`.
    pub plugins: Option<Vec<Value>>,
    pub args: Vec<String>,
}

impl Exec {
    pub fn parse(config: &Config) -> Result<Exec, TableError> {
        let mut table = Table::lenient(config, "exec")?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let mut testexec = table.table("testexec")?;
        let exec = Exec {
            imp: owned(table.string("imp")?),
            job_shell: owned(table.string("job-shell")?),
            kill_timeout: some_time(&mut table, "kill-timeout")?,
            max_kill_timeout: some_time(&mut table, "max-kill-timeout")?,
            max_kill_count: some_count(&mut table, "max-kill-count")?,
            term_signal: signal(&mut table, "term-signal")?,
            kill_signal: signal(&mut table, "kill-signal")?,
            barrier_timeout: finite(table.fsd("barrier-timeout")?),
            shell_exit_timeout: finite(none_or_fsd(&mut table, "shell-exit-timeout")?),
            max_start_delay_percent: percent(&mut table, "max-start-delay-percent")?,
            testexec_allow_guests: testexec.bool("allow-guests")?.unwrap_or(false),
        };
        testexec.finish()?;
        only(&mut table, "method", METHOD, "bgexec")?;
        only(&mut table, "service", SERVICE, "sdexec")?;
        // Known to Flux where systemd runs jobs; not to us.
        table.any("sdexec-properties");
        table.integer("sdexec-stop-timer-sec")?;
        table.integer("sdexec-stop-timer-signal")?;
        table.bool("sdexec-constrain-resources")?;
        table.finish()?;
        Ok(exec)
    }
}

/// A key with one value that there is here; it is known what another one is for.
fn only(
    table: &mut Table<'_>,
    key: &'static str,
    only: &str,
    elsewhere: &str,
) -> Result<(), TableError> {
    match table.string(key)? {
        Some(name) if name == elsewhere => {
            let text = format!("exec.{key} '{name}' is not there: jobs are run by {only} alone");
            Err(table.bad(key, text))
        }
        Some(name) if name != only => {
            Err(table.bad(key, format!("unknown exec.{key} '{name}': expected {only}")))
        }
        _ => Ok(()),
    }
}

/// Infinity is for ever, which is 0.
fn finite(seconds: Option<f64>) -> Option<f64> {
    seconds.map(|seconds| if seconds.is_finite() { seconds } else { 0.0 })
}

/// A duration that is longer than none.
fn some_time(table: &mut Table<'_>, key: &'static str) -> Result<Option<f64>, TableError> {
    let text = table.string(key)?.unwrap_or_default();
    match table.fsd(key) {
        Ok(Some(0.0)) => {
            Err(table.bad(key, format!("invalid {key}: {text}: must be longer than 0")))
        }
        Err(_) => Err(table.bad(key, format!("invalid {key}: {text}: not a duration"))),
        time => time,
    }
}

fn some_count(table: &mut Table<'_>, key: &'static str) -> Result<Option<u32>, TableError> {
    let Some(number) = table.integer(key)? else { return Ok(None) };
    let count = u32::try_from(number).ok().filter(|count| *count > 0);
    count.map(Some).ok_or_else(|| table.bad(key, format!("invalid {key}={number}")))
}

fn percent(table: &mut Table<'_>, key: &'static str) -> Result<Option<f64>, TableError> {
    let percent = table.number(key)?;
    match percent.is_none_or(|percent| percent >= 0.0) {
        true => Ok(percent),
        false => Err(table.bad(key, format!("{key} must not be negative"))),
    }
}

fn none_or_fsd(table: &mut Table<'_>, key: &'static str) -> Result<Option<f64>, TableError> {
    match table.string(key)? {
        Some("none") => Ok(Some(0.0)),
        _ => table.fsd(key),
    }
}

/// A signal's name, with or without `SIG`, or its number.
fn signal(table: &mut Table<'_>, key: &'static str) -> Result<Option<i32>, TableError> {
    let Some(name) = table.string(key)? else { return Ok(None) };
    let by_name = || name.parse::<Signal>().or_else(|_| format!("SIG{name}").parse());
    let signal = name.parse::<i32>().map(Signal::try_from).unwrap_or_else(|_| by_name());
    match signal {
        Ok(signal) => Ok(Some(signal as i32)),
        Err(_) => Err(table.bad(key, format!("invalid {key}: {name}"))),
    }
}

impl Ingest {
    pub fn parse(config: &Config) -> Result<Ingest, TableError> {
        let mut table = Table::lenient(config, "ingest")?;
        let ingest = Ingest {
            batch_count: table.count("batch-count")?,
            buffer_size: table.string("buffer-size")?.map(str::to_owned),
            validator: stage(table.table("validator")?)?,
            frobnicator: stage(table.table("frobnicator")?)?,
        };
        table.finish()?;
        Ok(ingest)
    }
}

fn plugins(table: &mut Table<'_>) -> Result<Option<Vec<Value>>, TableError> {
    let Some(array) = table.array("plugins")? else { return Ok(None) };
    if !array.iter().all(|entry| entry.is_string() || entry.is_object()) {
        return Err(table.bad("plugins", "plugins: expected names or tables"));
    }
    for entry in array {
        PluginSpec::from_value(entry).map_err(|error| table.bad("plugins", error.to_string()))?;
    }
    Ok(Some(array.clone()))
}

fn stage(mut table: Table<'_>) -> Result<Stage, TableError> {
    let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let stage = Stage {
        disable: table.bool("disable")?.unwrap_or(false),
        plugins: plugins(&mut table)?,
        args: table.strings("args")?.map(owned).unwrap_or_default(),
    };
    // A plugin of the stage has a table of its own there, by its name.
    let loads = stage.plugins.iter().flatten();
    let loads = loads.filter_map(|entry| entry.get("load").unwrap_or(entry).as_str());
    let stem = |load: &str| {
        let file = load.rsplit('/').next().unwrap_or(load);
        file.strip_suffix(".wasm").or(file.strip_suffix(".so")).unwrap_or(file).to_owned()
    };
    table.leave(loads.map(stem));
    table.finish()?;
    Ok(stage)
}
