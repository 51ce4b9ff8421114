//! Banks: a tree, at the leaves of which users are.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rusqlite::{Connection, OptionalExtension};

use crate::error::{Error, Result};
use crate::{table, users};

pub(crate) const WIDTH: usize = 15;
const USERS_WIDTH: usize = 18;

/// `flux account add-bank`
pub(crate) fn add(db: &Connection, bank: &str, parent: &str, shares: i64) -> Result<()> {
    if !parent.is_empty() && !exists(db, parent)? {
        return Err(Error::text("Parent bank not found in bank table"));
    }
    let active: Option<bool> = db
        .query_row("SELECT max(active) FROM bank_table WHERE bank=?", [bank], |row| row.get(0))
        .optional()?
        .flatten();
    match active {
        Some(true) => Err(Error::text(format!("bank {bank} is in bank_table already"))),
        // One that was deleted comes back, with what it is to be from now on.
        Some(false) => {
            db.execute(
                "UPDATE bank_table SET active=1, parent_bank=?, shares=? WHERE bank=?",
                (parent, shares, bank),
            )?;
            // A parent below its own child would be a tree without a root.
            ancestors(db, bank).map(|_| ())
        }
        None => {
            db.execute(
                "INSERT INTO bank_table (bank, parent_bank, shares) VALUES (?, ?, ?)",
                (bank, parent, shares),
            )?;
            Ok(())
        }
    }
}

pub(crate) fn exists(db: &Connection, bank: &str) -> Result<bool> {
    Ok(db.prepare("SELECT 1 FROM bank_table WHERE bank=?")?.exists([bank])?)
}

/// Banks above `bank`.
fn ancestors(db: &Connection, bank: &str) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    let mut at = bank.to_owned();
    while !at.is_empty() {
        let parent: Option<Option<String>> = db
            .query_row("SELECT parent_bank FROM bank_table WHERE bank=?", [&at], |row| row.get(0))
            .optional()?;
        at = parent.flatten().unwrap_or_default();
        if at == bank || !seen.insert(at.clone()) {
            return Err(circular(bank));
        }
    }
    Ok(seen)
}

pub(crate) fn circular(bank: &str) -> Error {
    Error::text(format!("bank {bank} is its own ancestor in bank_table"))
}

/// Banks right below `bank`, in the order in which they were added.
pub(crate) fn below(db: &Connection, bank: &str) -> Result<Vec<String>> {
    let mut stmt = db.prepare("SELECT bank FROM bank_table WHERE parent_bank=?")?;
    let banks = stmt.query_map([bank], |row| row.get(0))?;
    Ok(banks.collect::<rusqlite::Result<_>>()?)
}

/// `flux account view-bank`
pub(crate) fn view(
    db: &Connection,
    bank: &str,
    tree: bool,
    users: bool,
    out: &mut String,
) -> Result<()> {
    if !table::print(db, "SELECT * FROM bank_table WHERE bank=?", [bank], WIDTH, out)? {
        out.push_str("Bank not found in bank_table\n");
        return Ok(());
    }
    if tree {
        if below(db, bank)?.is_empty() {
            let _ = writeln!(out, "\nNo sub banks under {bank}");
        } else {
            let _ = writeln!(out, "\n{bank}");
            print_below(db, bank, &mut vec![bank.to_owned()], out)?;
        }
    }
    if users {
        let query = "SELECT username,userid,default_bank,shares,job_usage,fairshare,
                     max_running_jobs,queues FROM association_table WHERE bank=?";
        let mut rows = String::new();
        if table::print(db, query, [bank], USERS_WIDTH, &mut rows)? {
            let _ = write!(out, "\nUsers Under Bank {bank}:\n\n{rows}");
        } else {
            let _ = writeln!(out, "\nNo users under {bank}");
        }
    }
    Ok(())
}

/// Print banks and users below the last bank of `path`, indented by how deep they are.
fn print_below(
    db: &Connection,
    bank: &str,
    path: &mut Vec<String>,
    out: &mut String,
) -> Result<()> {
    let indent = " ".repeat(path.len());
    let banks = below(db, bank)?;
    if banks.is_empty() {
        let mut stmt = db.prepare("SELECT username FROM association_table WHERE bank=?")?;
        for name in stmt.query_map([bank], |row| row.get::<_, String>(0))? {
            let _ = writeln!(out, "{indent}{}", name?);
        }
    }
    for bank in banks {
        if path.contains(&bank) {
            return Err(circular(&bank));
        }
        let _ = writeln!(out, "{indent}{bank}");
        path.push(bank.clone());
        print_below(db, &bank, path, out)?;
        path.pop();
    }
    Ok(())
}

/// `flux account delete-bank`: banks and users are kept, as what they have used is, but disabled.
pub(crate) fn delete(db: &Connection, bank: &str) -> Result<()> {
    if !exists(db, bank)? {
        return Err(Error::text("Bank not found in bank_table"));
    }
    let mut seen = BTreeSet::new();
    let mut left = vec![bank.to_owned()];
    while let Some(bank) = left.pop() {
        if !seen.insert(bank.clone()) {
            continue;
        }
        db.execute("UPDATE bank_table SET active=0 WHERE bank=?", [&bank])?;
        let mut stmt = db.prepare("SELECT username FROM association_table WHERE bank=?")?;
        let names = stmt.query_map([&bank], |row| row.get(0))?;
        for name in names.collect::<rusqlite::Result<Vec<String>>>()? {
            users::delete(db, &name, &bank)?;
        }
        left.extend(below(db, &bank)?);
    }
    Ok(())
}

/// `flux account edit-bank`
pub(crate) fn edit(db: &Connection, bank: &str, shares: i64, out: &mut String) -> Result<()> {
    // flux-accounting repeats what it was given.
    let _ = writeln!(out, "{shares}");
    if shares <= 0 {
        return Err(Error::text("New shares amount must be >= 0"));
    }
    if db.execute("UPDATE bank_table SET shares=? WHERE bank=?", (shares, bank))? == 0 {
        return Err(Error::text("Bank not found in bank_table"));
    }
    Ok(())
}
