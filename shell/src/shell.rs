//! The life of a shell.
//!
//! ```text
//!   connect, learn about the job            startup.rs
//!   set up: I/O, environment, limits ...    shell/setup.rs
//!   barrier: all shells are set up  --> shell.init
//!   start tasks                             shell/launch.rs
//!   barrier: all tasks run          --> shell.start
//!   carry I/O, signals, requests            shell/run.rs, shell/requests.rs
//!   all has ended: exit with the highest exit code of a task
//! ```
//!
//! One task owns all state; streams, sockets and answers reach it as events.

use std::time::Duration;

use flux_client::{Client, Events, Request, RpcError, Service};
use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::message::{Nodeid, Topic};
use flux_protocol::payload::encode_json;
use flux_protocol::rpc::{Method as _, job_exec, job_manager};
use tokio::sync::mpsc;

use crate::affinity::Affinity;
use crate::batch::BatchCommand;
use crate::doom::Doom;
use crate::environment::Environment;
use crate::fatal::Fatal;
use crate::input::Input;
use crate::job::{Job, Tags};
use crate::journal::{self, Journal};
use crate::log::Log;
use crate::output::{self, Output};
use crate::pmi::{self, Pmi};
use crate::rexec::Rexec;
use crate::signals::{Trapped, Warning};
use crate::startup::{EarlyFatal, Startup};
use crate::task::{self, Task};
use crate::terminus::{self, Terminus};
use crate::tmpdir::JobTmpdir;

mod launch;
mod requests;
mod run;
mod setup;

/// How long the exception of a dying shell may take to be raised.
const RAISE_LIMIT: Duration = Duration::from_secs(10);

struct Shell {
    flux: Client,
    log: Log,
    job: Job,
    journal: Journal,
    output: Output,
    input: Input,
    environment: Environment,
    affinity: Affinity,
    /// Of tasks' out-of-memory scores.
    oom_adjust: Option<i32>,
    batch: Option<BatchCommand>,
    pmi: Option<Pmi>,
    doom: Doom,
    warning: Option<Warning>,
    rexec: Rexec,
    terminus: Terminus,
    pty: terminus::config::Config,
    tasks: Vec<Task>,
    /// Shells that have tasks which have not ended; counted by the leader.
    active_shells: flux_protocol::idset::Idset,
    /// All tasks here have ended, and that has been told.
    finished: bool,
    /// An exception has been raised: once is enough.
    raised: bool,
    /// Tables of processes that are being gathered, and who says when one is there.
    gathering: usize,
    gathered: mpsc::UnboundedSender<()>,
    tmpdir: JobTmpdir,
}

/// What reaches a running shell.
struct Sources {
    events: Events,
    service: Service,
    trapped: Trapped,
    tasks: mpsc::Receiver<task::Event>,
    pmi: mpsc::UnboundedReceiver<pmi::Event>,
    terminus: terminus::Sources,
    rexec: mpsc::Receiver<task::Event>,
    gathered: mpsc::UnboundedReceiver<()>,
    /// To be handed to tasks when they start.
    task_sender: mpsc::Sender<task::Event>,
}

/// Run the shell of a job on this node. Returns its exit code.
pub(crate) async fn run(id: JobId) -> i32 {
    let log = Log::new();
    // From here on the execution system may want this to end.
    let trapped = match Trapped::new() {
        Ok(trapped) => trapped,
        Err(e) => {
            crate::log::say(format_args!("FATAL: failed to set up signal watchers: {e}"));
            return 1;
        }
    };
    let startup = match Startup::new(id, &log).await {
        Ok(startup) => startup,
        Err(early) => return die_early(early, id, &log).await,
    };
    let journal = Journal::new(startup.flux.clone(), &startup.job.namespace);
    match Shell::new(startup, journal, &log, trapped).await {
        Ok((mut shell, mut sources)) => match shell.live(&mut sources).await {
            Ok(()) => shell.leave().await,
            Err(fatal) => shell.die(fatal, sources.service).await,
        },
        Err((flux, mut journal, fatal)) => {
            for entry in log.take() {
                output::log_early(&entry, &mut journal);
            }
            let mut raised = false;
            end(&flux, id, &log, &mut journal, &fatal, &mut raised).await;
            fatal.exit_code
        }
    }
}

// === impl Shell ===

impl Shell {
    async fn live(&mut self, sources: &mut Sources) -> Result<(), Fatal> {
        self.enter(sources).await?;
        self.start_tasks(&sources.task_sender)?;
        self.terminus.begin();
        self.enter_started().await?;
        self.run(sources).await
    }

    /// All shells are set up.
    async fn enter(&mut self, _sources: &mut Sources) -> Result<(), Fatal> {
        if self.job.size() > 1 {
            self.drain_log();
            // The others watch the input log as soon as they are through.
            self.journal.sync().await;
            self.barrier().await?;
        }
        if self.job.is_leader() {
            self.post_init();
        }
        Ok(())
    }

