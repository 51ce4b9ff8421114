//! Opening the database: lock, check, create, and bring older files up to date.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flux_protocol::blobref::HashType;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::aside::{self, beside};
use super::database::Database;
use super::error::StoreError;
use super::options::{Begin, Options};
use super::wal::{self, Damage};
use crate::log::Severity;

const MAGIC: &[u8] = b"SQLite format 3\0";
/// Checking the whole file takes about a second per gigabyte. A larger file is checked only when
/// its last user did not close it; blobs are checked when loaded in any case.
const CHECK_ALWAYS_UP_TO: u64 = 1 << 30;
const CACHE_KIB: i64 = 64 * 1024;
/// Tables of checkpoints that are known.
const CHECKPOINT_TABLES: [&str; 2] = ["checkpt", "checkpt_v2"];
/// Key of the one row of flux-core's older checkpoint table.
const OLD_CHECKPOINT_KEY: &str = "kvs-primary";

impl Database {
    /// Open, or create, the file that `options` names. Nobody else can until it is closed.
    pub(super) fn open(
        mut options: Options,
        notes: &mut Vec<(Severity, String)>,
    ) -> Result<Database, StoreError> {
        options.path = real_path(&options.path)?;
        let path = options.path.clone();
        begin(&options, notes)?;
        let found = prepare_file(&path)?;
        check_log(&options, notes)?;
        let db = connect(&options).map_err(|error| explain(&path, error))?;
        if found.unclean || found.size <= CHECK_ALWAYS_UP_TO {
            quick_check(&db, &path)?;
        }
        check_tables(&db, &path)?;
        create_tables(&db).map_err(|error| explain(&path, error))?;
        migrate_checkpoint(&db, &path)?;
        check_hash_type(&db, &options)?;
        let number = |sql: &str| -> Result<i64, StoreError> {
            db.query_row(sql, [], |row| row.get(0)).map_err(|error| explain(&path, error))
        };
        let epoch = number("SELECT IFNULL(MAX(id), 0) FROM checkpt_v2")?;
        let objects = number("SELECT COUNT(1) FROM objects")?;
        let file = place(&path).map_err(|error| StoreError::File { path: path.clone(), error })?;
        let database = Database { db, options, epoch, objects, file };
        match database.checkpoints() {
            // An error of `checkpoint-get`, not of opening the file.
            Ok(_) | Err(StoreError::BadCheckpoint { .. }) => Ok(database),
            Err(error) => Err(error),
        }
    }
}

/// Begin with what is there, or without it.
fn begin(options: &Options, notes: &mut Vec<(Severity, String)>) -> Result<(), StoreError> {
    let path = &options.path;
    let failed = |error| StoreError::File { path: path.clone(), error };
    if options.begin == Begin::AsItIs && !aside::is_there(path) {
        return aside::put_back(path).map(drop).map_err(failed);
    }
    if aside::is_in_use(path).map_err(failed)? {
        return Err(StoreError::InUse { path: path.clone() });
    }
    match options.begin {
        Begin::Restored => aside::set_aside(path).map_err(failed),
        Begin::Empty => aside::remove(path).and_then(|()| aside::forget(path)).map_err(failed),
        Begin::AsItIs => {
            aside::put_back(path).map_err(failed)?;
            let text = format!(
                "{}: restoring a dump did not come to its end; the store is as it was before",
                path.display()
            );
            notes.push((Severity::Warning, text));
            Ok(())
        }
    }
}

/// SQLite follows links, and has the log beside the file that they lead to.
fn real_path(path: &Path) -> Result<PathBuf, StoreError> {
    match std::fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == ErrorKind::NotFound => match std::fs::read_link(path) {
            Ok(target) => {
                let real = path.parent().unwrap_or(Path::new(".")).join(&target);
                match aside::is_there(&real) {
                    true => Ok(real),
                    false => Err(StoreError::BrokenLink { path: path.to_owned(), target }),
                }
            }
            Err(_) => Ok(path.to_owned()),
        },
        Err(error) => Err(StoreError::File { path: path.to_owned(), error }),
    }
}

