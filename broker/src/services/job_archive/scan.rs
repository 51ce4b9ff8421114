//! One look for jobs that have ended: list them, read what the KVS has of each, write the rows.

use std::time::{Duration, Instant};

use flux_protocol::errno::Errno;
use flux_protocol::eventlog;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::rpc::job_info::{Lookup, LookupRequest};
use flux_protocol::rpc::job_list::{List, ListRequest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::database::{Database, Row};
use crate::handle::Handle;
use crate::services::job_manager::job::State;

/// Jobs that are read at once, and written in one transaction.
const BATCH: usize = 64;
/// How long the store may be behind job-list.
const PATIENCE: Duration = Duration::from_secs(30);
const ATTRIBUTES: [&str; 6] = ["userid", "ranks", "t_submit", "t_run", "t_cleanup", "t_inactive"];

/// What is remembered from one look to the next.
#[derive(Debug)]
pub(super) struct Scanner {
    handle: Handle,
    database: Database,
    newest: Option<Newest>,
    late: Option<Late>,
}

/// The job whose eventlog was found without its end, and when that was seen first.
#[derive(Debug, Clone, Copy)]
struct Late {
    id: JobId,
    since: Instant,
}

/// The end of the job that was archived last, and the jobs that ended at that very time.
#[derive(Debug)]
struct Newest {
    time: f64,
    ids: Vec<JobId>,
}

/// What came of it: the milliseconds of the rows that were written, and what ended it early.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) times: Vec<f64>,
    pub(super) end: Result<(), Failure>,
}

/// A job as job-list tells of it.
#[derive(Debug, Clone, Deserialize)]
struct Listed {
    id: JobId,
    userid: u32,
    #[serde(default)]
    ranks: String,
    t_submit: f64,
    #[serde(default)]
    t_run: f64,
    #[serde(default)]
    t_cleanup: f64,
    t_inactive: f64,
}

impl Scanner {
    pub(super) fn new(handle: Handle, database: Database) -> Scanner {
        Scanner { handle, database, newest: None, late: None }
    }

    pub(super) async fn run(&mut self) -> Outcome {
        let mut times = Vec::new();
        let end = self.archive(&mut times).await;
        Outcome { times, end }
    }

    /// The oldest first, so that what is missing after a failure is newer than all that is there.
    async fn archive(&mut self, times: &mut Vec<f64>) -> Result<(), Failure> {
        let newest = match self.newest.take() {
            Some(newest) => newest,
            None => Newest { time: self.database.newest().await?, ids: Vec::new() },
        };
        let newest = self.newest.insert(newest);
        let mut jobs = list(&self.handle, newest.time).await?;
        jobs.retain(|job| !newest.ids.contains(&job.id));
        jobs.sort_by(|a, b| a.t_inactive.total_cmp(&b.t_inactive).then(a.id.cmp(&b.id)));
        for batch in jobs.chunks(BATCH) {
            let mut rows = read(&self.handle, batch).await?;
            let behind =
                rows.iter().filter(|row| !has_ended(row)).find_map(|row| late(self.late, row.id));
            let place = behind.and_then(|late| batch.iter().position(|job| job.id == late.id));
            let batch = place.and_then(|place| batch.get(..place)).unwrap_or(batch);
            rows.retain(|row| batch.iter().any(|job| job.id == row.id));
            times.extend(self.database.insert(rows).await?);
            for job in batch {
                if job.t_inactive > newest.time {
                    *newest = Newest { time: job.t_inactive, ids: Vec::new() };
                }
                newest.ids.push(job.id);
            }
            self.late = behind;
            if behind.is_some() {
                break;
            }
        }
        Ok(())
    }
}

/// job-list may know of an end before the store has it. What is without one for long is taken as
/// it is, or nothing after it would ever be.
fn late(known: Option<Late>, id: JobId) -> Option<Late> {
    let known = known.filter(|late| late.id == id);
    let late = known.unwrap_or_else(|| Late { id, since: Instant::now() });
    (late.since.elapsed() < PATIENCE).then_some(late)
}

/// Jobs that ended at `since` or later.
async fn list(handle: &Handle, since: f64) -> Result<Vec<Listed>, Failure> {
    let request = ListRequest {
        max_entries: 0,
        attrs: ATTRIBUTES.map(str::to_owned).to_vec(),
        since: since.next_down().max(0.0),
        constraint: Some(json!({ "states": [State::Inactive as u32] })),
        legacy: None,
    };
    let response = handle.rpc::<List>(&request).await?;
    let parse = |job: Value| serde_json::from_value(job);
    let jobs: Result<Vec<Listed>, _> = response.jobs.into_iter().map(parse).collect();
    jobs.map_err(|error| Failure::new(Errno::EPROTO, format!("job-list.list: {error}")))
}

/// The last event of RFC 21 is there.
fn has_ended(row: &Row) -> bool {
    let events = eventlog::decode(&row.eventlog).unwrap_or_default();
    events.iter().any(|event| event.name == "clean")
}

/// The rows of jobs. One that was purged since it was listed has none.
async fn read(handle: &Handle, jobs: &[Listed]) -> Result<Vec<Row>, Failure> {
    let mut lookups = Vec::with_capacity(jobs.len());
    for job in jobs {
        let keys = match job.t_run > 0.0 {
            true => &["eventlog", "jobspec", "R"][..],
            false => &["eventlog", "jobspec"],
        };
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let request = LookupRequest { id: job.id, keys, flags: 0 };
        lookups.push(handle.send::<Lookup>(Nodeid::ANY, Flags::default(), &request)?);
    }
    let mut rows = Vec::with_capacity(jobs.len());
    for (job, mut lookup) in jobs.iter().zip(lookups) {
        let values = match lookup.next().await {
            Ok(values) => values,
            Err(failure) if failure.errno == Errno::ENOENT => continue,
            Err(failure) => {
                return Err(Failure::new(failure.errno, format!("{}: {failure}", job.id.f58())));
            }
        };
        let text = |key: &str| values.get(key).and_then(Value::as_str).unwrap_or_default();
        let job = job.clone();
        rows.push(Row {
            id: job.id,
            userid: job.userid,
            ranks: job.ranks,
            t_submit: job.t_submit,
            t_run: job.t_run,
            t_cleanup: job.t_cleanup,
            t_inactive: job.t_inactive,
            eventlog: text("eventlog").to_owned(),
            jobspec: text("jobspec").to_owned(),
            r: text("R").to_owned(),
        });
    }
    Ok(rows)
}
