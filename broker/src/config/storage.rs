//! `[kvs]`, `[content-sqlite]`, `[archive]`: what is kept on disk.

use super::Config;
use super::table::{Table, TableError};

/// `[kvs]`
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Kvs {
    /// Seconds between checkpoints; without it only at the end.
    pub checkpoint_period: Option<f64>,
    pub gc_threshold: Option<u64>,
}

/// `[content-sqlite]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentSqlite {
    pub journal_mode: Option<String>,
    pub synchronous: Option<String>,
    pub max_checkpoints: Option<u64>,
}

/// `[archive]`; times in seconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Archive {
    pub period: Option<f64>,
    pub dbpath: Option<String>,
    pub busytimeout: Option<f64>,
}

impl Kvs {
    pub fn parse(config: &Config) -> Result<Kvs, TableError> {
        let mut table = Table::lenient(config, "kvs")?;
        let text = table.string("checkpoint-period")?.unwrap_or_default();
        let kvs = Kvs {
            checkpoint_period: table.fsd("checkpoint-period").map_err(|_| {
                table.bad("checkpoint-period", format!("invalid checkpoint-period config: {text}"))
            })?,
            gc_threshold: table.count("gc-threshold")?,
        };
        table.finish()?;
        Ok(kvs)
    }
}

const JOURNAL_MODES: [&str; 6] = ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL", "OFF"];
const SYNCHRONOUS: [&str; 4] = ["EXTRA", "FULL", "NORMAL", "OFF"];

impl ContentSqlite {
    pub fn parse(config: &Config) -> Result<ContentSqlite, TableError> {
        let mut table = Table::lenient(config, "content-sqlite")?;
        let sqlite = ContentSqlite {
            journal_mode: one_of(&mut table, "journal_mode", &JOURNAL_MODES)?,
            synchronous: one_of(&mut table, "synchronous", &SYNCHRONOUS)?,
            max_checkpoints: table.count("max_checkpoints")?,
        };
        if sqlite.max_checkpoints == Some(0) {
            let text = "content-sqlite.max_checkpoints must be a positive integer";
            return Err(table.bad("max_checkpoints", text));
        }
        table.finish()?;
        Ok(sqlite)
    }
}

fn one_of(
    table: &mut Table<'_>,
    key: &'static str,
    allowed: &[&str],
) -> Result<Option<String>, TableError> {
    let Some(value) = table.string(key)? else { return Ok(None) };
    if allowed.contains(&value) {
        return Ok(Some(value.to_owned()));
    }
    Err(table.bad(key, format!("invalid {key} '{value}': one of {}", allowed.join(", "))))
}

impl Archive {
    pub fn parse(config: &Config) -> Result<Archive, TableError> {
        let mut table = Table::lenient(config, "archive")?;
        let archive = Archive {
            period: table.fsd("period")?,
            dbpath: table.string("dbpath")?.map(str::to_owned),
            busytimeout: table.fsd("busytimeout")?,
        };
        let missing = config.object().contains_key("archive")
            && archive.period.is_none_or(|period| period <= 0.0);
        let error = table.bad("period", "period not set");
        table.finish()?;
        if missing { Err(error) } else { Ok(archive) }
    }
}
