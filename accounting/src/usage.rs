//! What associations have used lately: seconds of nodes, worth less the longer they are ago.
//!
//! Each has a column ("bin") for the current period and some for those before it. With a new
//! period, the bin that is `n` periods old counts half to the power of `n + 1`, and the oldest
//! drops out. What all of it amounts to in each case, and which bins are rewritten, is what
//! flux-accounting 0.18 makes of them.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use crate::error::{Error, Result};
use crate::records;
use crate::schema::{self, WEEK};

/// What remains of usage after a period.
pub(crate) const DECAY: f64 = 0.5;

/// An association whose usage is counted.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) username: String,
    /// None if nobody knows, so that no job is theirs.
    pub(crate) userid: Option<i64>,
    pub(crate) bank: String,
    pub(crate) is_default_bank: bool,
}

/// The last period of usage that has begun.
#[derive(Debug, Clone, Copy)]
struct Period {
    /// When it ends, or has ended.
    end: f64,
    length: f64,
    now: f64,
}

impl Period {
    /// A full period has passed since this one.
    fn is_over(self) -> bool {
        self.end < self.now - self.length
    }
}

/// `flux account update-usage`: count jobs that have ended since the last time.
pub(crate) fn update(
    db: &Connection,
    archive: &Connection,
    half_life_weeks: u32,
    now: f64,
) -> Result<()> {
    let end: Option<f64> = db
        .query_row(
            "SELECT end_half_life_period FROM t_half_life_period_table WHERE cluster='cluster'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    let end = end.ok_or_else(|| {
        Error::text("t_half_life_period_table has no row of cluster 'cluster': see update-db")
    })?;
    let period = Period { end, length: f64::from(half_life_weeks) * WEEK, now };
    let bins = schema::bins(db)?;
    let accounts = accounts(db)?;
    let new = new_jobs(archive, &counted(db, &accounts)?)?;
    for account in &accounts {
        let jobs = account.userid.and_then(|userid| new.get(&userid));
        update_account(db, account, jobs.map_or(&[], Vec::as_slice), &bins, period)?;
    }
    if period.is_over() {
        db.execute(
            "UPDATE t_half_life_period_table SET end_half_life_period=? WHERE cluster='cluster'",
            [period.end + period.length],
        )?;
    }
    Ok(())
}

pub(crate) fn accounts(db: &Connection) -> Result<Vec<Account>> {
    let mut stmt =
        db.prepare("SELECT username, userid, bank, default_bank FROM association_table")?;
    let accounts = stmt.query_map([], |row| {
        let username: String = row.get(0)?;
        let userid: i64 = row.get(1)?;
        let bank: String = row.get(2)?;
        let is_default_bank = row.get::<_, String>(3)? == bank;
        // The system may have learned of them since they were added.
        let userid =
            if userid == schema::DEFAULT_UID { records::userid(&username) } else { Some(userid) };
        Ok(Account { username, userid, bank, is_default_bank })
    })?;
    Ok(accounts.collect::<rusqlite::Result<_>>()?)
}

/// A job that has ended since some of its user's were counted last.
#[derive(Debug)]
struct Job {
    bank: Option<String>,
    t_inactive: f64,
    usage: f64,
}

/// When the last job that was counted has ended, by user; the first of them if a user has several
/// associations.
fn counted(db: &Connection, accounts: &[Account]) -> Result<HashMap<i64, f64>> {
    let mut insert = db.prepare(
        "INSERT OR IGNORE INTO job_usage_factor_table (username, bank, userid) VALUES (?, ?, ?)",
    )?;
    let mut select = db.prepare(
        "SELECT last_job_timestamp FROM job_usage_factor_table WHERE username=? AND bank=?",
    )?;
    let mut counted = HashMap::new();
    for account in accounts {
        let userid = account.userid.unwrap_or(schema::DEFAULT_UID);
        insert.execute((&account.username, &account.bank, userid))?;
        let since: f64 = select.query_row((&account.username, &account.bank), |row| row.get(0))?;
        if let Some(userid) = account.userid {
            let first = counted.entry(userid).or_insert(since);
            *first = since.min(*first);
        }
    }
    Ok(counted)
}

