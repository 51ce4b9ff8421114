//! Bring a database of another version to today's tables.

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::{database, schema};

/// `flux account-update-db`: tables that are missing are made, those with other columns are made
/// anew and filled from the old ones. `template` is a database to be like, by default today's.
pub(crate) fn run(db: &mut Connection, template: Option<&Path>, out: &mut String) -> Result<()> {
    let template = match template {
        Some(path) => database::open(path).map_err(|error| error.of(path))?,
        None => today(db)?,
    };
    // Names of tables in triggers and views are not to follow those of the old tables.
    db.pragma_update(None, "legacy_alter_table", true)?;
    database::change(db, |db| {
        let tables = tables(&template)?;
        out.push_str("checking for new tables...\n");
        for (name, create) in &tables {
            if schema::columns(db, name)?.is_empty() {
                let _ = writeln!(out, "new table found: {name}");
                db.execute(create, [])?;
            }
        }
        out.push_str("checking for new columns to add in tables...\n");
        for (name, create) in &tables {
            let wanted = schema::columns(&template, name)?;
            let present = schema::columns(db, name)?;
            if wanted != present {
                rebuild(db, name, create, &wanted, &present)?;
            }
        }
        // Without a row in it, nothing could be counted.
        db.execute(
            "INSERT INTO t_half_life_period_table (cluster, end_half_life_period)
             SELECT 'cluster', ? WHERE NOT EXISTS (SELECT 1 FROM t_half_life_period_table)",
            [database::now() + schema::WEEK],
        )?;
        Ok(())
    })
}

/// Today's tables, with as many periods of usage as `db` keeps.
fn today(db: &Connection) -> Result<Connection> {
    let template = Connection::open_in_memory()?;
    let bins = match u32::try_from(schema::bins(db)?.len()) {
        Ok(0) | Err(_) => schema::DEFAULT_BINS,
        Ok(bins) => bins,
    };
    schema::create(&template, bins, 0.0)?;
    Ok(template)
}

/// Names of tables and the statements that make them.
fn tables(db: &Connection) -> Result<Vec<(String, String)>> {
    let mut stmt = db.prepare(
        "SELECT name, sql FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'
         ORDER BY rowid",
    )?;
    let tables = stmt.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(tables.collect::<rusqlite::Result<_>>()?)
}

fn rebuild(
    db: &Connection,
    name: &str,
    create: &str,
    wanted: &[String],
    present: &[String],
) -> Result<()> {
    let quoted = |names: &mut dyn Iterator<Item = &String>| {
        names.map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect::<Vec<_>>().join(",")
    };
    let table = quoted(&mut std::iter::once(&name.to_owned()));
    let old = quoted(&mut std::iter::once(&format!("{name}_old")));
    let shared = quoted(&mut wanted.iter().filter(|column| present.contains(column)));
    if shared.is_empty() {
        return Err(Error::text(format!("{name} has none of the columns that it should have")));
    }
    db.execute(&format!("ALTER TABLE {table} RENAME TO {old}"), [])?;
    db.execute(create, [])?;
    db.execute(&format!("INSERT INTO {table} ({shared}) SELECT {shared} FROM {old}"), [])?;
    db.execute(&format!("DROP TABLE {old}"), [])?;
    Ok(())
}
