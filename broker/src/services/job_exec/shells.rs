//! The shells of a job, one on each of its nodes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::encode_json;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::job_exec::StartEvent;
use flux_protocol::rpc::rexec::{self, ExecRequest, ExecResponse, Io};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Context;
use super::guest;
use super::imp::{self, Launch};
use super::run::{EXIT_1, MILD, Run};
use crate::log::Severity;

/// Broker ranks by shell rank, and what became of the shells.
#[derive(Debug)]
pub(super) struct Shells {
    shells: RefCell<Vec<Shell>>,
    leader_exited: Notify,
}

#[derive(Debug)]
struct Shell {
    rank: u32,
    host: String,
    pid: Option<i64>,
    /// What the IMP has said why it can't go on.
    refusal: Option<String>,
    /// wait(2) status, once it has ended.
    status: Option<i32>,
    /// Nothing of it is left: what it started may hold its output open after its end.
    over: bool,
}

impl Shells {
    pub(super) fn new(r: &ResourceSet) -> Shells {
        let shells = r
            .nodes()
            .map(|(rank, node)| Shell {
                rank,
                host: node.host.to_string(),
                pid: None,
                refusal: None,
                status: None,
                over: false,
            })
            .collect();
        Shells { shells: RefCell::new(shells), leader_exited: Notify::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.shells.borrow().len()
    }

    /// Where shells have not ended: ranks and hosts.
    pub(super) fn active(&self) -> (Idset, Hostlist) {
        let shells = self.shells.borrow();
        let active = || shells.iter().filter(|shell| shell.status.is_none());
        (active().map(|shell| shell.rank).collect(), active().map(|shell| &shell.host).collect())
    }

    /// The first shell has ended of itself.
    pub(super) async fn leader_exit(&self) {
        self.leader_exited.notified().await;
    }

    /// Rank and pid of the shells that run.
    pub(super) fn running(&self) -> Vec<(u32, i64)> {
        self.shells
            .borrow()
            .iter()
            .filter(|shell| shell.status.is_none())
            .filter_map(|shell| Some((shell.rank, shell.pid?)))
            .collect()
    }

    /// Ranks where something of the job is left.
    pub(super) fn unfinished(&self) -> Vec<u32> {
        let shells = self.shells.borrow();
        shells.iter().filter(|shell| !shell.over).map(|shell| shell.rank).collect()
    }

    /// Nothing of the job is left anywhere, also where no shell was ever started.
    pub(super) fn are_over(&self) {
        self.shells.borrow_mut().iter_mut().for_each(|shell| shell.over = true);
    }

    fn all_started(&self) -> bool {
        self.shells.borrow().iter().all(|shell| shell.pid.is_some())
    }

    fn ranks(&self) -> Vec<u32> {
        self.shells.borrow().iter().map(|shell| shell.rank).collect()
    }

    fn host(&self, index: usize) -> String {
        self.shells.borrow().get(index).map_or_else(String::new, |shell| shell.host.clone())
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Shell)) {
        if let Some(shell) = self.shells.borrow_mut().get_mut(index) {
            change(shell);
        }
    }

    /// Where the first shell runs, if it does.
    fn leader(&self) -> Option<u32> {
        let shells = self.shells.borrow();
        shells.first().filter(|shell| shell.status.is_none()).map(|shell| shell.rank)
    }

    /// Of the first shell, which leads the others; none when it was never started.
    pub(super) fn leader_status(&self) -> Option<i32> {
        self.shells.borrow().first()?.status
    }

    /// The highest status, as that of the job.
    fn status(&self) -> i32 {
        self.shells.borrow().iter().filter_map(|shell| shell.status).max().unwrap_or(0)
    }
}

