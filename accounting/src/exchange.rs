//! Users and banks as files of comma-separated values.

use std::fmt::Write as _;
use std::path::Path;

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::{banks, database, schema, table, users};

/// Nodes of a user in a file that does not say how many, as flux-accounting has it.
const MAX_NODES: i64 = 5;

/// `flux account-export-db`
pub(crate) fn export(db: &Connection, users: &Path, banks: &Path) -> Result<()> {
    write(
        db,
        "SELECT username, userid, bank, shares, max_running_jobs, max_active_jobs, max_nodes, queues
         FROM association_table",
        users,
    )?;
    write(db, "SELECT bank, parent_bank, shares FROM bank_table", banks)
}

fn write(db: &Connection, query: &str, path: &Path) -> Result<()> {
    let mut stmt = db.prepare(query)?;
    let columns = stmt.column_count();
    let mut rows = stmt.query([])?;
    let mut csv = String::new();
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            if column > 0 {
                csv.push(',');
            }
            push_field(&mut csv, &table::text(row.get_ref(column)?));
        }
        csv.push_str("\r\n");
    }
    std::fs::write(path, csv).map_err(|error| Error::io(path, &error))
}

fn push_field(csv: &mut String, field: &str) {
    if field.contains([',', '"', '\r', '\n']) {
        csv.push('"');
        csv.push_str(&field.replace('"', "\"\""));
        csv.push('"');
    } else {
        csv.push_str(field);
    }
}

/// `flux account-pop-db`: all of both files, or nothing.
pub(crate) fn import(
    db: &mut Connection,
    users_file: Option<&Path>,
    banks_file: Option<&Path>,
    out: &mut String,
) -> Result<()> {
    let users = users_file.map_or(Ok(Vec::new()), read)?;
    let banks = banks_file.map_or(Ok(Vec::new()), read)?;
    database::change(db, |db| {
        for row in &banks {
            let shares = row.number(2, None)?;
            banks::add(db, row.text(0)?, row.text(1)?, shares).map_err(|e| row.error(e))?;
        }
        for row in &users {
            let new = users::New {
                username: row.text(0)?,
                userid: row.number(1, Some(schema::DEFAULT_UID))?,
                bank: row.text(2)?,
                shares: row.number(3, Some(1))?,
                max_running_jobs: row.number(4, Some(5))?,
                max_active_jobs: row.number(5, Some(7))?,
                max_nodes: row.number(6, Some(MAX_NODES))?,
                queues: row.text(7)?,
            };
            let mut said = String::new();
            users::add(db, &new, &mut said).map_err(|e| row.error(e))?;
            for line in said.lines() {
                // A String takes all that is written to it.
                let _ = writeln!(out, "{}:{}: {line}", row.path.display(), row.line);
            }
        }
        Ok(())
    })
}

/// A line of a file.
#[derive(Debug)]
struct Row<'a> {
    path: &'a Path,
    line: usize,
    fields: Vec<String>,
}

impl Row<'_> {
    fn text(&self, field: usize) -> Result<&str> {
        let missing = || Error::text(format!("has no field {}", field + 1));
        self.fields.get(field).map(String::as_str).ok_or_else(|| self.error(missing()))
    }

    /// A number, or what is meant by none.
    fn number(&self, field: usize, default: Option<i64>) -> Result<i64> {
        match (self.text(field)?.trim(), default) {
            ("", Some(default)) => Ok(default),
            (text, _) => text.parse().map_err(|_| {
                self.error(Error::text(format!("field {}: {text:?} is not a number", field + 1)))
            }),
        }
    }

    /// Say where it was; errors of the database have nothing to do with that.
    fn error(&self, error: Error) -> Error {
        match error {
            Error::Sql(_) => error,
            other => Error::text(format!("{}:{}: {other}", self.path.display(), self.line)),
        }
    }
}

fn read(path: &Path) -> Result<Vec<Row<'_>>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, &error))?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let rows = lines.map(|(text, line)| match fields(text) {
        Some(fields) => Ok(Row { path, line, fields }),
        None => Err(Error::text(format!("{}:{line}: a quote is not closed", path.display()))),
    });
    rows.collect()
}

/// Fields of a line, some of which are quoted. No name has a line break in it.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::{fields, push_field};

    #[test]
    fn what_is_written_is_read_again() {
        let written = ["plain", "", "a,b", "say \"x\"", " spaced "];
        let mut line = String::new();
        for (at, field) in written.iter().enumerate() {
            if at > 0 {
                line.push(',');
            }
            push_field(&mut line, field);
        }
        assert_eq!(fields(&line).unwrap(), written);
        assert_eq!(fields("a,\"b"), None);
    }
}
