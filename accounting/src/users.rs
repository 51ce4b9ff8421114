//! Associations: a user and one of the banks that they may charge.

use rusqlite::{Connection, OptionalExtension, ToSql};

use crate::error::{Error, Result};
use crate::{banks, database, schema, table};

const NOT_FOUND: &str = "User not found in association_table";

/// What `add-user` is given.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) username: &'a str,
    /// Looked up if it is the default.
    pub(crate) userid: i64,
    pub(crate) bank: &'a str,
    pub(crate) shares: i64,
    pub(crate) max_running_jobs: i64,
    pub(crate) max_active_jobs: i64,
    pub(crate) max_nodes: i64,
    /// Separated by commas.
    pub(crate) queues: &'a str,
}

/// What `edit-user` is given. The text `-1` stands for the default.
#[derive(Debug, Default)]
pub(crate) struct Changes<'a> {
    pub(crate) default_bank: Option<&'a str>,
    pub(crate) shares: Option<i64>,
    pub(crate) max_running_jobs: Option<i64>,
    pub(crate) max_active_jobs: Option<i64>,
    pub(crate) max_nodes: Option<i64>,
    pub(crate) queues: Option<&'a str>,
}

/// `flux account view-user`
pub(crate) fn view(db: &Connection, username: &str, out: &mut String) -> Result<()> {
    let query = "SELECT * FROM association_table WHERE username=?";
    if !table::print(db, query, [username], banks::WIDTH, out)? {
        out.push_str(NOT_FOUND);
        out.push('\n');
    }
    Ok(())
}

/// `flux account add-user`: an association that was deleted comes back as it was.
pub(crate) fn add(db: &Connection, new: &New<'_>, out: &mut String) -> Result<()> {
    let mut userid = new.userid;
    if userid == schema::DEFAULT_UID {
        match uid(new.username) {
            Some(uid) => userid = uid,
            None => out.push_str("could not find UID for user; adding default UID\n"),
        }
    }
    if !new.queues.is_empty() && !queues_exist(db, new.queues)? {
        out.push_str(NO_QUEUE);
        return Ok(());
    }
    if !banks::exists(db, new.bank)? {
        // The other order is one that flux-accounting lets pass, too.
        eprintln!("flux-account: warning: bank {} is not in bank_table yet", new.bank);
    }
    let existing = "UPDATE association_table SET active=1 WHERE username=? AND bank=?";
    if db.execute(existing, (new.username, new.bank))? > 0 {
        return Ok(());
    }
    let default_bank: Option<String> = db
        .query_row(
            "SELECT default_bank FROM association_table WHERE username=?",
            [new.username],
            |row| row.get(0),
        )
        .optional()?;
    let default_bank = default_bank.as_deref().unwrap_or(new.bank);
    let now = seconds();
    db.execute(
        "INSERT INTO association_table (creation_time, mod_time, username, userid, bank,
         default_bank, shares, max_running_jobs, max_active_jobs, max_nodes, queues)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rusqlite::params![
            now,
            now,
            new.username,
            userid,
            new.bank,
            default_bank,
            new.shares,
            new.max_running_jobs,
            new.max_active_jobs,
            new.max_nodes,
            new.queues,
        ],
    )?;
    db.execute(
        "INSERT OR IGNORE INTO job_usage_factor_table (username, userid, bank) VALUES (?, ?, ?)",
        (new.username, userid, new.bank),
    )?;
    Ok(())
}

/// What is said about a queue that is not there. As with other things that are not found, the exit
/// code of flux-accounting is 0.
const NO_QUEUE: &str = "Queue specified does not exist in queue_table\n";

fn queues_exist(db: &Connection, queues: &str) -> Result<bool> {
    let mut stmt = db.prepare("SELECT 1 FROM queue_table WHERE queue=?")?;
    for queue in queues.split(',') {
        if !stmt.exists([queue])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `flux account delete-user`: the association is disabled; what it has used stays known.
pub(crate) fn delete(db: &Connection, username: &str, bank: &str) -> Result<()> {
    let gone = "UPDATE association_table SET active=0 WHERE username=? AND bank=?";
    let disabled = db.execute(gone, (username, bank))?;
    let default_bank: Option<String> = db
        .query_row(
            "SELECT default_bank FROM association_table WHERE username=?",
            [username],
            |row| row.get(0),
        )
        .optional()?;
    let Some(default_bank) = default_bank else { return Err(Error::text(NOT_FOUND)) };
    if disabled == 0 {
        eprintln!("flux-account: warning: user {username} is not in bank {bank}");
    }
    if default_bank != bank {
        return Ok(());
    }
    // Jobs without a bank of their own go to the oldest of the others from now on.
    let next: Option<String> = db
        .query_row(
            "SELECT bank FROM association_table WHERE active=1 AND username=?
             ORDER BY creation_time, rowid",
            [username],
            |row| row.get(0),
        )
        .optional()?;
    let Some(next) = next else { return Ok(()) };
    let changes = Changes { default_bank: Some(&next), ..Changes::default() };
    edit(db, username, None, &changes, &mut String::new())
}

/// `flux account edit-user`: in one bank, else in all of the user's.
pub(crate) fn edit(
    db: &Connection,
    username: &str,
    bank: Option<&str>,
    changes: &Changes<'_>,
    out: &mut String,
) -> Result<()> {
    let default = |value: &Option<i64>| value.filter(|value| *value != -1);
    let queues = changes.queues.filter(|queues| *queues != "-1");
    if let Some(queues) = queues
        && !queues.is_empty()
        && !queues_exist(db, queues)?
    {
        out.push_str(NO_QUEUE);
        return Ok(());
    }
    let numbers = [
        ("shares", &changes.shares),
        ("max_running_jobs", &changes.max_running_jobs),
        ("max_active_jobs", &changes.max_active_jobs),
        ("max_nodes", &changes.max_nodes),
    ]
    .map(|(column, value)| (column, value.is_some(), default(value)));
    let mut columns: Vec<&str> = Vec::new();
    let mut values: Vec<&dyn ToSql> = Vec::new();
    if let Some(bank) = &changes.default_bank {
        columns.push("default_bank");
        values.push(bank);
    }
    // The tables turn NULL into a column's default.
    for (column, given, value) in &numbers {
        if *given {
            columns.push(column);
            values.push(value);
        }
    }
    if changes.queues.is_some() {
        columns.push("queues");
        values.push(&queues);
    }
    let now = seconds();
    columns.push("mod_time");
    values.push(&now);
    let set: Vec<String> = columns.iter().map(|column| format!("{column}=?")).collect();
    let mut update = format!("UPDATE association_table SET {} WHERE username=?", set.join(", "));
    values.push(&username);
    if let Some(bank) = &bank {
        update.push_str(" AND bank=?");
        values.push(bank);
    }
    if db.execute(&update, values.as_slice())? == 0 {
        return Err(Error::text(NOT_FOUND));
    }
    Ok(())
}

/// The system's user id of a name.
pub(crate) fn uid(username: &str) -> Option<i64> {
    let user = nix::unistd::User::from_name(username).ok().flatten()?;
    Some(i64::from(user.uid.as_raw()))
}

#[allow(clippy::cast_possible_truncation, reason = "seconds since the epoch are far from 2^63")]
fn seconds() -> i64 {
    database::now() as i64
}
