//! Sending many jobs: requests are on their way together, answers are taken in order.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use flux_client::{Client, Pending};
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_ingest::{self, SubmitResponse};
use serde_json::json;
use tokio::task::JoinSet;

use super::env::Variables;
use super::follow::{Followed, Job, Show, Sink};
use super::mutable::{Draft, Fields};
use super::progress::{Counts, Kind, Progress};
use super::{build, refuse, send};
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::jobid;

/// Requests without an answer; more would only wait somewhere else.
const IN_FLIGHT: usize = 512;
/// How often the progress bar shows that time passes.
const TICK: std::time::Duration = std::time::Duration::from_millis(250);

pub(crate) struct Bulk<'a> {
    context: &'a Context,
    own: &'a Variables,
    flux: Option<Client>,
    followed: Option<Arc<Followed>>,
    following: JoinSet<()>,
    sent: VecDeque<Sent>,
    logs: HashMap<String, Sink>,
    /// Of submission alone.
    progress: Option<(Progress, Counts)>,
    /// A job was refused.
    failed: bool,
}

/// A request whose answer is still to come.
struct Sent {
    answer: Pending<SubmitResponse>,
    /// In front of an error: which copy it was.
    label: String,
    quiet: bool,
    out: Sink,
    err: Sink,
    wait: Option<String>,
}

