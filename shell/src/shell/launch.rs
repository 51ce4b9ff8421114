//! Starting tasks, and the two events that tell of it.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use flux_protocol::taskmap::Taskmap;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{Shell, journal};
use crate::fatal::{Fatal, reason};
use crate::job::TaskId;
use crate::task::spawn::{Special, spawn};
use crate::task::{self, Plan, Streams, Task};

/// A job that is over before that needs one commit only.
const INIT_PATIENCE: Duration = Duration::from_millis(4);
const START_PATIENCE: Duration = Duration::from_millis(10);

#[derive(Serialize)]
struct InitContext<'a> {
    service: &'a str,
    #[serde(rename = "leader-rank")]
    leader_rank: u32,
    size: usize,
    /// Where a client may attach to the first task's terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pty: Option<&'a str>,
    /// What that terminal shows is in the output, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<u8>,
}

#[derive(Serialize)]
struct StartContext<'a> {
    taskmap: &'a Taskmap,
    /// Tasks are stopped, for a debugger to let them go.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sync: bool,
}

/// For debuggers.
const STOP_IN_EXEC: &str = "stop-tasks-in-exec";

/// The terminal takes their places.
fn null_streams() -> Streams {
    Streams { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
}

impl Shell {
    pub(super) fn post_init(&mut self) {
        let context = InitContext {
            service: &self.job.service,
            leader_rank: self.job.leader(),
            size: self.job.size(),
            pty: self.pty.interactive.then_some("terminus.0"),
            capture: (self.pty.interactive && self.pty.capture).then_some(1),
        };
        self.journal.append(journal::EXEC, "shell.init", &context, INIT_PATIENCE);
    }

    pub(super) fn post_start(&mut self) {
        let sync = self.job.jobspec.options.is_set(STOP_IN_EXEC);
        let context = StartContext { taskmap: &self.job.layout.taskmap, sync };
        self.journal.append(journal::EXEC, "shell.start", &context, START_PATIENCE);
    }

    pub(super) fn start_tasks(&mut self, events: &mpsc::Sender<task::Event>) -> Result<(), Fatal> {
        for id in self.job.tasks() {
            let task = self.start_task(id, events)?;
            self.tasks.push(task);
        }
        self.affinity.leave();
        Ok(())
    }

    fn start_task(
        &mut self,
        id: TaskId,
        events: &mpsc::Sender<task::Event>,
    ) -> Result<Task, Fatal> {
        let mut env = self.environment.of_task(id, self.tags());
        let mut inherited = task::Inherited::new();
        if let Some(pmi) = &mut self.pmi {
            let endpoint = pmi.connect(&self.job, id.index, id.rank)?;
            endpoint.extend(&mut env);
            inherited.push(endpoint.fd);
        }
        let mut plan = Plan { id, argv: self.command(id), env };
        let mut streams = Streams::default();
        match self.input.open_file() {
            None => {}
            Some(Ok(file)) => streams.stdin = Stdio::from(file),
            Some(Err(text)) => return Err(Fatal::new("input.file", text)),
        }
        let terminal = self.open_terminal(&mut plan)?;
        if terminal.is_some() {
            streams = null_streams();
        }
        let options = &self.job.jobspec.options;
        let special = Special {
            terminal,
            no_group: options.is_set("nosetpgrp"),
            stop_in_exec: options.is_set(STOP_IN_EXEC),
            ..Special::default()
        };
        self.affinity.enter(id.index, &self.log);
        let child = spawn(&plan, streams, &special, inherited);
        let child = child.map_err(|e| self.start_failed(id, &plan, &e))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        if let (Some(adjust), Some(pid)) = (self.oom_adjust, pid) {
            crate::oom::adjust(pid, adjust, &self.log);
        }
        if special.stop_in_exec
            && let Some(pid) = pid
            && let Err(e) = crate::sys::leave_stopped(pid)
        {
            return Err(Fatal::new("ptrace", format!("can't stop task {}: {}", id.rank, e.desc())));
        }
        Ok(Task::follow(&plan, child, !special.no_group, events.clone()))
    }

    /// Where the `pty` option gives the task a terminal, the path of that.
    fn open_terminal(&mut self, plan: &mut Plan) -> Result<Option<String>, Fatal> {
        let rank = plan.id.rank;
        if !self.pty.ranks.contains(rank) {
            return Ok(None);
        }
        let captured = self.pty.captures(rank);
        let wait = self.pty.interactive && rank == 0;
        let opened = self.terminus.open_task(rank, captured, wait);
        plan.env.insert("FLUX_TERMINUS_SESSION".to_owned(), rank.to_string());
        opened
            .map(Some)
            .map_err(|e| Fatal::new("pty", format!("terminus_session_open: {}", e.desc())))
    }

    /// The task's command, templates rendered.
    fn command(&self, id: TaskId) -> Vec<String> {
        let command = &self.job.jobspec.command;
        let command = match &self.batch {
            Some(batch) => batch.rewrite(id.rank, command),
            None => command.clone(),
        };
        let tags = self.tags().task(id);
        let render = |word: String| if word.contains("{{") { tags.render(&word) } else { word };
        command.into_iter().map(render).collect()
    }

    fn start_failed(&self, id: TaskId, plan: &Plan, error: &io::Error) -> Fatal {
        // As sh has it.
        let code = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => 126,
            Some(libc::ENOENT) => 127,
            _ => 1,
        };
        let (rank, host) = (id.rank, &self.job.hostname);
        let program = plan.argv.first().map_or("", String::as_str);
        let reason = reason(error);
        let text = format!("task {rank} (host {host}): start failed: {program}: {reason}");
        Fatal::new(None, text).exit_code(code)
    }
}
