//! The file: one table, that of flux-core's job-archive, which flux-accounting reads.
//!
//! ```text
//! jobs(id, userid, ranks, t_submit, t_run, t_cleanup, t_inactive, eventlog, jobspec, R)
//!      id: a decimal FLUID; ranks: an RFC 22 idset; times: seconds since the epoch
//! ```
//!
//! A job that never ran has the time 0.0 for what did not happen, and empty ranks and R.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use rusqlite::{Connection, OpenFlags, params};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS jobs (
    id CHAR(16) PRIMARY KEY, userid INT, ranks TEXT,
    t_submit REAL, t_run REAL, t_cleanup REAL, t_inactive REAL,
    eventlog TEXT, jobspec TEXT, R TEXT)";
/// What is there already has been written by a scan that was cut off.
const INSERT: &str = "INSERT OR IGNORE INTO jobs
    (id, userid, ranks, t_submit, t_run, t_cleanup, t_inactive, eventlog, jobspec, R)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// A job that has ended.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: JobId,
    pub(super) userid: u32,
    pub(super) ranks: String,
    pub(super) t_submit: f64,
    pub(super) t_run: f64,
    pub(super) t_cleanup: f64,
    pub(super) t_inactive: f64,
    pub(super) eventlog: String,
    pub(super) jobspec: String,
    pub(super) r: String,
}

/// The open file. Its work is done on threads of the runtime that may block.
#[derive(Debug, Clone)]
pub(super) struct Database {
    path: PathBuf,
    db: Arc<Mutex<Option<Connection>>>,
}

impl Database {
    /// Open the file or create it, for its owner alone: jobspecs have users' environments.
    pub(super) async fn open(path: &Path, busy_timeout: Duration) -> Result<Database, Failure> {
        let database = Database { path: path.to_owned(), db: Arc::new(Mutex::new(None)) };
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path, busy_timeout)).await;
        let db = opened.map_err(|_| Failure::from(Errno::EIO))??;
        *database.db.lock().unwrap_or_else(PoisonError::into_inner) = Some(db);
        Ok(database)
    }

    /// The end of the job that was archived last; 0.0 when there is none.
    pub(super) async fn newest(&self) -> Result<f64, Failure> {
        self.run(|db| {
            let sql = "SELECT IFNULL(MAX(t_inactive), 0.0) FROM jobs";
            db.query_row(sql, [], |row| row.get(0))
        })
        .await
    }

    /// Write rows, all or none; the milliseconds of each.
    pub(super) async fn insert(&self, rows: Vec<Row>) -> Result<Vec<f64>, Failure> {
        self.run(move |db| {
            let transaction = db.transaction()?;
            let mut times = Vec::with_capacity(rows.len());
            for row in &rows {
                let start = Instant::now();
                transaction.prepare_cached(INSERT)?.execute(params![
                    row.id.0.to_string(),
                    row.userid,
                    row.ranks,
                    row.t_submit,
                    row.t_run,
                    row.t_cleanup,
                    row.t_inactive,
                    row.eventlog,
                    row.jobspec,
                    row.r,
                ])?;
                times.push(start.elapsed().as_secs_f64() * 1000.0);
            }
            transaction.commit()?;
            Ok(times)
        })
        .await
    }

    /// Close the file when the work under way is done.
    pub(super) async fn close(self) {
        let db = self.db;
        let closed = tokio::task::spawn_blocking(move || {
            drop(db.lock().unwrap_or_else(PoisonError::into_inner).take());
        });
        let _ = closed.await;
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let db = self.db.clone();
        let done = tokio::task::spawn_blocking(move || {
            db.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
        });
        match done.await {
            Ok(Some(result)) => result.map_err(|error| explain(&self.path, &error)),
            Ok(None) | Err(_) => Err(Failure::new(Errno::EBADF, "the archive is closed")),
        }
    }
}

fn open(path: &Path, busy_timeout: Duration) -> Result<Connection, Failure> {
    let mut create = OpenOptions::new();
    create.read(true).write(true).create(true).truncate(false).mode(0o600);
    create.open(path).map_err(|error| {
        let errno = Errno::from(&error);
        Failure::new(errno, format!("{}: {error}", path.display()))
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let prepare = || -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(busy_timeout)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.execute(CREATE, [])?;
        // A table of this name with other columns is somebody else's.
        drop(db.prepare(INSERT)?);
        Ok(db)
    };
    prepare().map_err(|error| explain(path, &error))
}

fn explain(path: &Path, error: &rusqlite::Error) -> Failure {
    Failure::new(Errno::EIO, format!("{}: {error}", path.display()))
}
