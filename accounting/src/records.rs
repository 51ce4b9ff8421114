//! Jobs that are over, in the database of the job-archive service.

use std::collections::HashMap;
use std::fmt::Write as _;

use flux_protocol::idset::Idset;
use rusqlite::{Connection, Params, ToSql};
use serde_json::Value;

use crate::error::Result;
use crate::table::real;
use crate::users;

/// A job.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) userid: i64,
    pub(crate) id: String,
    pub(crate) t_submit: f64,
    pub(crate) t_run: f64,
    pub(crate) t_inactive: f64,
    pub(crate) r: String,
    pub(crate) jobspec: String,
}

/// Which jobs are asked for.
#[derive(Debug, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) userid: Option<i64>,
    pub(crate) id: Option<&'a str>,
    /// Those that have run and began later.
    pub(crate) began_after: Option<f64>,
    pub(crate) ended_before: Option<f64>,
}

/// Jobs that pass, in the order in which they ended.
pub(crate) fn select(archive: &Connection, filter: &Filter<'_>) -> Result<Vec<Record>> {
    let mut conditions = "FROM jobs WHERE true".to_owned();
    let mut values: Vec<&dyn ToSql> = Vec::new();
    let mut and = |condition: &str, value| {
        conditions.push_str(" AND ");
        conditions.push_str(condition);
        values.push(value);
    };
    if let Some(userid) = &filter.userid {
        and("userid=?", userid);
    }
    if let Some(id) = &filter.id {
        and("id=?", id);
    }
    if let Some(time) = &filter.began_after {
        and("t_run>?", time);
    }
    if let Some(time) = &filter.ended_before {
        and("t_inactive<?", time);
    }
    let mut records = Vec::new();
    visit(archive, &conditions, values.as_slice(), |record| records.push(record))?;
    Ok(records)
}

/// All jobs that have run.
pub(crate) fn that_ran(archive: &Connection, each: impl FnMut(Record)) -> Result<()> {
    visit(archive, "FROM jobs WHERE t_run>0", [], each)
}

/// Jobs that have run and have ended after what goes with their user in `since`. One pass, however
/// many users there are: the archive has no index of them.
pub(crate) fn ended_since(
    archive: &Connection,
    since: &HashMap<i64, f64>,
    each: impl FnMut(Record),
) -> Result<()> {
    archive.execute_batch(
        "PRAGMA temp_store=memory;
         CREATE TEMP TABLE counted (userid INTEGER PRIMARY KEY, since REAL)",
    )?;
    {
        let mut insert = archive.prepare("INSERT INTO temp.counted VALUES (?, ?)")?;
        for (userid, since) in since {
            insert.execute((userid, since))?;
        }
    }
    // A cross join keeps its order, so that jobs are what is gone through.
    let conditions = "FROM jobs CROSS JOIN temp.counted USING (userid)
                      WHERE t_run>0 AND t_inactive>since";
    visit(archive, conditions, [], each)?;
    archive.execute_batch("DROP TABLE temp.counted")?;
    Ok(())
}

/// Jobs in the order in which they ended.
fn visit(
    archive: &Connection,
    conditions: &str,
    values: impl Params,
    mut each: impl FnMut(Record),
) -> Result<()> {
    // Ordered by id as well, so that ties are always in the same order.
    let mut stmt = archive.prepare(&format!(
        "SELECT userid, id, t_submit, t_run, t_inactive, R, jobspec {conditions}
         ORDER BY t_inactive, id"
    ))?;
    let mut rows = stmt.query(values)?;
    while let Some(row) = rows.next()? {
        let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
        let time = |column| row.get::<_, Option<f64>>(column).map(Option::unwrap_or_default);
        each(Record {
            userid: row.get(0)?,
            // The column is one of text, into which its writer may have put a number.
            id: crate::table::text(row.get_ref(1)?),
            t_submit: time(2)?,
            t_run: time(3)?,
            t_inactive: time(4)?,
            r: text(5)?,
            jobspec: text(6)?,
        });
    }
    Ok(())
}

