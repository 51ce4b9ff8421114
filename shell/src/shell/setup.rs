//! Setting a shell up, up to the first barrier.

use std::path::Path;

use flux_client::Client;
use tokio::sync::mpsc;

use super::{Shell, Sources};
use crate::affinity::{Affinity, Gpus};
use crate::doom::Doom;
use crate::environment::{Environment, Surroundings};
use crate::fatal::Fatal;
use crate::input::Input;
use crate::job::{Job, Tags};
use crate::journal::Journal;
use crate::log::Log;
use crate::options::Options;
use crate::output::Output;
use crate::pmi::Pmi;
use crate::rexec::Rexec;
use crate::signals::{Trapped, Warning};
use crate::startup::Startup;
use crate::task;
use crate::terminus::{self, Terminus};
use crate::tmpdir::{self, JobTmpdir};
use crate::topology;
use crate::{batch, files, oom, rlimit};

/// Pieces of output that wait for the shell; more stay in the pipes.
const TASK_EVENTS: usize = 64;

impl Shell {
    pub(super) async fn new(
        startup: Startup,
        mut journal: Journal,
        log: &Log,
        trapped: Trapped,
    ) -> Result<(Shell, Sources), (Client, Journal, Fatal)> {
        let Startup { flux, events, service, mut job, rundir, jobid_path } = startup;
        let (task_sender, tasks) = mpsc::channel(TASK_EVENTS);
        let (pmi_sender, pmi) = mpsc::unbounded_channel();
        let (gathered_sender, gathered) = mpsc::unbounded_channel();
        log.set_rank(job.shell_rank);
        let place = Place { rundir: rundir.as_deref(), jobid_path: &jobid_path };
        let (terminus, terminals) = Terminus::new(&job, &flux, log);
        match set_up(&flux, &mut job, log, &mut journal, &place, pmi_sender).await {
            Ok(parts) => {
                let active = u32::try_from(job.size()).unwrap_or(u32::MAX);
                let shell = Shell {
                    flux,
                    log: log.clone(),
                    journal,
                    output: parts.output,
                    input: parts.input,
                    environment: parts.environment,
                    affinity: parts.affinity,
                    oom_adjust: parts.oom_adjust,
                    batch: parts.batch,
                    pmi: parts.pmi,
                    doom: parts.doom,
                    warning: parts.warning,
                    rexec: parts.rexec,
                    terminus,
                    pty: parts.pty,
                    tasks: Vec::new(),
                    active_shells: flux_protocol::idset::Idset::first_n(active),
                    finished: false,
                    raised: false,
                    gathering: 0,
                    gathered: gathered_sender,
                    tmpdir: parts.tmpdir,
                    job,
                };
                let sources = Sources {
                    events,
                    service,
                    trapped,
                    tasks,
                    pmi,
                    terminus: terminals,
                    rexec: parts.rexec_events,
                    gathered,
                    task_sender,
                };
                Ok((shell, sources))
            }
            Err(fatal) => Err((flux, journal, fatal)),
        }
    }
}

struct Place<'a> {
    rundir: Option<&'a str>,
    jobid_path: &'a str,
}

struct Parts {
    output: Output,
    input: Input,
    environment: Environment,
    affinity: Affinity,
    oom_adjust: Option<i32>,
    batch: Option<batch::BatchCommand>,
    pmi: Option<Pmi>,
    doom: Doom,
    warning: Option<Warning>,
    pty: terminus::config::Config,
    rexec: Rexec,
    rexec_events: mpsc::Receiver<task::Event>,
    tmpdir: JobTmpdir,
}

/// Who gives a file expects what is in it to be done. The files are Lua, which this shell does not
/// run, so the job does not run without it either.
fn refuse_rc_files(options: &Options) -> Result<(), Fatal> {
    for name in ["initrc", "userrc"] {
        let Some(path) = options.string(name)? else { continue };
        let why = match std::fs::File::open(&path) {
            Err(error) => crate::fatal::reason(&error),
            Ok(_) => format!("this shell reads no rc files; submit without -o {name}"),
        };
        return Err(Fatal::new(None, format!("loading rc file {path}: {why}")));
    }
    Ok(())
}