impl Run {
    /// Start all shells and wait until all have ended; the status of the job.
    pub(super) async fn run_shells(self: &Rc<Self>, context: &Context) -> i32 {
        let launch = match self.launch(context).await {
            Ok(launch) => launch,
            Err(failure) => {
                self.tell_exception("exec", &failure.to_string());
                return EXIT_1;
            }
        };
        let mut shells = tokio::task::JoinSet::new();
        for (index, rank) in self.shells().ranks().into_iter().enumerate() {
            let (run, context, launch) = (self.clone(), context.clone(), launch.clone());
            shells.spawn_local(async move { run.run_shell(&context, index, rank, launch).await });
        }
        let all = async { while shells.join_next().await.is_some() {} };
        tokio::select! {
            biased;
            () = all => {}
            never = self.watch_start(context) => match never {},
            never = self.watch_end() => match never {},
        }
        self.shells().status()
    }

    async fn run_shell(self: Rc<Self>, context: &Context, index: usize, rank: u32, launch: Launch) {
        let given_up = self.given_up();
        tokio::select! {
            result = self.follow_shell(context, index, rank, launch) => {
                if let Err(failure) = result {
                    self.shell_failed(context, index, rank, &failure);
                }
            }
            () = given_up => self.shells().update(index, |shell| {
                shell.status.get_or_insert(libc::SIGKILL);
                shell.pid = None;
            }),
        }
        self.shells().update(index, |shell| shell.over = true);
    }

