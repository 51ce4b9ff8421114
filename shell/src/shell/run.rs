//! The running phase: from the start of the tasks until there is nothing left to do.

use bytes::Bytes;
use flux_protocol::message::{Message, Nodeid};
use flux_protocol::payload::{decode_json, encode_json};
use flux_protocol::rpc::rexec::Io;
use flux_protocol::rpc::{job_info, job_manager};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Shell, Sources, raise};
use crate::fatal::Fatal;
use crate::input::Target;
use crate::output::Remote;
use crate::task::{self, StdinFull, Stream};
use crate::{io, pmi, terminus};

/// What the loop hears besides requests and output.
#[derive(Debug)]
enum Wake {
    Task(task::Event),
    Pmi(pmi::Event),
    Terminal(u32, terminus::Said),
    TerminalExited(u32, i32),
    Process(task::Event),
    Gathered,
    Commit(crate::journal::Committed),
    Credit(Result<i64, flux_client::RpcError>),
    Request(Message),
    Event(Message),
    Signal(i32),
    Input(String),
    Expiration(f64),
    Deadline,
    /// No more requests come than there are already.
    Retired,
    /// The broker has gone.
    Lost(String),
}

/// The end of the service, which comes last: who sends input to a job that has just ended is to
/// get an answer.
#[derive(Clone, Copy)]
enum Retirement {
    Not,
    Asked,
    Done,
}

#[derive(Deserialize)]
struct KillEvent {
    signum: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TasksComplete {
    pub(super) shell_rank: i64,
}

impl Shell {
    pub(super) async fn run(&mut self, sources: &mut Sources) -> Result<(), Fatal> {
        let (watched, mut from_watches) = mpsc::unbounded_channel();
        self.watch_input(&watched);
        self.watch_expiration(&watched);
        let mut retirement = Retirement::Not;
        loop {
            self.drain_log();
            if self.is_done() {
                match retirement {
                    Retirement::Not => {
                        retirement = Retirement::Asked;
                        retire(&mut sources.service, &watched);
                    }
                    Retirement::Asked => {}
                    Retirement::Done => return Ok(()),
                }
            }
            match self.next(sources, &mut from_watches).await {
                Wake::Task(event) => self.task_event(event)?,
                Wake::Terminal(id, said) => self.terminal_said(id, said)?,
                Wake::TerminalExited(id, status) => self.terminus.exited(id, status),
                Wake::Process(event) => self.rexec.event(event),
                Wake::Gathered => self.gathering -= 1,
                Wake::Pmi(event) => self.pmi_event(event).await?,
                Wake::Commit(committed) => self.journal.committed(committed),
                Wake::Credit(grant) => {
                    let log = self.log.clone();
                    if let Some(remote) = self.output.remote() {
                        remote.granted(grant, &log);
                    }
                }
                Wake::Request(request) => self.request(&request)?,
                Wake::Event(event) => self.job_event(&event),
                Wake::Signal(signum) => {
                    self.log.debug("signals", format_args!("forwarding signal {signum} to tasks"));
                    self.kill_tasks(signum);
                    self.terminus.hurry();
                }
                Wake::Input(line) => self.input_event(&line),
                Wake::Expiration(expiration) => {
                    if let Some(warning) = &mut self.warning {
                        warning.set_expiration(expiration, &self.log);
                    }
                }
                Wake::Deadline => self.deadline_passed()?,
                Wake::Retired => {
                    retirement = Retirement::Done;
                    while let Some(request) = sources.service.try_next() {
                        self.request(&request)?;
                    }
                }
                Wake::Lost(why) => return Err(self.lost(&why)),
            }
        }
    }

