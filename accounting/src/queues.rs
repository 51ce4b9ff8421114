//! Queues: what they count for, and who gets how much in them.

use rusqlite::{Connection, ErrorCode};

use crate::error::{Error, Result};
use crate::table;

const WIDTH: usize = 18;
const NOT_FOUND: &str = "Queue not found in queue_table";

/// What is given of a queue; -1 stands for the default.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) min_nodes_per_job: Option<i64>,
    pub(crate) max_nodes_per_job: Option<i64>,
    pub(crate) max_time_per_job: Option<i64>,
    pub(crate) priority: Option<i64>,
}

impl Limits {
    /// By column.
    fn given(&self) -> impl Iterator<Item = (&'static str, i64)> {
        [
            ("min_nodes_per_job", self.min_nodes_per_job),
            ("max_nodes_per_job", self.max_nodes_per_job),
            ("max_time_per_job", self.max_time_per_job),
            ("priority", self.priority),
        ]
        .into_iter()
        .filter_map(|(column, value)| Some((column, value?)))
    }
}

/// `flux account view-queue`
pub(crate) fn view(db: &Connection, queue: &str, out: &mut String) -> Result<()> {
    if !table::print(db, "SELECT * FROM queue_table WHERE queue=?", [queue], WIDTH, out)? {
        out.push_str(NOT_FOUND);
        out.push('\n');
    }
    Ok(())
}

/// `flux account add-queue`
pub(crate) fn add(db: &Connection, queue: &str, limits: &Limits) -> Result<()> {
    match db.execute("INSERT INTO queue_table (queue) VALUES (?)", [queue]) {
        Ok(_) => {}
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            return Err(Error::text(format!("queue {queue} is in queue_table already")));
        }
        Err(error) => return Err(error.into()),
    }
    edit(db, queue, limits)
}

/// `flux account delete-queue`
pub(crate) fn delete(db: &Connection, queue: &str) -> Result<()> {
    db.execute("DELETE FROM queue_table WHERE queue=?", [queue])?;
    Ok(())
}

/// `flux account edit-queue`
pub(crate) fn edit(db: &Connection, queue: &str, limits: &Limits) -> Result<()> {
    if !db.prepare("SELECT 1 FROM queue_table WHERE queue=?")?.exists([queue])? {
        return Err(Error::text(NOT_FOUND));
    }
    for (column, value) in limits.given() {
        // The tables turn NULL into a column's default.
        let value = Some(value).filter(|value| *value != -1);
        let update = format!("UPDATE queue_table SET {column}=? WHERE queue=?");
        db.execute(&update, (value, queue))?;
    }
    Ok(())
}