/// SQLite drops what it can't read of a log, and says nothing: then it is gone.
fn check_log(options: &Options, notes: &mut Vec<(Severity, String)>) -> Result<(), StoreError> {
    let (path, log) = (options.path.clone(), beside(&options.path, "-wal"));
    let damage = wal::check(&log).map_err(|error| StoreError::File { path: log.clone(), error })?;
    match damage {
        None => Ok(()),
        Some(Damage::Header) => Err(StoreError::LogHeader { log, path }),
        // Without syncs a checkpoint is as good as anything else.
        Some(Damage::Frames { from }) if options.synchronous != "OFF" => {
            Err(StoreError::LogFrames { log, path, from })
        }
        Some(Damage::Frames { from } | Damage::Gap { from, .. }) => {
            let lost = match damage {
                Some(Damage::Gap { lost, .. }) => lost.to_string(),
                _ => "some".to_owned(),
            };
            let text = format!(
                "{}: {lost} transactions behind byte {from} were not on the disk as a whole when \
                 the machine stopped, and are lost",
                log.display()
            );
            notes.push((Severity::Warning, text));
            Ok(())
        }
    }
}

/// Which file is there, whatever its name.
pub(super) fn place(path: &Path) -> std::io::Result<(u64, u64)> {
    path.metadata().map(|file| (file.dev(), file.ino()))
}

/// The file as the last user left it.
struct Found {
    size: u64,
    /// There is a log that closing would have removed.
    unclean: bool,
}

/// Make sure that the file is there, is ours to write, is for the owner alone when new, and looks
/// like a database when old.
fn prepare_file(path: &Path) -> Result<Found, StoreError> {
    let file_error = |error| StoreError::File { path: path.to_owned(), error };
    let (existed, size) = match path.metadata() {
        // Opening a FIFO would wait for somebody to write to it.
        Ok(file) if !file.is_file() && !file.is_dir() => {
            return Err(StoreError::NoFile { path: path.to_owned() });
        }
        found => found.map_or((false, 0), |file| (true, file.len())),
    };
    check_log_has_its_file(path, size)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(file_error)?;
    let size = file.metadata().map_err(file_error)?.len();
    let unclean = beside(path, "-wal").exists() || beside(path, "-journal").exists();
    let mut magic = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(file_error)?;
    if size > 0 && magic != MAGIC {
        let reason = "it does not begin like an SQLite 3 file".to_owned();
        return Err(StoreError::NoDatabase { path: path.to_owned(), reason });
    }
    if size == 0 && existed {
        check_that_it_is_new(path)?;
    }
    Ok(Found { size, unclean })
}

/// An empty file may be a new one, or what a crash or a slip has left of an old one. The first
/// start leaves a database there, and what comes after it these folders.
fn check_that_it_is_new(path: &Path) -> Result<(), StoreError> {
    let folders = ["dump", "plugin-cache"].map(|name| path.with_file_name(name));
    match folders.into_iter().find(|folder| folder.exists()) {
        None => Ok(()),
        Some(trace) => Err(StoreError::Emptied {
            path: path.to_owned(),
            what: "empty",
            trace,
            remedy: path.to_owned(),
        }),
    }
}

/// SQLite throws away the log of a file that is not there or empty. It may have all that there was.
fn check_log_has_its_file(path: &Path, size: u64) -> Result<(), StoreError> {
    let log = beside(path, "-wal");
    let (what, remedy) = match path.exists() {
        true => ("empty", path),
        false => ("missing", &*log),
    };
    match size == 0 && log.metadata().is_ok_and(|log| log.len() > 0) {
        false => Ok(()),
        true => Err(StoreError::Emptied {
            path: path.to_owned(),
            what,
            trace: log.clone(),
            remedy: remedy.to_owned(),
        }),
    }
}

fn connect(options: &Options) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&options.path, flags)?;
    db.busy_timeout(std::time::Duration::ZERO)?;
    // Before anything else touches the file, so that there is no shared memory file either.
    pragma(&db, "locking_mode", "EXCLUSIVE")?;
    pragma(&db, "journal_mode", &options.journal_mode)?;
    pragma(&db, "synchronous", &options.synchronous)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    if let Some(pages) = options.max_pages {
        pragma(&db, "max_page_count", &pages.to_string())?;
    }
    db.set_prepared_statement_cache_capacity(32);
    // Takes the lock.
    db.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
    Ok(db)
}

