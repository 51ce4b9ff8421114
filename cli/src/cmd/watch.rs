//! `flux watch`: output of several jobs, to their ends.

use std::cell::{Cell, RefCell};
use std::io::Write;

use clap::{ArgAction, Args};
use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;

use super::jobs::bad_id;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::joblist::{Filter, JobInfo, Query};
use crate::jobwatch::{self, Exception};
use crate::signal::Ended;
use crate::submission::progress::{Counts, Kind, Progress};
use crate::{jobid, when};

mod output;

#[derive(Debug, Args)]
#[command(override_usage = "flux-watch [OPTIONS] [JOBID...]")]
pub(crate) struct Watch {
    /// Watch all active jobs for current user
    #[arg(short, long)]
    active: bool,
    /// Watch all jobs for current user in all states including inactive
    #[arg(short = 'A', long)]
    all: bool,
    /// Limit to N jobs (default 1000)
    #[arg(short, long, value_name = "N")]
    count: Option<i64>,
    /// Watch jobs with specific job state or result
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Vec<String>,
    /// Include only jobs that have been inactive since WHEN. (implies -a if no other --filter
    /// option is specified)
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<String>,
    /// Show progress bar
    #[arg(long)]
    progress: bool,
    /// Display jobs/s instead of elapsed time
    #[arg(long)]
    jps: bool,
    /// label lines of output with task id
    #[arg(short, long)]
    label_io: bool,
    /// Increase verbosity
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Watch specific jobids
    #[arg(value_name = "JOBID")]
    jobids: Vec<String>,
}

/// What the watched jobs have in common.
struct Watched<'a> {
    flux: &'a Client,
    label: bool,
    verbose: u8,
    /// Seconds since 1970 of the first submission.
    start: Cell<f64>,
    counts: Cell<Counts>,
    /// Shows how far they are.
    progress: RefCell<Option<Progress>>,
}

impl Watch {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let mut ids = Vec::new();
        for text in &self.jobids {
            let id = JobId::parse(text).map_err(|_| bad_id("flux-watch", text))?;
            ids.push((id, text.clone()));
        }
        let filtered = self.active || self.all || self.count.is_some() || !self.filter.is_empty();
        if !ids.is_empty() && (filtered || self.since.is_some()) {
            eprintln!("flux-watch: WARNING: Filtering options ignored with jobid list");
        }
        let flux = context.connect().await?;
        let query = self.query()?;
        let (jobs, errors) = if !ids.is_empty() {
            query.list_ids(&flux, &ids).await?
        } else {
            (query.list(&flux).await?, Vec::new())
        };
        for text in errors {
            eprintln!("flux-watch: ERROR: {text}");
        }
        if jobs.is_empty() {
            eprintln!("flux-watch: INFO: No matching jobs");
            return Ok(0);
        }
        if self.verbose > 0 {
            eprintln!("flux-watch: INFO: Watching {} jobs", jobs.len());
        }
        self.watch(&flux, jobs).await
    }

    fn query(&self) -> Result<Query, Failure> {
        let mut names = self.filter.clone();
        let mut since = 0.0;
        if let Some(text) = &self.since {
            let now = when::now();
            since = when::parse(text, now).ok().or_else(|| text.parse().ok()).ok_or_else(|| {
                eprintln!("flux-watch: ERROR: --since: invalid value '{text}'");
                Failure::silent(2)
            })?;
            if since > now {
                eprintln!("flux-watch: ERROR: --since={text} appears to be in the future");
                return Err(Failure::silent(2));
            }
        }
        if self.active {
            names.push("pending,running".to_owned());
        }
        if self.all || (self.since.is_some() && self.filter.is_empty()) {
            names.push("pending,running,inactive".to_owned());
        }
        if names.is_empty() && self.jobids.is_empty() {
            eprintln!("flux-watch: ERROR: At least one job selection option is required");
            eprintln!("Try 'flux watch --help' for more information.");
            return Err(Failure::silent(1));
        }
        let filter = match names.is_empty() {
            true => Filter::default(),
            false => Filter::parse(&names.join(","))?,
        };
        Ok(Query {
            attrs: ["state", "result", "t_submit"].map(str::to_owned).to_vec(),
            filter,
            since,
            max_entries: self.count.unwrap_or(0),
            ..Query::default()
        })
    }

    async fn watch(&self, flux: &Client, jobs: Vec<JobInfo>) -> Outcome {
        let progress = self.progress.then(|| Progress::start("flux-watch", Kind::Jobs, self.jps));
        let counts = Counts { total: jobs.len(), pending: jobs.len(), ..Counts::default() };
        let start = jobs.iter().map(|job| job.float("t_submit")).fold(f64::INFINITY, f64::min);
        let watched = Watched {
            flux,
            label: self.label_io,
            verbose: self.verbose,
            start: Cell::new(start),
            counts: Cell::new(counts),
            progress: RefCell::new(progress.flatten()),
        };
        watched.count(|_| {});
        let mut running = Vec::new();
        for job in &jobs {
            running.push(watched.job(job.id));
        }
        let codes = join_all(running).await;
        if let Some(progress) = watched.progress.take() {
            progress.finish(&watched.counts.get());
        }
        let mut code = 0;
        for result in codes {
            code = code.max(result?);
        }
        Ok(code)
    }
}

