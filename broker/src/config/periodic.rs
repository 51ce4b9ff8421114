//! `[heartbeat]` and `[cron]`: what goes on periodically.

use super::Config;
use super::table::{Table, TableError};

/// `[heartbeat]`; times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heartbeat {
    pub period: f64,
    /// Without a pulse for so long a broker leaves its parent; -1 is never.
    pub timeout: f64,
    /// Periods after which a late pulse is logged.
    pub warn_thresh: i64,
}

/// `[cron]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cron {
    /// Crontab files that are loaded at the start.
    pub directory: Option<String>,
}

impl Heartbeat {
    pub fn parse(config: &Config) -> Result<Heartbeat, TableError> {
        let mut table = Table::of(config, "heartbeat")?;
        let period = table.fsd("period")?.unwrap_or(2.0);
        if period <= 0.0 || period.is_infinite() {
            return Err(table.bad("period", "heartbeat.period must be a positive FSD value"));
        }
        let mut timeout = table.fsd("timeout")?.unwrap_or(300.0);
        if timeout == 0.0 || timeout.is_infinite() {
            timeout = -1.0;
        }
        if timeout != -1.0 && timeout < period * 2.0 {
            let text = "heartbeat.timeout must be >= 2*heartbeat.period, infinity, or 0";
            return Err(table.bad("timeout", text));
        }
        let warn_thresh = table.integer("warn_thresh")?.unwrap_or(3);
        if warn_thresh <= 0 {
            return Err(table.bad("warn_thresh", "heartbeat.warn_thresh must be positive"));
        }
        table.finish()?;
        Ok(Heartbeat { period, timeout, warn_thresh })
    }
}

impl Cron {
    pub fn parse(config: &Config) -> Result<Cron, TableError> {
        let mut table = Table::lenient(config, "cron")?;
        let cron = Cron { directory: table.string("directory")?.map(str::to_owned) };
        table.finish()?;
        Ok(cron)
    }
}
