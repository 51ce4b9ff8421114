//! Tables of the accounting database, column by column those of flux-accounting 0.18.

use rusqlite::Connection;

use crate::error::Result;

/// A week, the unit of usage periods.
pub(crate) const WEEK: f64 = 604_800.0;

/// Periods of usage that are kept, where `create-db` is not told otherwise.
pub(crate) const DEFAULT_BINS: u32 = 4;

/// What a node limit is where there is none.
pub(crate) const UNLIMITED: i64 = i32::MAX as i64;

/// What a user has that the system does not know.
pub(crate) const DEFAULT_UID: i64 = 65_534;

/// Columns of usage in `job_usage_factor_table` are called this and their number.
pub(crate) const BIN_PREFIX: &str = "usage_factor_period_";

const TABLES: [&str; 5] = [
    "CREATE TABLE association_table (
        creation_time    bigint(20)                     NOT NULL,
        mod_time         bigint(20) DEFAULT 0           NOT NULL,
        active           int(11)    DEFAULT 1           NOT NULL,
        username         tinytext                       NOT NULL,
        userid           int(11)    DEFAULT 65534       NOT NULL,
        bank             tinytext                       NOT NULL,
        default_bank     tinytext                       NOT NULL,
        shares           int(11)    DEFAULT 1           NOT NULL ON CONFLICT REPLACE,
        job_usage        real       DEFAULT 0.0         NOT NULL,
        fairshare        real       DEFAULT 0.5         NOT NULL,
        max_running_jobs int(11)    DEFAULT 5           NOT NULL ON CONFLICT REPLACE,
        max_active_jobs  int(11)    DEFAULT 7           NOT NULL ON CONFLICT REPLACE,
        max_nodes        int(11)    DEFAULT 2147483647  NOT NULL ON CONFLICT REPLACE,
        queues           tinytext   DEFAULT ''          NOT NULL ON CONFLICT REPLACE,
        PRIMARY KEY (username, bank)
    )",
    "CREATE TABLE bank_table (
        bank_id     integer PRIMARY KEY AUTOINCREMENT,
        bank        text                NOT NULL,
        active      int(11) DEFAULT 1   NOT NULL,
        parent_bank text    DEFAULT '',
        shares      int                 NOT NULL
    )",
    "CREATE TABLE job_usage_factor_table (
        username           tinytext         NOT NULL,
        userid             int(11)          NOT NULL,
        bank               tinytext         NOT NULL,
        last_job_timestamp real DEFAULT 0.0,
        BINS
        PRIMARY KEY (username, bank)
    )",
    "CREATE TABLE t_half_life_period_table (
        cluster              tinytext DEFAULT 'cluster',
        end_half_life_period real     DEFAULT 0.0
    )",
    "CREATE TABLE queue_table (
        queue             tinytext           NOT NULL,
        min_nodes_per_job int(11) DEFAULT 1  NOT NULL ON CONFLICT REPLACE,
        max_nodes_per_job int(11) DEFAULT 1  NOT NULL ON CONFLICT REPLACE,
        max_time_per_job  int(11) DEFAULT 60 NOT NULL ON CONFLICT REPLACE,
        priority          int(11) DEFAULT 0  NOT NULL ON CONFLICT REPLACE,
        PRIMARY KEY (queue)
    )",
];

/// Make the tables, with `bins` periods of usage of which the first ends at `end`.
pub(crate) fn create(db: &Connection, bins: u32, end: f64) -> Result<()> {
    let columns: String =
        (0..bins).map(|bin| format!("{BIN_PREFIX}{bin} REAL DEFAULT 0.0, ")).collect();
    for table in TABLES {
        db.execute(&table.replace("BINS", &columns), [])?;
    }
    db.execute(
        "INSERT INTO t_half_life_period_table (cluster, end_half_life_period)
         VALUES ('cluster', ?)",
        [end],
    )?;
    Ok(())
}

/// Names of the columns of usage, the newest period first.
pub(crate) fn bins(db: &Connection) -> Result<Vec<String>> {
    let mut columns: Vec<(u32, String)> = columns(db, "job_usage_factor_table")?
        .into_iter()
        .filter_map(|name| Some((name.strip_prefix(BIN_PREFIX)?.parse().ok()?, name)))
        .collect();
    columns.sort();
    Ok(columns.into_iter().map(|(_, name)| name).collect())
}

/// Names of a table's columns; none if there is no such table.
pub(crate) fn columns(db: &Connection, table: &str) -> Result<Vec<String>> {
    let mut stmt = db.prepare("SELECT name FROM pragma_table_info(?)")?;
    let names = stmt.query_map([table], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}