impl Record {
    /// Nodes that the job had; none if it never had resources.
    pub(crate) fn nnodes(&self) -> u64 {
        self.resources().iter().map(|(ranks, _)| ranks.count()).sum()
    }

    /// Nodes, by rank, and how many cores of each; one where whole nodes were all that counted.
    pub(crate) fn cores(&self) -> Vec<(u32, u64)> {
        let resources = self.resources();
        let each = |(ranks, cores): &(Idset, u64)| {
            let cores = *cores;
            ranks.iter().map(move |rank| (rank, cores)).collect::<Vec<_>>()
        };
        resources.iter().flat_map(each).collect()
    }

    /// Entries of R: nodes, and the number of cores on each.
    fn resources(&self) -> Vec<(Idset, u64)> {
        let r: Value = serde_json::from_str(&self.r).unwrap_or_default();
        let entries = r.pointer("/execution/R_lite").and_then(Value::as_array);
        let read = |entry: &Value| {
            let ranks = entry.get("rank")?.as_str()?.parse().ok()?;
            let cores = entry.pointer("/children/core").and_then(Value::as_str);
            let cores = cores.and_then(|cores| cores.parse::<Idset>().ok());
            Some((ranks, cores.map_or(1, |cores| cores.count())))
        };
        entries.into_iter().flatten().filter_map(read).collect()
    }

    /// Seconds times nodes, as far as that is worth counting.
    #[allow(clippy::cast_precision_loss, reason = "there are fewer nodes")]
    pub(crate) fn usage(&self) -> f64 {
        let usage = self.nnodes() as f64 * (self.t_inactive - self.t_run);
        // Rounded as the decimal number that it prints as.
        format!("{usage:.5}").parse().unwrap_or_default()
    }

    /// The bank that the submitter has named.
    pub(crate) fn bank(&self) -> Option<String> {
        let jobspec: Value = serde_json::from_str(&self.jobspec).ok()?;
        Some(jobspec.pointer("/attributes/system/bank")?.as_str()?.to_owned())
    }

    fn username(&self) -> String {
        let uid = u32::try_from(self.userid).ok().map(nix::unistd::Uid::from_raw);
        let user = uid.and_then(|uid| nix::unistd::User::from_uid(uid).ok().flatten());
        user.map_or_else(|| self.userid.to_string(), |user| user.name)
    }
}

/// The user id that `--user` means: a name, or a number that no user is called.
pub(crate) fn userid(user: &str) -> Option<i64> {
    users::uid(user).or_else(|| user.parse().ok())
}

/// `flux account view-job-records`
pub(crate) fn print(records: &[Record], out: &mut String) {
    let mut line = |fields: [&str; 7]| {
        for (field, width) in fields.iter().zip([10, 10, 10, 15, 15, 15, 10]) {
            // A String takes all that is written to it.
            let _ = write!(out, "{field:<width$} ");
        }
        out.pop();
        out.push('\n');
    };
    line(["UserID", "Username", "JobID", "T_Submit", "T_Run", "T_Inactive", "Nodes"]);
    for record in records {
        line([
            &record.userid.to_string(),
            &record.username(),
            &record.id,
            &real(record.t_submit),
            &real(record.t_run),
            &real(record.t_inactive),
            &record.nnodes().to_string(),
        ]);
    }
}

/// The same with the resources of each job, for programs.
pub(crate) fn delimited(records: &[Record]) -> String {
    let mut out = "UserID|Username|JobID|T_Submit|T_Run|T_Inactive|Nodes|R\r\n".to_owned();
    for record in records {
        let fields = [
            record.userid.to_string(),
            record.username(),
            record.id.clone(),
            real(record.t_submit),
            real(record.t_run),
            real(record.t_inactive),
            record.nnodes().to_string(),
            record.r.clone(),
        ];
        for (at, field) in fields.iter().enumerate() {
            if at > 0 {
                out.push('|');
            }
            for char in field.chars() {
                if matches!(char, '|' | '\'' | '\r' | '\n') {
                    out.push('\'');
                }
                out.push(char);
            }
        }
        out.push_str("\r\n");
    }
    out
}
