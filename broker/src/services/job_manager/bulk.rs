//! A command on many ranks at once: started through rexec, logged line by line, ended by a
//! timeout, a cancellation or, if so ordered, the first rank that fails. Ranks where not even
//! SIGKILL ends it are drained and waited for no longer.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::laggards::Laggards;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Object;
use flux_protocol::rpc::rexec::{self, ExecRequest, ExecResponse, Io};
use flux_protocol::rpc::{groups, resource};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Context, JobManager};
use crate::config::Config;
use crate::log::Severity;

/// wait(2) status of a rank where the command could not be started, as a shell tells it.
const NOT_STARTED: i32 = 127 << 8;
/// wait(2) status of a rank that was lost.
const LOST: i32 = libc::SIGKILL;

/// How long after a restart nodes of jobs are waited for: systemd starts their brokers again within
/// seconds.
const NODES_COME_BACK: Duration = Duration::from_secs(60);

/// What is to be run, and where.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) command: rexec::Command,
    pub(super) ranks: Idset,
    pub(super) timeout: Option<Duration>,
    /// It is the IMP that is run, which is told by SIGUSR1 to kill what it has started.
    pub(super) through_imp: bool,
    /// From SIGTERM to SIGKILL, and from there to giving up.
    pub(super) kill_timeout: Duration,
    pub(super) exit_on_first_error: bool,
    /// What it is, and for which job: the reason of a drain.
    pub(super) name: String,
    pub(super) job: String,
    /// Begins the log lines.
    pub(super) label: String,
    /// Log lines name the host and rank.
    pub(super) names_ranks: bool,
    /// Who knows what a command that was canceled and had to be killed has left behind: its node
    /// is drained.
    pub(super) drains_killed: bool,
    /// Lines that match one of them are not logged.
    pub(super) ignore: Rc<[regex_lite::Regex]>,
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Bulk {
    order: Order,
    hosts: Hostlist,
    /// Process ids of the ranks where it runs.
    running: RefCell<BTreeMap<u32, i64>>,
    /// Ranks where it has ended.
    statuses: RefCell<BTreeMap<u32, i32>>,
    errors: RefCell<BTreeMap<u32, String>>,
    canceled: Cell<bool>,
    end: Notify,
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// The highest wait(2) status.
    pub(super) status: i32,
    pub(super) failed: Idset,
    pub(super) timed_out: bool,
    pub(super) canceled: bool,
    /// Why it could not run, by rank.
    pub(super) errors: BTreeMap<u32, String>,
}

/// Why a command is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Timeout,
    Canceled,
    FirstError,
}

impl Bulk {
    pub(super) fn new(context: &Context, order: Order) -> Rc<Bulk> {
        let hosts = context.broker().attrs().get("hostlist").unwrap_or_default();
        Rc::new(Bulk {
            order,
            hosts: hosts.parse().unwrap_or_default(),
            running: RefCell::default(),
            statuses: RefCell::default(),
            errors: RefCell::default(),
            canceled: Cell::new(false),
            end: Notify::new(),
        })
    }

    /// End it: SIGTERM, then SIGKILL.
    pub(super) fn cancel(&self) {
        self.canceled.set(true);
        self.end.notify_one();
    }

    /// How far it is.
    pub(super) fn describe(&self) -> Object {
        let active = self.active_ranks();
        let mut object = Object::new();
        if self.canceled.get() {
            object.insert("state".to_owned(), json!("canceled"));
        }
        object.insert("total".to_owned(), json!(self.order.ranks.count()));
        object.insert("active".to_owned(), json!(active.count()));
        object.insert("active_ranks".to_owned(), json!(active.to_string()));
        object
    }

    /// Ranks where it has not ended.
    pub(super) fn active_ranks(&self) -> Idset {
        let ended = self.statuses.borrow();
        self.order.ranks.iter().filter(|rank| !ended.contains_key(rank)).collect()
    }

    /// On ranks that the order names one by one.
    pub(super) fn is_per_rank(&self) -> bool {
        self.order.names_ranks
    }

    /// What to tell of where it is not done yet.
    pub(super) fn news(&self, laggards: &mut Laggards) -> Option<String> {
        laggards.news(&self.order.name, self.active_ranks(), &self.hosts)
    }

    pub(super) fn host(&self, rank: u32) -> String {
        self.hosts.nth(u64::from(rank)).unwrap_or_else(|| "unknown".to_owned())
    }

    pub(super) fn hosts_of(&self, ranks: &Idset) -> String {
        let mut hosts = Hostlist::new();
        ranks.iter().for_each(|rank| hosts.push_host(&self.host(rank)));
        hosts.to_string()
    }