impl<'a> Bulk<'a> {
    pub(crate) fn new(context: &'a Context, own: &'a Variables) -> Bulk<'a> {
        Bulk {
            context,
            own,
            flux: None,
            followed: None,
            following: JoinSet::new(),
            sent: VecDeque::new(),
            logs: HashMap::new(),
            progress: None,
            failed: false,
        }
    }

    /// Show how submission goes, where nothing is shown of the jobs themselves.
    pub(crate) fn show_progress(&mut self, draft: &Draft, total: usize) {
        if draft.many.progress && draft.many.wait.0.is_none() && !draft.many.watch {
            let progress = Progress::start("flux", Kind::Submission, draft.many.jps);
            let counts = Counts { total, ..Counts::default() };
            self.progress = progress.map(|progress| (progress, counts));
        }
    }

    /// Send a job, once for each member of `--cc`. True where `--dry-run` has printed it instead.
    pub(crate) async fn send(&mut self, draft: &Draft) -> Result<bool, Failure> {
        let copies = copies(draft)?;
        if draft.many.watch || draft.many.wait.0.is_some() {
            self.follow(draft).await?;
        }
        for copy in copies {
            let draft = match copy {
                None => draft.clone(),
                Some(id) => {
                    let named = [("cc", id.to_string())].into();
                    draft.substitute(&Fields { named, ..Fields::default() })?
                }
            };
            let mut jobspec =
                build::jobspec(&draft.common, &draft.tasks, &draft.command, self.own)?;
            if draft.common.input.as_deref().is_some_and(build::names_tasks) {
                let text = "per-task input not supported for submit";
                return Err(refuse(text).prefix("flux"));
            }
            if let (Some(id), true) = (copy, draft.many.bcc.is_none()) {
                jobspec.set_attribute("environment.FLUX_JOB_CC", json!(id.to_string()));
            }
            let (out, err) = self.sinks(&draft)?;
            if draft.common.dry_run {
                send::print(&jobspec)?;
                return Ok(true);
            }
            let request = send::request(&draft.common, &jobspec)?;
            let flux = self.connect().await?;
            let request = request.sign(&flux).await?;
            let answer = flux.start::<job_ingest::Submit>(Nodeid::ANY, &request)?;
            let label = copy.map_or_else(String::new, |id| format!("cc={id}: "));
            let quiet = draft.common.quiet;
            let wait = draft.many.wait.0.clone();
            self.sent.push_back(Sent { answer, label, quiet, out, err, wait });
            if self.sent.len() >= IN_FLIGHT {
                self.settle().await;
            }
        }
        Ok(false)
    }

    /// Wait for all that was sent, and for the jobs where that is wanted.
    pub(crate) async fn finish(mut self) -> Outcome {
        while !self.sent.is_empty() {
            self.settle().await;
        }
        if let Some((progress, counts)) = self.progress.take() {
            progress.finish(&counts);
        }
        let mut ticks = tokio::time::interval(TICK);
        while !self.following.is_empty() {
            tokio::select! {
                _ = self.following.join_next() => {}
                _ = ticks.tick() => {
                    if let Some(followed) = &self.followed {
                        followed.draw();
                    }
                }
            }
        }
        let code = self.followed.as_ref().map_or(0, |followed| followed.finish());
        Ok(code.max(u8::from(self.failed)))
    }

    /// The answer to the oldest request.
    async fn settle(&mut self) {
        let Some(sent) = self.sent.pop_front() else { return };
        match sent.answer.await {
            Ok(response) => {
                if !sent.quiet {
                    sent.out.line(&jobid::f58(response.id));
                }
                if let Some(followed) = &self.followed {
                    followed.expect();
                    let job =
                        Job { id: response.id, out: sent.out, err: sent.err, wait: sent.wait };
                    self.following.spawn(followed.clone().follow(job));
                }
            }
            Err(error) => {
                sent.err.line(&format!("{}{}", sent.label, send::with_errno(&error)));
                self.failed = true;
            }
        }
        if let Some((progress, counts)) = &mut self.progress {
            counts.done += 1;
            progress.draw(counts);
        }
    }

    async fn connect(&mut self) -> Result<Client, Failure> {
        if let Some(flux) = &self.flux {
            return Ok(flux.clone());
        }
        let flux = self.context.connect().await?;
        self.flux = Some(flux.clone());
        Ok(flux)
    }

    async fn follow(&mut self, draft: &Draft) -> Result<(), Failure> {
        if self.followed.is_some() || draft.common.dry_run {
            return Ok(());
        }
        let show = Show {
            output: draft.many.watch,
            label: draft.common.label_io,
            status: draft.tasks.verbose > 0,
            events: draft.tasks.verbose > 1,
        };
        let progress = match draft.many.progress {
            true => Progress::start("flux", Kind::Jobs, draft.many.jps),
            false => None,
        };
        let flux = self.connect().await?;
        self.followed = Some(Arc::new(Followed::new(flux, show, progress)));
        Ok(())
    }

    /// `--log` takes both streams, `--log-stderr` the second.
    fn sinks(&mut self, draft: &Draft) -> Result<(Sink, Sink), Failure> {
        let (mut out, mut err) = (Sink::Stdout, Sink::Stderr);
        if let Some(path) = &draft.many.log {
            out = self.log(path)?;
            err = out.clone();
        }
        if let Some(path) = &draft.many.log_stderr {
            err = self.log(path)?;
        }
        Ok((out, err))
    }

    fn log(&mut self, path: &str) -> Result<Sink, Failure> {
        if let Some(sink) = self.logs.get(path) {
            return Ok(sink.clone());
        }
        let file = std::fs::File::create(path)
            .map_err(|error| refuse(format_args!("{}: '{path}'", strerror(&error))))?;
        let sink = Sink::File(Arc::new(Mutex::new(file)));
        self.logs.insert(path.to_owned(), sink.clone());
        Ok(sink)
    }
}

/// The members of `--cc` or `--bcc`; one job that is no copy where there is neither.
pub(crate) fn copies(draft: &Draft) -> Result<Vec<Option<u32>>, Failure> {
    let ids = match (&draft.many.cc, &draft.many.bcc) {
        (Some(_), Some(_)) => return Err(refuse("specify only one of --cc or --bcc")),
        (Some(ids), None) | (None, Some(ids)) => ids,
        (None, None) => return Ok(vec![None]),
    };
    let ids: Idset =
        ids.parse().map_err(|_| refuse(format_args!("IDset: Invalid argument: '{ids}'")))?;
    Ok(ids.iter().map(Some).collect())
}