async fn set_up(
    flux: &Client,
    job: &mut Job,
    log: &Log,
    journal: &mut Journal,
    place: &Place<'_>,
    pmi_events: mpsc::UnboundedSender<crate::pmi::Event>,
) -> Result<Parts, Fatal> {
    set_verbosity(job, log)?;
    change_directory(job, log)?;
    refuse_rc_files(&job.jobspec.options)?;
    job.remap(log)?;
    for adjusted in job.layout.trim(&job.jobspec, job.shell_rank) {
        let (host, what) = (&job.hostname, adjusted.what);
        let (from, to) = (adjusted.from, adjusted.to);
        log.warn(None, format_args!("{host}: adjusted {what} from {from} to {to}"));
    }
    let tmpdir = make_tmpdir(job, place.rundir, log)?;
    let tmpdir_text = tmpdir.path().to_string_lossy().into_owned();
    let around = Surroundings {
        uri: &std::env::var("FLUX_URI").unwrap_or_default(),
        jobid_path: place.jobid_path,
        tmpdir: &tmpdir_text,
    };
    let mut environment = Environment::new(job, &around, log);
    files::extract_job_files(job, tmpdir.path(), flux).await?;
    files::stage_in(job, tmpdir.path(), flux, log).await?;
    let pmi = Pmi::new(job, flux, log, pmi_events)?;
    let input = Input::new(job, log, journal)?;
    let tags = Tags::of(job, Some(&tmpdir_text));
    let output = Output::new(job, tags, flux, log, journal)?;
    let affinity = Affinity::new(job, log)?;
    if let Some(file) = topology::write(job, tmpdir.path(), flux, log).await? {
        environment.set_topology(file);
    }
    if let Some(gpus) = Gpus::new(job, log)? {
        environment.set_gpus(gpus);
    }
    let pty = terminus::config::Config::new(job, log)?;
    let oom_adjust = oom::adjustment(&job.jobspec.options)?;
    let (rexec, rexec_events) = Rexec::new(job, flux, log)?;
    let batch = batch::prepare(job, tmpdir.path())?;
    let doom = Doom::new(job)?;
    rlimit::apply(&job.jobspec.options, log)?;
    let mut warning = Warning::new(job)?;
    if let Some(warning) = &mut warning {
        warning.set_expiration(job.expiration, log);
    }
    log_layout(job, log);
    Ok(Parts {
        output,
        input,
        environment,
        affinity,
        oom_adjust,
        batch,
        pmi,
        doom,
        warning,
        pty,
        rexec,
        rexec_events,
        tmpdir,
    })
}

fn log_layout(job: &Job, log: &Log) {
    if !log.is_verbose() {
        return;
    }
    if job.is_leader() {
        let slots = job.layout.slots;
        let per_node = slots.per_node.map_or_else(|| "-1".to_owned(), |n| n.to_string());
        log.debug(
            None,
            format_args!(
                "0: task_count={} slot_count={} cores_per_slot={} slots_per_node={per_node}",
                job.layout.total_ntasks, slots.count, slots.cores
            ),
        );
        for name in job.jobspec.options.unknown() {
            log.debug(None, format_args!("ignoring unknown shell option {name}"));
        }
    }
    let taskids = job.layout.taskids(job.shell_rank);
    let plural = if taskids.count() > 1 { "s" } else { "" };
    let cores = job.layout.node(job.shell_rank).map(|node| node.cores.encode());
    log.debug(
        None,
        format_args!(
            "{}: task{plural} {taskids} on cores {}",
            job.shell_rank,
            cores.unwrap_or_default()
        ),
    );
}

fn set_verbosity(job: &Job, log: &Log) -> Result<(), Fatal> {
    const MOST: i64 = 2;
    let verbose = job.jobspec.options.number("verbose")?.unwrap_or(0);
    log.set_verbose(i32::try_from(verbose.clamp(0, MOST)).unwrap_or(0));
    if verbose > MOST {
        log.warn(None, "Ignoring shell verbosity > 2");
    }
    Ok(())
}

/// Tasks run where the job was submitted, or where that does not exist, in /tmp.
fn change_directory(job: &Job, log: &Log) -> Result<(), Fatal> {
    let Some(cwd) = &job.jobspec.cwd else { return Ok(()) };
    let Err(e) = std::env::set_current_dir(cwd) else { return Ok(()) };
    let (host, reason) = (&job.hostname, crate::fatal::reason(&e));
    log.error(
        None,
        format_args!("host {host}: Could not change dir to {cwd}: {reason}. Going to /tmp instead"),
    );
    std::env::set_current_dir("/tmp").map_err(|e| {
        Fatal::new(None, format!("Could not change dir to /tmp: {}", crate::fatal::reason(&e)))
    })
}

fn make_tmpdir(job: &mut Job, rundir: Option<&str>, log: &Log) -> Result<JobTmpdir, Fatal> {
    const TMPDIR: &str = "TMPDIR";
    let environment = &mut job.jobspec.environment;
    if let Some(wanted) = environment.get(TMPDIR)
        && !Path::new(wanted).is_dir()
        && tmpdir::make(Path::new(wanted)).is_err()
    {
        let text = format_args!("Unable to create TMPDIR={wanted}, resetting TMPDIR=/tmp");
        log.warn("tmpdir", text);
        environment.insert(TMPDIR.to_owned(), "/tmp".to_owned());
    }
    let parent = environment.get(TMPDIR).cloned().unwrap_or_else(|| "/tmp".to_owned());
    JobTmpdir::new(job, rundir, &parent)
}