    /// After a restart brokers come back one by one. Whoever is not there in time is lost.
    pub(super) async fn until_nodes_are_back(&self, context: &Context, ranks: &Idset) {
        let online = groups::NameRequest { name: "broker.online".to_owned() };
        let Ok(mut members) = context.handle().stream::<groups::Get>(Nodeid(0), &online) else {
            return;
        };
        let all_there = async {
            while let Ok(response) = members.next().await {
                let online: Idset = response.members.parse().unwrap_or_default();
                if ranks.difference(&online).is_empty() {
                    return;
                }
            }
        };
        tokio::select! {
            () = all_there => {}
            () = tokio::time::sleep(NODES_COME_BACK) => {}
            // For `run`, which ends what it has begun.
            () = self.end.notified() => self.end.notify_one(),
        }
    }

    /// Run it to its end on all ranks; `each` hears of a rank that is done.
    pub(super) async fn run(self: Rc<Self>, context: Context, each: impl Fn(u32)) -> Outcome {
        let mut ranks = tokio::task::JoinSet::new();
        for rank in self.order.ranks.iter() {
            let (bulk, context) = (self.clone(), context.clone());
            ranks.spawn_local(async move {
                bulk.run_on(&context, rank).await;
                rank
            });
        }
        let deadline = self.order.timeout.map(|timeout| Instant::now() + timeout);
        let mut ending: Option<End> = None;
        let mut kill_at: Option<Instant> = None;
        let mut give_up_at: Option<Instant> = None;
        loop {
            let end = tokio::select! {
                done = ranks.join_next() => match done {
                    None => break,
                    Some(Ok(rank)) => {
                        each(rank);
                        let failed = self.statuses.borrow().get(&rank) != Some(&0);
                        if !(failed && self.order.exit_on_first_error) {
                            continue;
                        }
                        End::FirstError
                    }
                    Some(Err(_)) => continue,
                },
                () = until(deadline), if ending.is_none() => End::Timeout,
                () = self.end.notified(), if ending.is_none() => End::Canceled,
                () = until(kill_at), if kill_at.is_some() => {
                    kill_at = None;
                    give_up_at = Instant::now().checked_add(self.order.kill_timeout);
                    if ending == Some(End::Canceled) && self.order.drains_killed {
                        self.drain(&context, &self.active_ranks()).await;
                    }
                    self.signal(&context, libc::SIGKILL);
                    continue;
                }
                () = until(give_up_at), if give_up_at.is_some() => {
                    self.give_up(&context).await;
                    break;
                }
            };
            if ending.is_none() {
                ending = Some(end);
                kill_at = Instant::now().checked_add(self.order.kill_timeout);
                self.signal(&context, libc::SIGTERM);
            }
        }
        self.outcome(ending)
    }

    /// Whatever it is there, no job is to run beside it.
    async fn give_up(&self, context: &Context) {
        let stuck = self.active_ranks();
        for rank in stuck.iter() {
            let text = "does not end by SIGKILL, the node is drained";
            self.log(context, Severity::Err, rank, "", text);
            self.errors.borrow_mut().insert(rank, text.to_owned());
            self.statuses.borrow_mut().insert(rank, LOST);
        }
        self.drain(context, &stuck).await;
    }

    /// Of ranks where it did not end in its time.
    async fn drain(&self, context: &Context, ranks: &Idset) {
        let how = if self.canceled.get() { "canceled then timed out" } else { "timed out" };
        let request = resource::DrainRequest {
            targets: ranks.to_string(),
            reason: Some(format!("{} {how} for job {}", self.order.name, self.order.job)),
            mode: Some("update".to_owned()),
        };
        if let Err(failure) = context.handle().rpc::<resource::Drain>(&request).await {
            let text = format!("{}: rank {ranks} can't be drained: {failure}", self.order.label);
            context.log(Severity::Err, text);
        }
    }

    fn outcome(&self, ending: Option<End>) -> Outcome {
        let statuses = self.statuses.borrow();
        let failed = statuses.iter().filter(|(_, status)| **status != 0).map(|(rank, _)| *rank);
        Outcome {
            status: statuses.values().copied().max().unwrap_or(0),
            failed: failed.collect(),
            timed_out: ending == Some(End::Timeout),
            canceled: self.canceled.get(),
            errors: self.errors.borrow().clone(),
        }
    }