    async fn next(
        &mut self,
        sources: &mut Sources,
        watched: &mut mpsc::UnboundedReceiver<Wake>,
    ) -> Wake {
        let has_room = self.journal.has_room() && self.output.has_room();
        let deadline = self.next_deadline();
        let expired = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let credit = async {
            match self.output.remote() {
                Some(remote) => Remote::grant(remote).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(event) = sources.tasks.recv(), if has_room => Wake::Task(event),
            Some(event) = sources.pmi.recv() => Wake::Pmi(event),
            Some((id, said)) = sources.terminus.said.recv(), if has_room => {
                Wake::Terminal(id, said)
            }
            Some((id, status)) = sources.terminus.exits.recv() => Wake::TerminalExited(id, status),
            Some(event) = sources.rexec.recv() => Wake::Process(event),
            Some(()) = sources.gathered.recv() => Wake::Gathered,
            Some(wake) = watched.recv() => wake,
            committed = self.journal.answer() => Wake::Commit(committed),
            grant = credit => Wake::Credit(grant),
            request = sources.service.next() => match request {
                Ok(request) => Wake::Request(request),
                Err(e) => Wake::Lost(e.to_string()),
            },
            event = sources.events.next() => match event {
                Ok(event) => Wake::Event(event),
                Err(e) => Wake::Lost(e.to_string()),
            },
            signum = sources.trapped.next() => Wake::Signal(signum),
            () = expired => Wake::Deadline,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.journal.deadline(),
            self.doom.deadline(),
            self.rexec.deadline(),
            self.warning.as_ref().and_then(|warning| warning.deadline()),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn deadline_passed(&mut self) -> Result<(), Fatal> {
        let now = Instant::now();
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if is_over(self.journal.deadline()) {
            self.journal.flush();
        }
        if let Some(warning) = &mut self.warning
            && is_over(warning.deadline())
        {
            let signum = i64::from(warning.expire(&self.log));
            let request = job_manager::KillRequest { id: self.job.id, signum };
            // Its failure would be the job's end, which comes anyway.
            drop(self.flux.start::<job_manager::Kill>(Nodeid::ANY, &request));
        }
        if is_over(self.rexec.deadline()) {
            self.rexec.expire();
        }
        if is_over(self.doom.deadline()) {
            return Err(self.doom.expire(&self.job));
        }
        Ok(())
    }

    /// Whether there is nothing left to wait for.
    fn is_done(&mut self) -> bool {
        let all_complete = self.finished
            && self.terminus.is_empty()
            && self.rexec.is_idle()
            && self.gathering == 0
            && (!self.job.is_leader() || self.active_shells.is_empty());
        if !all_complete {
            return false;
        }
        if !self.journal.is_idle() && self.journal.deadline().is_some() {
            self.journal.flush();
        }
        self.journal.is_idle()
    }

    fn task_event(&mut self, event: task::Event) -> Result<(), Fatal> {
        match event {
            task::Event::Output { index, stream, data } => {
                self.output.data(index, stream, &data, &mut self.journal);
            }
            task::Event::Eof { index, stream } => {
                self.output.eof(index, stream, &mut self.journal);
            }
            task::Event::Exited { index, status } => self.task_exited(index, status)?,
        }
        Ok(())
    }

    fn task_exited(&mut self, index: usize, status: i32) -> Result<(), Fatal> {
        let Some(task) = self.tasks.get_mut(index) else { return Ok(()) };
        let rank = task.id.rank;
        if self.terminus.is_captured_and_open(rank) {
            task.waiting = Some(status);
            return Ok(());
        }
        task.status = Some(status);
        if self.pty.ranks.contains(rank) {
            self.output.eof(index, Stream::Stderr, &mut self.journal);
            self.output.eof(index, Stream::Stdout, &mut self.journal);
            self.terminus.exited(rank, status);
        }
        let info = task.info();
        let (rank, code) = (info.rank, info.exitcode);
        self.log.debug(None, format_args!("task {rank} complete status={code}"));
        if info.signaled == libc::SIGKILL {
            crate::oom::explain(&self.job.hostname, &self.log);
        }
        if self.doom.task_exited(&self.job, &info, &mut self.journal)? {
            self.tell_leader("doom", &info);
        }
        if self.tasks.iter().all(task::Task::is_complete) {
            self.tasks_finished();
        }
        Ok(())
    }

    fn terminal_said(&mut self, id: u32, said: terminus::Said) -> Result<(), Fatal> {
        let captured = self.terminus.said(id, &said);
        let Some(task) = self.tasks.iter_mut().find(|task| captured && task.id.rank == id) else {
            return Ok(());
        };
        let index = task.id.index;
        match (said, task.waiting.take()) {
            (terminus::Said::Data(data), waiting) => {
                task.waiting = waiting;
                self.output.terminal_data(index, data, &mut self.journal);
                Ok(())
            }
            (terminus::Said::Closed, Some(status)) => self.task_exited(index, status),
            (terminus::Said::Closed, None) => Ok(()),
        }
    }

    /// All tasks here have ended.
    fn tasks_finished(&mut self) {
        self.finished = true;
        self.rexec.shut_down();
        if self.job.is_leader() {
            self.shell_complete(0);
        } else {
            let shell_rank = i64::try_from(self.job.shell_rank).unwrap_or(-1);
            self.tell_leader("tasks-complete", &TasksComplete { shell_rank });
        }
    }

    /// All tasks of a shell have ended; the leader counts them.
    pub(super) fn shell_complete(&mut self, shell_rank: u32) {
        if !self.active_shells.remove(shell_rank) || !self.active_shells.is_empty() {
            return;
        }
        self.log.debug("tasks-complete", "all shells report tasks complete");
        self.doom.all_complete();
        self.output.finish();
    }

    fn tell_leader<T: Serialize>(&self, method: &str, payload: &T) {
        let topic = format!("{}.{method}", self.job.service);
        let request = flux_client::Request::new(topic).to(Nodeid(self.job.leader()));
        let sent = encode_json(payload)
            .map_err(flux_client::RpcError::from)
            .and_then(|payload| self.flux.notify_raw(request.payload(payload)));
        if let Err(e) = sent {
            self.log.error(None, format_args!("{method}: can't tell the leader: {e}"));
        }
    }

    async fn pmi_event(&mut self, event: pmi::Event) -> Result<(), Fatal> {
        let Some(pmi) = &mut self.pmi else { return Ok(()) };
        match pmi.event(event)? {
            pmi::Outcome::Nothing => {}
            pmi::Outcome::Abort(note) => {
                // The execution system ends the job; until then its output is carried.
                raise(&self.flux, self.job.id, &Fatal::new(None, note), &mut self.raised).await;
            }
        }
        Ok(())
    }

    fn job_event(&mut self, event: &Message) {
        // Anybody may publish an event of any topic.
        let userid = flux_protocol::credential::Userid(self.job.userid);
        if event.topic.method() != "kill" || !event.cred.authorizes(userid) {
            return;
        }
        match decode_json::<KillEvent>(event.payload.as_ref()) {
            Ok(KillEvent { signum }) => self.kill_tasks(signum),
            Err(_) => self.log.warn("kill", "kill: ignoring malformed event"),
        }
    }

    /// Shells other than the leader learn of input from the job's log.
    fn watch_input(&self, watched: &mpsc::UnboundedSender<Wake>) {
        if self.job.is_leader() || !self.input.is_service() {
            return;
        }
        let request = job_info::EventlogWatchRequest {
            id: self.job.id,
            path: "guest.input".to_owned(),
            flags: 0,
        };
        let stream = self.flux.stream::<job_info::EventlogWatch>(Nodeid::ANY, &request);
        let watched = watched.clone();
        let log = self.log.is_verbose();
        tokio::spawn(async move {
            let Ok(mut stream) = stream else { return };
            loop {
                match stream.next().await {
                    Ok(Some(response)) => {
                        if watched.send(Wake::Input(response.event)).is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(e) => {
                        if log {
                            crate::log::say(format_args!("guest.input: {e}"));
                        }
                        return;
                    }
                }
            }
        });
    }

    /// The time limit of a job may change; only a warning depends on it.
    fn watch_expiration(&self, watched: &mpsc::UnboundedSender<Wake>) {
        if self.warning.is_none() {
            return;
        }
        let request = job_info::UpdateRequest { id: self.job.id, key: "R".to_owned(), flags: 0 };
        let stream = self.flux.stream::<job_info::UpdateWatch>(Nodeid::ANY, &request);
        let watched = watched.clone();
        let mut known = self.job.expiration;
        tokio::spawn(async move {
            let Ok(mut stream) = stream else { return };
            while let Ok(Some(response)) = stream.next().await {
                let expiration =
                    response.get("R").and_then(|r| r.pointer("/execution/expiration")?.as_f64());
                let Some(expiration) = expiration.filter(|&expiration| expiration != known) else {
                    continue;
                };
                known = expiration;
                if watched.send(Wake::Expiration(expiration)).is_err() {
                    return;
                }
            }
        });
    }

    fn input_event(&mut self, line: &str) {
        #[derive(Deserialize)]
        struct Entry {
            name: String,
            context: Option<serde_json::Value>,
        }
        let Ok(Entry { name, context: Some(context) }) = serde_json::from_str(line) else { return };
        if name != "data" {
            return;
        }
        match Io::deserialize(&context) {
            Ok(io) => {
                if let Some(target) = Target::of(&io) {
                    self.deliver(&target, &io);
                }
            }
            Err(e) => self.log.error("input.kvs", format_args!("malformed input event: {e}")),
        }
    }

    /// Give input to the tasks that it is for.
    pub(super) fn deliver(&mut self, target: &Target, io: &Io) {
        let data = io::decode(io).map(Bytes::from).unwrap_or_default();
        for task in self.tasks.iter_mut().filter(|task| target.contains(task.id.rank)) {
            if !data.is_empty() && task.write_stdin(data.clone()) == Err(StdinFull::Overflow) {
                let rank = task.id.rank;
                self.log.warn("input.kvs", format_args!("task {rank}: buffer full, closing stdin"));
            }
            if io.eof {
                task.close_stdin();
            }
        }
    }

    /// Without its broker a shell can't do its work.
    fn lost(&self, why: &str) -> Fatal {
        self.kill_all();
        crate::log::say(format_args!("FATAL: {why}"));
        Fatal::silent()
    }
}

fn retire(service: &mut flux_client::Service, watched: &mpsc::UnboundedSender<Wake>) {
    let pending = service.retire();
    let watched = watched.clone();
    tokio::spawn(async move {
        if let Ok(pending) = pending {
            // Without a broker there are no requests either.
            let _ = pending.await;
        }
        let _ = watched.send(Wake::Retired);
    });
}