/// Run all at once.
async fn join_all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, done) in &mut futures {
            if done.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(result) => *done = Some(result),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, done)| done).collect()
}

impl Watched<'_> {
    /// The exit code of a job, when it has left, with its output on the way.
    async fn job(&self, id: JobId) -> Result<u8, Failure> {
        let (code, output) = tokio::join!(self.events(id), self.output(id));
        output?;
        let code = code?;
        self.count(|counts| {
            counts.done += 1;
            match code {
                0 => counts.complete += 1,
                _ => counts.failed += 1,
            }
        });
        Ok(code)
    }

    async fn events(&self, id: JobId) -> Result<u8, Failure> {
        let mut events = jobwatch::watch(self.flux, id, "eventlog", 0)?;
        let mut code = 0;
        let (mut started, mut failed, mut runs) = (false, false, false);
        while let Some(event) = events.next().await? {
            self.start.set(self.start.get().min(event.timestamp));
            self.log_event(id, &event, "");
            match event.name.as_str() {
                "start" => started = true,
                "alloc" => {
                    runs = true;
                    self.count(|counts| {
                        counts.pending -= 1;
                        counts.running += 1;
                    });
                }
                "exception" => {
                    let Ok(exception) = event.context_as::<Exception>() else { continue };
                    if exception.severity == 0 && !started && !failed {
                        code = 1;
                        failed = true;
                        let Exception { kind, severity, note } = exception;
                        eprintln!(
                            "{}: exception: type={kind} severity={severity} {note}",
                            jobid::f58(id)
                        );
                    }
                }
                "finish" => {
                    let status = event
                        .context_as::<serde_json::Value>()
                        .ok()
                        .and_then(|context| context.get("status")?.as_i64())
                        .and_then(|status| i32::try_from(status).ok())
                        .unwrap_or_default();
                    code = code.max(Ended::from_status(status).code());
                    if self.verbose > 0 {
                        let word = if status == 0 { "complete" } else { "failed" };
                        self.log(id, event.timestamp, &format!("{word}: status={status}"));
                    }
                }
                "clean" => break,
                _ => {}
            }
        }
        self.count(|counts| match runs {
            true => counts.running -= 1,
            false => counts.pending -= 1,
        });
        Ok(code)
    }

    async fn output(&self, id: JobId) -> Result<(), Failure> {
        use flux_protocol::rpc::job_info::watch::WAITCREATE;
        let mut events = jobwatch::watch(self.flux, id, "guest.output", WAITCREATE)?;
        loop {
            match events.next().await {
                Ok(Some(event)) => {
                    if let Some(data) = output::data(&event) {
                        self.print(&data)?;
                    }
                }
                Ok(None) => return Ok(()),
                // A job that never started has no output.
                Err(e) if e.errno() == Errno::ENOENT => return Ok(()),
                Err(e) => return Err(RpcError::into(e)),
            }
        }
    }

    fn print(&self, data: &output::Data) -> Result<(), Failure> {
        let mut out: Box<dyn Write> = match data.stderr {
            true => Box::new(std::io::stderr().lock()),
            false => Box::new(std::io::stdout().lock()),
        };
        let failed = |e: std::io::Error| Failure::of("output", crate::failure::strerror(&e));
        out.write_all(&data.bytes(self.label)).and_then(|()| out.flush()).map_err(failed)
    }

    fn log_event(&self, id: JobId, event: &Event, prefix: &str) {
        if self.verbose > 1 {
            let context = event.context.as_ref().map(|context| context.get());
            let text = format!("{prefix}{} {}", event.name, context.unwrap_or_default());
            self.log(id, event.timestamp, &text);
        }
    }

    fn log(&self, id: JobId, timestamp: f64, text: &str) {
        eprintln!("{}: {:.3}s: {text}", jobid::f58(id), timestamp - self.start.get());
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
        if let Some(progress) = self.progress.borrow_mut().as_mut() {
            progress.draw(&counts);
        }
    }
}