/// Some pragmas return a row, some don't.
fn pragma(db: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    db.pragma_update_and_check(None, name, value, |_| Ok(())).or_else(|error| match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    })
}

fn quick_check(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let verdict: String = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| explain(path, error))?;
    if verdict == "ok" { Ok(()) } else { Err(corrupt(path, verdict)) }
}

/// What is somebody else's is not to be written to.
fn check_tables(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let explain = |error| explain(path, error);
    let mut statement =
        db.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").map_err(explain)?;
    let names = statement.query_map([], |row| row.get(0)).map_err(explain)?;
    let tables: Vec<String> = names.collect::<Result<_, _>>().map_err(explain)?;
    if tables.is_empty() {
        return Ok(());
    }
    // The instance would begin anew without the checkpoints that are in there.
    if let Some(table) = tables
        .iter()
        .find(|name| name.starts_with("checkpt") && !CHECKPOINT_TABLES.contains(&name.as_str()))
    {
        return Err(StoreError::Newer { path: path.to_owned(), table: table.clone() });
    }
    for column in ["hash", "size", "object"] {
        if !db.column_exists(None, "objects", column).map_err(explain)? {
            let reason = format!("it has other tables, and none of objects with a {column}");
            return Err(StoreError::NoDatabase { path: path.to_owned(), reason });
        }
    }
    Ok(())
}

fn create_tables(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS objects(\
           hash BLOB PRIMARY KEY, size INT, object BLOB, epoch INT DEFAULT 0);\
         CREATE TABLE IF NOT EXISTS checkpt_v2(\
           id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, value TEXT);",
    )?;
    // Files of flux-core before 0.88 have no epochs.
    if !db.column_exists(None, "objects", "epoch")? {
        db.execute_batch("ALTER TABLE objects ADD COLUMN epoch INT DEFAULT 0")?;
    }
    Ok(())
}

/// flux-core kept one checkpoint in another table once.
fn migrate_checkpoint(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let explain = |error| explain(path, error);
    if !db.table_exists(None, "checkpt").map_err(explain)? {
        return Ok(());
    }
    let value: Option<String> = db
        .query_row("SELECT value FROM checkpt WHERE key = ?1", [OLD_CHECKPOINT_KEY], |row| {
            row.get(0)
        })
        .optional()
        .map_err(explain)?;
    let migrate = |value: Option<String>| {
        let transaction = db.unchecked_transaction()?;
        if let Some(value) = value {
            transaction.execute("INSERT INTO checkpt_v2 (value) VALUES (?1)", [value])?;
        }
        transaction.execute_batch("DROP TABLE checkpt")?;
        transaction.commit()
    };
    if let Some(value) = &value
        && serde_json::from_str::<flux_protocol::rpc::content::Checkpoint>(value).is_err()
    {
        return Err(StoreError::BadCheckpoint { path: path.to_owned(), reason: value.clone() });
    }
    migrate(value).map_err(explain)
}

fn check_hash_type(db: &Connection, options: &Options) -> Result<(), StoreError> {
    let length: Option<i64> = db
        .query_row("SELECT LENGTH(CAST(hash AS BLOB)) FROM objects LIMIT 1", [], |row| row.get(0))
        .optional()
        .map_err(|error| explain(&options.path, error))?;
    let holds = HashType::ALL
        .into_iter()
        .find(|hash| length.is_some_and(|n| i64::try_from(hash.digest_len()) == Ok(n)));
    match holds {
        Some(holds) if holds != options.hash => {
            Err(StoreError::HashType { path: options.path.clone(), holds, wanted: options.hash })
        }
        _ => Ok(()),
    }
}

fn explain(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::InUse { path: path.to_owned() }
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => corrupt(path, error),
        _ => StoreError::Sqlite { path: path.to_owned(), error },
    }
}

fn corrupt(path: &Path, reason: impl ToString) -> StoreError {
    // SQLite's check answers in lines, under a headline.
    let reason = reason.to_string();
    let lines = reason.lines().filter(|line| !line.starts_with("***"));
    StoreError::Corrupt { path: path.to_owned(), reason: lines.collect::<Vec<_>>().join("; ") }
}
