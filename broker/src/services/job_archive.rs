//! `job-archive`: a row in an SQLite file for each job that has ended, for accounting and for when
//! the job manager has purged it.
//!
//! Loaded at rank 0 where the configuration has `[archive]`. Every `period` the jobs that have
//! become inactive since the last row are read and written. What can't be read or written now is
//! tried again, so the archive never has a hole behind its newest row. A new configuration counts
//! when the module is loaded again.

mod database;
mod scan;

use std::path::PathBuf;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fsd;
use tokio::task::JoinHandle;

use self::database::Database;
use self::scan::Scanner;
use crate::attrs::Attrs;
use crate::config::Config;
use crate::config::storage::Archive;
use crate::context::Context;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;
use crate::tstat::Tstat;

/// How long another program may hold the file before a write is given up, in seconds.
const BUSY_TIMEOUT: f64 = 50.0;
const FILE: &str = "job-archive.sqlite";

/// The service.
#[derive(Debug)]
pub struct JobArchive {
    database: Database,
    /// Milliseconds that the rows took, one by one.
    stored: Tstat,
    timer: JoinHandle<()>,
}

#[derive(Debug)]
struct Settings {
    path: PathBuf,
    period: Duration,
    busy_timeout: Duration,
}

impl Service for JobArchive {
    const NAME: &'static str = "job-archive";
    const SERVICES: &'static [&'static str] = &["job-archive"];

    async fn start(context: &Context<JobArchive>, args: &[String]) -> Result<JobArchive, Failure> {
        if let Some(arg) = args.first() {
            return Err(Failure::new(Errno::EINVAL, format!("{arg}: unknown option")));
        }
        let settings = settings(&context.config(), context.broker().attrs())?;
        let database = Database::open(&settings.path, settings.busy_timeout).await?;
        let scanner = Scanner::new(context.handle().clone(), database.clone());
        let timer = tokio::task::spawn_local(scan(context.clone(), scanner, settings.period));
        Ok(JobArchive { database, stored: Tstat::default(), timer })
    }

    fn methods() -> Methods<JobArchive> {
        Methods::default()
    }

    fn stats(&self, _: &Context<JobArchive>) -> Option<serde_json::Value> {
        Some(self.stored.to_json())
    }

    async fn stop(self, _: &Context<JobArchive>) {
        self.timer.abort();
        // A transaction under way is waited for, so that the file is closed as it should be.
        self.database.close().await;
    }
}

/// Look for jobs that have ended, every period after the last look.
async fn scan(context: Context<JobArchive>, mut scanner: Scanner, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let result = scanner.run().await;
        if let Err(failure) = &result.end {
            let again = fsd::format(period.as_secs_f64()).unwrap_or_default();
            context.log(Severity::Err, format!("{failure}; it is tried again in {again}"));
        }
        context.later(move |archive: &mut JobArchive| {
            result.times.into_iter().for_each(|time| archive.stored.push(time));
        });
    }
}

/// From `[archive]`; the file is in statedir unless it is said where.
fn settings(config: &Config, attrs: &Attrs) -> Result<Settings, Failure> {
    let archive = Archive::parse(config)?;
    let unset = |text: &str| Failure::new(Errno::EINVAL, text);
    let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX);
    let period = archive.period.ok_or_else(|| unset("archive.period: period not set"))?;
    let path = match archive.dbpath {
        Some(path) => path.into(),
        None => {
            let statedir = attrs
                .get("statedir")
                .filter(|_| attrs.get("statedir-cleanup").is_none_or(|cleanup| cleanup != "1"));
            let statedir = statedir.ok_or_else(|| {
                unset("statedir not set, and archive.dbpath neither: no place for the archive")
            })?;
            PathBuf::from(statedir).join(FILE)
        }
    };
    let busy_timeout = seconds(archive.busytimeout.unwrap_or(BUSY_TIMEOUT));
    Ok(Settings { path, period: seconds(period), busy_timeout })
}