    /// The tasks of all shells have been started.
    async fn enter_started(&mut self) -> Result<(), Fatal> {
        if self.job.size() > 1 {
            self.barrier().await?;
        }
        if self.job.is_leader() {
            self.post_start();
        }
        Ok(())
    }

    async fn barrier(&mut self) -> Result<(), Fatal> {
        let rank = i64::from(self.job.broker_rank);
        let request = job_exec::BarrierRequest { id: self.job.id, rank };
        let payload = encode_json(&request).map_err(|e| Fatal::new(None, e))?;
        let topic = Topic::from_static(job_exec::ShellBarrier::TOPIC);
        let request = Request::new(topic).payload(payload);
        match self.flux.rpc_untagged(request).await {
            Ok(_) => Ok(()),
            // The execution system has raised an exception that says why.
            Err(e) if e.errno() == Errno::EIO => Err(Fatal::silent()),
            Err(e) => {
                self.log.error(None, format_args!("shell_barrier: {e}"));
                Err(Fatal::silent())
            }
        }
    }

    fn tags(&self) -> Tags<'_> {
        Tags::of(&self.job, self.tmpdir.path().to_str())
    }

    /// Write what there is in the log.
    fn drain_log(&mut self) {
        for entry in self.log.take() {
            self.output.log(&entry, &mut self.journal);
        }
    }

    /// SIGKILL to whatever has been started here.
    fn kill_all(&self) {
        self.kill_tasks(libc::SIGKILL);
        self.rexec.kill_all(libc::SIGKILL);
    }

    fn kill_tasks(&self, signum: i32) {
        for task in &self.tasks {
            if let Err(e) = task.kill(signum) {
                let (rank, why) = (task.id.rank, e.desc());
                self.log.error(None, format_args!("kill task {rank}: signal {signum}: {why}"));
            }
        }
    }

    async fn leave(mut self) -> i32 {
        let code = self.tasks.iter().map(Task::exit_code).max().unwrap_or(0);
        self.log.debug(None, format_args!("exit {code}"));
        self.drain_log();
        self.journal.sync().await;
        // What has been sent without waiting for an answer.
        let _ = self.flux.flush().await;
        code
    }

    async fn die(mut self, fatal: Fatal, service: Service) -> i32 {
        self.drain_log();
        if fatal.silent {
            self.journal.sync().await;
        } else {
            if fatal.wait_status.is_some() {
                raise(&self.flux, self.job.id, &fatal, &mut self.raised).await;
            }
            self.log.fatal(fatal.component, &fatal.text);
            self.drain_log();
            self.kill_all();
            self.journal.sync().await;
            raise(&self.flux, self.job.id, &fatal, &mut self.raised).await;
        }
        self.kill_all();
        // Whoever waits for an answer gets one.
        let _ = service.remove().await;
        let _ = self.flux.flush().await;
        fatal.exit_code
    }
}

/// The job's log is there, but nothing else of the shell.
async fn end(
    flux: &Client,
    id: JobId,
    log: &Log,
    journal: &mut Journal,
    fatal: &Fatal,
    raised: &mut bool,
) {
    if fatal.silent {
        return;
    }
    log.fatal(fatal.component, &fatal.text);
    for entry in log.take() {
        output::log_early(&entry, journal);
    }
    journal.sync().await;
    raise(flux, id, fatal, raised).await;
}

/// Nothing is known of the job but its id.
async fn die_early(early: EarlyFatal, id: JobId, log: &Log) -> i32 {
    let EarlyFatal { fatal, flux } = early;
    let Some(flux) = flux else {
        crate::log::say(format_args!("FATAL: {fatal}"));
        return fatal.exit_code;
    };
    let namespace = std::env::var("FLUX_KVS_NAMESPACE").unwrap_or_else(|_| format!("job-{}", id.0));
    let mut journal = Journal::new(flux.clone(), &namespace);
    for entry in log.take() {
        crate::log::say_raw(&entry.line());
        output::log_early(&entry, &mut journal);
    }
    let mut raised = false;
    end(&flux, id, log, &mut journal, &fatal, &mut raised).await;
    fatal.exit_code
}

async fn raise(flux: &Client, id: JobId, fatal: &Fatal, raised: &mut bool) {
    if std::mem::replace(raised, true) {
        return;
    }
    let request = job_manager::RaiseRequest {
        id,
        severity: 0,
        kind: "exec".to_owned(),
        note: Some(fatal.text.clone()),
        wait_status: fatal.wait_status.map(i64::from),
    };
    let answer: Result<_, RpcError> =
        flux.rpc_within::<job_manager::Raise>(RAISE_LIMIT, Nodeid::ANY, &request).await;
    if let Err(e) = answer {
        crate::log::say(format_args!("failed to raise job exception: {e}"));
    }
}
