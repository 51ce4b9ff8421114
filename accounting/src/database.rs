//! Open and create the database.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error::{Error, Result};
use crate::schema;

/// Where the accounting database is, unless `-p` says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/var/lib/flux/FluxAccounting.db";

/// Where the job-archive service of a system instance writes.
pub(crate) const DEFAULT_ARCHIVE: &str = "/var/lib/flux/job-archive.sqlite";

/// How long to wait for another writer.
const BUSY: Duration = Duration::from_secs(60);

/// Open a database that is there, to write to it where its permissions allow that.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    // SQLite's word for anything that goes wrong here is "unable to open database file".
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(unable(path, &error));
        }
        _ => {
            return Err(Error::text(format!("Database file does not exist: {}", path.display())));
        }
    }
    if let Err(error) = std::fs::File::open(path) {
        return Err(unable(path, &error));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "foreign_keys", true)?;
    Ok(db)
}

fn unable(path: &Path, error: &std::io::Error) -> Error {
    let Error::Text(text) = Error::io(path, error) else {
        return Error::text(format!("Unable to open database file: {}", path.display()));
    };
    Error::Text(format!("Unable to open database file: {text}"))
}

/// All of what `change` does, or nothing.
pub(crate) fn change<T>(
    db: &mut Connection,
    change: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    // Whoever reads first and writes later could find that another has written in between.
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let outcome = change(&transaction)?;
    transaction.commit()?;
    Ok(outcome)
}

/// `flux account create-db`
pub(crate) fn create(
    path: &Path,
    reset_weeks: Option<u32>,
    half_life_weeks: Option<u32>,
) -> Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, &error))?;
    }
    let bins = match (reset_weeks, half_life_weeks) {
        (Some(reset), Some(half_life)) => reset.div_ceil(half_life),
        _ => schema::DEFAULT_BINS,
    };
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    let end = now() + f64::from(half_life_weeks.unwrap_or(1)) * schema::WEEK;
    change(&mut db, |db| {
        if !schema::columns(db, "association_table")?.is_empty() {
            return Err(Error::text(format!(
                "{}: is an accounting database already; remove it first to begin anew",
                path.display()
            )));
        }
        schema::create(db, bins, end)
    })
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