/// By user, in the order in which they ended. (A job that began before and ended after the last
/// one that was counted is as new as any; flux-accounting 0.18 never counts it.)
fn new_jobs(archive: &Connection, counted: &HashMap<i64, f64>) -> Result<HashMap<i64, Vec<Job>>> {
    let mut jobs: HashMap<i64, Vec<Job>> = HashMap::new();
    records::ended_since(archive, counted, |record| {
        let (bank, t_inactive, usage) = (record.bank(), record.t_inactive, record.usage());
        jobs.entry(record.userid).or_default().push(Job { bank, t_inactive, usage });
    })?;
    Ok(jobs)
}

fn update_account(
    db: &Connection,
    account: &Account,
    jobs: &[Job],
    bins: &[String],
    period: Period,
) -> Result<()> {
    let key = (&account.username, &account.bank);
    let (counted, past) = db
        .prepare_cached(&format!(
            "SELECT last_job_timestamp, {} FROM job_usage_factor_table
             WHERE username=? AND bank=?",
            bins.join(", ")
        ))?
        .query_row(key, |row| {
            let past = (1..=bins.len()).map(|column| row.get(column));
            Ok((row.get::<_, f64>(0)?, past.collect::<rusqlite::Result<Vec<f64>>>()?))
        })?;
    let mine = |job: &&Job| {
        let bank = job.bank.as_ref();
        job.t_inactive > counted
            && bank.map_or(account.is_default_bank, |bank| *bank == account.bank)
    };
    let jobs: Vec<&Job> = jobs.iter().filter(mine).collect();
    // From zero: the sum of nothing is otherwise less than that.
    let used = jobs.iter().fold(0.0, |sum, job| sum + job.usage);
    let write = |column: &str, value: f64| -> Result<()> {
        let update =
            format!("UPDATE job_usage_factor_table SET {column}=? WHERE username=? AND bank=?");
        db.prepare_cached(&update)?.execute((value, key.0, key.1))?;
        Ok(())
    };
    if let Some(last) = jobs.last() {
        write("last_job_timestamp", last.t_inactive)?;
    }
    let total = match jobs.last() {
        None if !period.is_over() => return Ok(()),
        Some(last) if last.t_inactive - period.end < period.length => {
            let current = used + past.first().copied().unwrap_or_default();
            write(&format!("{}0", schema::BIN_PREFIX), current)?;
            current + past.iter().skip(1).sum::<f64>()
        }
        newer => {
            let decayed = decay(&past);
            for (bin, value) in bins.iter().zip(&decayed).skip(1) {
                write(bin, *value)?;
            }
            let total = decayed.iter().fold(used, |sum, bin| sum + bin);
            if newer.is_some() {
                write(&format!("{}0", schema::BIN_PREFIX), total)?;
            }
            total
        }
    };
    db.prepare_cached("UPDATE association_table SET job_usage=? WHERE username=? AND bank=?")?
        .execute((total, key.0, key.1))?;
    Ok(())
}

/// Bins after a period, without the oldest.
fn decay(past: &[f64]) -> Vec<f64> {
    let mut factor = 1.0;
    let mut decayed: Vec<f64> = past
        .iter()
        .map(|used| {
            factor *= DECAY;
            used * factor
        })
        .collect();
    decayed.pop();
    decayed
}

#[cfg(test)]
mod tests {
    use super::decay;

    #[test]
    fn each_bin_counts_half_of_the_one_before_and_the_oldest_drops_out() {
        assert_eq!(decay(&[128.0, 64.0, 64.0, 16.0]), [64.0, 16.0, 8.0]);
        assert!(decay(&[]).is_empty());
    }
}