    /// Until the stream of the process ends.
    async fn follow_shell(
        self: &Rc<Self>,
        context: &Context,
        index: usize,
        rank: u32,
        launch: Launch,
    ) -> Result<(), Failure> {
        let flags = rexec::flags::STDOUT | rexec::flags::STDERR;
        let request = ExecRequest { cmd: launch.command, flags, local_flags: 0 };
        let mut responses = context.handle().stream::<rexec::Exec>(Nodeid(rank), &request)?;
        let tag = responses.matchtag().0;
        loop {
            match responses.next().await {
                Ok(ExecResponse::Started { pid }) => {
                    if let Some(input) = &launch.input {
                        imp::send(context, rank, tag, input)?;
                    }
                    self.shell_started(context, index, pid);
                }
                Ok(ExecResponse::Output { io, .. }) => self.shell_output(context, index, &io),
                Ok(ExecResponse::Finished { status }) => {
                    self.shell_finished(context, index, status);
                }
                Ok(_) => {}
                Err(failure) if failure.errno == Errno::ENODATA => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
    }

    fn shell_started(self: &Rc<Self>, context: &Context, index: usize, pid: i64) {
        self.shells().update(index, |shell| shell.pid = Some(pid));
        if self.has_ended() {
            // The exception came while the shell was on its way.
            self.kill(context, self.settings().term_signal);
        }
        if self.shells().all_started() {
            self.tell(StartEvent::Start {});
        }
    }

    /// What a shell itself has to say, before it has its log in the KVS.
    fn shell_output(&self, context: &Context, index: usize, io: &Io) {
        let host = self.shells().host(index);
        for line in io.data.as_deref().unwrap_or_default().lines() {
            if let Some(refusal) = imp::refusal(line).filter(|_| self.is_through_imp(context)) {
                self.shells().update(index, |shell| shell.refusal = Some(refusal.to_owned()));
            }
            let severity = if io.stream == "stderr" { Severity::Err } else { Severity::Info };
            let id = self.id().f58();
            context.log(severity, format!("{id}: {host}[{index}]: {}: {line}", io.stream));
        }
    }

    fn shell_finished(self: &Rc<Self>, context: &Context, index: usize, status: i32) {
        let mut refusal = None;
        self.shells().update(index, |shell| {
            shell.status = Some(status);
            shell.pid = None;
            refusal = shell.refusal.take();
        });
        if index == 0 {
            self.shells().leader_exited.notify_one();
        }
        if let Some(refusal) = refusal.filter(|_| status != 0) {
            let host = self.shells().host(index);
            self.tell_exception("exec", &format!("IMP on {host}: {refusal}"));
        }
        self.barrier.shell_exited(context);
        // When the job is ended, its shells are killed at the last.
        if libc::WIFSIGNALED(status) && !self.has_ended() {
            self.shell_killed(context, index, libc::WTERMSIG(status));
        }
    }

    /// A shell that died without a word; the others of its job still run.
    fn shell_killed(&self, context: &Context, index: usize, signal: i32) {
        let (host, cause) = (self.shells().host(index), flux_protocol::signal::describe(signal));
        let note = format!("shell rank {index} (on {host}): {cause}");
        match index {
            // Nobody is left who could end the job in good order.
            0 => self.tell_exception("exec", &note),
            _ => self.shell_lost(context, index, &note),
        }
    }

    /// The shell could not be started, or its node is gone.
    fn shell_failed(
        self: &Rc<Self>,
        context: &Context,
        index: usize,
        rank: u32,
        failure: &Failure,
    ) {
        let host = self.shells().host(index);
        let lost = failure.errno == Errno::EHOSTUNREACH;
        let survives = lost && !self.is_critical(index);
        self.shells().update(index, |shell| {
            shell.status = Some(match lost {
                // An instance that goes on without a broker has not failed.
                true if survives => 0,
                true => libc::SIGKILL,
                false => 0x7f00,
            });
            shell.pid = None;
        });
        if lost {
            self.shell_lost(
                context,
                index,
                &format!("node failure on {host} (shell rank {index})"),
            );
        }
        if survives {
            return;
        }
        let note = match lost {
            true => format!("lost contact with job shell on broker {host} (rank {rank})"),
            false => format!("failed to start job shell on broker {host} (rank {rank}): {failure}"),
        };
        let kind = if lost { "node-failure" } else { "exec" };
        self.tell_exception(kind, &note);
        self.barrier.fail(context);
    }

    /// Let the first shell know, which would wait for what the lost one has to say. That the job
    /// can do without it is told with an exception that is not fatal.
    fn shell_lost(&self, context: &Context, index: usize, note: &str) {
        let critical = self.is_critical(index);
        let text = format!("{}: {note}", self.id().f58());
        context.log(Severity::Warning, text);
        if !critical {
            self.tell_mild_exception("node-failure", note);
        }
        let Some(leader) = self.shells().leader() else { return };
        let exception = json!({
            "type": "lost-shell",
            "severity": if critical { 0 } else { MILD },
            "shell_rank": index,
            // What the job's exception says is not said twice.
            "message": if critical { note } else { "" },
        });
        let topic = format!("{}-shell-{}.exception", self.userid(), self.id().f58_plain());
        let told = encode_json(&exception).map_err(|error| error.to_string()).and_then(|payload| {
            let handle = context.handle();
            let sent = handle.try_notify_raw(topic, Nodeid(leader), Flags::default(), payload);
            sent.map_err(|failure| failure.to_string())
        });
        if let Err(failure) = told {
            let text = format!("{}: lost-shell: {failure}", self.id().f58());
            context.log(Severity::Err, text);
        }
    }

    /// The shell's command line and environment; the job's own environment is the shell's to set.
    async fn launch(&self, context: &Context) -> Result<Launch, Failure> {
        let attrs = context.broker().attrs();
        let shell = self.shell_path();
        let cmdline = vec![shell, self.id().0.to_string()];
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        for name in ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"] {
            if let Ok(value) = std::env::var(name) {
                env.insert(name.to_owned(), value);
            }
        }
        env.insert("FLUX_KVS_NAMESPACE".to_owned(), guest::namespace(self.id()));
        let cwd = attrs.get("rundir");
        let command = rexec::Command { cwd, cmdline, env, ..rexec::Command::default() };
        match self.is_through_imp(context) {
            true => self.launch_through_imp(context, command).await,
            false => Ok(Launch { command, input: None }),
        }
    }

    /// By the job, or for all jobs.
    fn shell_path(&self) -> String {
        let option = self.jobspec().pointer("/attributes/system/exec/job_shell");
        if let Some(path) = option.and_then(Value::as_str) {
            return path.to_owned();
        }
        self.settings().job_shell()
    }
}