    async fn run_on(self: &Rc<Self>, context: &Context, rank: u32) {
        let status = match self.follow(context, rank).await {
            Ok(status) => status,
            Err(failure) => {
                let lost = failure.errno == Errno::EHOSTUNREACH;
                self.log(context, Severity::Err, rank, "", &failure.to_string());
                self.errors.borrow_mut().insert(rank, failure.to_string());
                if lost { LOST } else { NOT_STARTED }
            }
        };
        self.running.borrow_mut().remove(&rank);
        self.statuses.borrow_mut().insert(rank, status);
    }

    /// Until the stream of the process ends.
    async fn follow(self: &Rc<Self>, context: &Context, rank: u32) -> Result<i32, Failure> {
        let flags = rexec::flags::STDOUT | rexec::flags::STDERR;
        // The next instance runs it again: what is left of this one must not go on beside it.
        let local_flags = rexec::local_flags::FORK_EXEC;
        let request = ExecRequest { cmd: self.order.command.clone(), flags, local_flags };
        let mut responses = context.handle().stream::<rexec::Exec>(Nodeid(rank), &request)?;
        let mut status = 0;
        loop {
            match responses.next().await {
                Ok(ExecResponse::Started { pid }) => {
                    self.running.borrow_mut().insert(rank, pid);
                    if self.canceled.get() {
                        self.signal_one(context, rank, pid, libc::SIGTERM);
                    }
                }
                Ok(ExecResponse::Output { io, .. }) => self.output(context, rank, &io),
                Ok(ExecResponse::Finished { status: ended }) => status = ended,
                Ok(_) => {}
                Err(failure) if failure.errno == Errno::ENODATA => return Ok(status),
                Err(failure) => return Err(failure),
            }
        }
    }

    fn output(&self, context: &Context, rank: u32, io: &Io) {
        let severity = if io.stream == "stderr" { Severity::Err } else { Severity::Info };
        for line in io.data.as_deref().unwrap_or_default().lines() {
            let blank = line.trim().is_empty();
            if !blank && !self.order.ignore.iter().any(|ignore| ignore.is_match(line)) {
                self.log(context, severity, rank, &format!("{}: ", io.stream), line);
            }
        }
    }

    fn log(&self, context: &Context, severity: Severity, rank: u32, stream: &str, line: &str) {
        let label = &self.order.label;
        let place = match self.order.names_ranks {
            true => format!("{} (rank {rank}): ", self.host(rank)),
            false => String::new(),
        };
        context.log(severity, format!("{label}: {place}{stream}{line}"));
    }

    /// Send a signal wherever it runs.
    pub(super) fn signal(&self, context: &Context, signum: i32) {
        let running: Vec<(u32, i64)> =
            self.running.borrow().iter().map(|(rank, pid)| (*rank, *pid)).collect();
        for (rank, pid) in running {
            self.signal_one(context, rank, pid, signum);
        }
    }

    /// Send a signal on some ranks only.
    pub(super) fn signal_on(&self, context: &Context, ranks: &BTreeSet<u32>, signum: i32) {
        let running = self.running.borrow();
        for (rank, pid) in running.iter().filter(|(rank, _)| ranks.contains(rank)) {
            self.signal_one(context, *rank, *pid, signum);
        }
    }

    fn signal_one(&self, context: &Context, rank: u32, pid: i64, signum: i32) {
        // The IMP may be killed, but what it runs as root would go on without it.
        let signum = match signum {
            libc::SIGKILL if self.order.through_imp => libc::SIGUSR1,
            _ => signum,
        };
        let request = rexec::KillRequest { pid, label: None, signum };
        let handle = context.handle().clone();
        let (after, label) = (context.clone(), self.order.label.clone());
        context.spawn(
            async move { handle.rpc_to::<rexec::Kill>(Nodeid(rank), &request).await },
            move |_: &mut JobManager, result| match result {
                Err(failure) if failure.errno != Errno::ESRCH => {
                    after.log(Severity::Err, format!("{label}: kill on rank {rank}: {failure}"));
                }
                _ => {}
            },
        );
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Does this command line run the IMP?
pub(super) fn is_through_imp(config: &Config, cmdline: &[String]) -> bool {
    let imp = config.get_str("exec.imp");
    imp.is_some() && cmdline.first().map(String::as_str) == imp
}

/// A command line with the environment of the instance's owner.
pub(super) fn command(
    context: &Context,
    cmdline: Vec<String>,
    more: impl IntoIterator<Item = (&'static str, String)>,
) -> rexec::Command {
    let mut env = crate::rc::environment(context.broker());
    env.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    rexec::Command { cmdline, env, ..rexec::Command::default() }
}
