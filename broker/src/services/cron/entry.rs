//! A command with its schedule, its counts and its latest runs.

use std::collections::VecDeque;

use flux_protocol::failure::Failure;
use flux_protocol::payload::Object;
use flux_protocol::rpc::cron::{self as rpc, CreateRequest, Stats};
use flux_protocol::rpc::rexec::Command;
use jiff::tz::TimeZone;
use tokio::task::JoinHandle;

use super::schedule::{Interval, Schedule};
use super::task::{Task, now};

/// Further than any clock goes: there is no next time.
const NEVER: f64 = 1.0e19;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    request: CreateRequest,
    pub(super) schedule: Schedule,
    pub(super) stopped: bool,
    pub(super) stats: Stats,
    /// The run that waits or is under way.
    pub(super) task: Option<Task>,
    /// The latest first.
    finished: VecDeque<Object>,
    /// To be forgotten when its task has ended.
    pub(super) deleted: bool,
    /// An event came too soon after the last run, which is made up for.
    pub(super) paused: bool,
    /// When it runs next, in seconds since 1970.
    pub(super) next: f64,
    /// What an interval had left when it was stopped.
    left: Option<f64>,
    timer: Option<JoinHandle<()>>,
    follower: Option<JoinHandle<()>>,
}

// === impl Entry ===

impl Entry {
    /// An entry that is stopped. ENOSYS, EPROTO, EINVAL: no schedule.
    pub(super) fn new(id: u64, request: CreateRequest) -> Result<Entry, Failure> {
        let schedule = Schedule::parse(&request.kind, &request.args)?;
        Ok(Entry {
            id,
            request,
            schedule,
            stopped: true,
            stats: Stats { ctime: now(), ..Stats::default() },
            task: None,
            finished: VecDeque::new(),
            deleted: false,
            paused: false,
            next: 0.0,
            left: None,
            timer: None,
            follower: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.request.name
    }

    pub(super) fn command(&self) -> &str {
        &self.request.command
    }

    pub(super) fn rank(&self) -> u32 {
        self.request.rank.unwrap_or(0)
    }

    /// Seconds.
    pub(super) fn timeout(&self) -> Option<f64> {
        self.request.timeout.filter(|timeout| *timeout > 0.0)
    }

    pub(super) fn repeat(&self) -> u64 {
        self.request.repeat.unwrap_or(0)
    }

    /// As `rexec.exec` takes it.
    pub(super) fn shell_command(&self) -> Command {
        Command {
            cwd: self.request.cwd.clone(),
            cmdline: ["sh", "-c", self.command()].map(str::to_owned).to_vec(),
            env: self.request.environ.clone().unwrap_or_default(),
            ..Command::default()
        }
    }

    /// Count from the beginning, and say when it runs first. None: never.
    pub(super) fn start(&mut self) -> Option<f64> {
        self.stopped = false;
        self.stats.starttime = now();
        self.stats.count = 0;
        self.stats.failcount = 0;
        let left = self.left.take();
        match &mut self.schedule {
            Schedule::Interval(Interval { after, .. }) => {
                self.next = now() + left.unwrap_or(*after);
                Some(self.next)
            }
            Schedule::Event(event) => {
                event.counter = 0;
                None
            }
            Schedule::Datetime(_) => self.schedule_next(),
        }
    }

    /// When it runs after the time that has come. None: never, or when an event says so.
    pub(super) fn schedule_next(&mut self) -> Option<f64> {
        let next = match &self.schedule {
            Schedule::Interval(Interval { interval, .. }) if *interval > 0.0 => {
                // A broker that was held up does not run it many times in a row.
                let due = self.next + interval;
                Some(if due > now() { due } else { now() + interval })
            }
            Schedule::Interval(_) | Schedule::Event(_) => None,
            Schedule::Datetime(datetime) => datetime.next(now(), &TimeZone::system()),
        };
        self.next = next.unwrap_or_else(|| now() + NEVER);
        next
    }

    /// False: it was stopped already.
    pub(super) fn stop(&mut self) -> bool {
        if self.stopped {
            return false;
        }
        self.stopped = true;
        self.set_timer(None);
        self.paused = false;
        if matches!(self.schedule, Schedule::Interval(_)) {
            self.left = Some((self.next - now()).max(0.0));
        }
        true
    }

    pub(super) fn set_timer(&mut self, timer: Option<JoinHandle<()>>) {
        if let Some(old) = std::mem::replace(&mut self.timer, timer) {
            old.abort();
        }
    }

    pub(super) fn set_follower(&mut self, follower: JoinHandle<()>) {
        self.follower = Some(follower);
    }

    /// Count a failed run; true when there have been too many.
    pub(super) fn count_failure(&mut self) -> Option<u64> {
        self.stats.failure += 1;
        self.stats.failcount += 1;
        let limit = self.request.stop_on_failure.filter(|limit| *limit > 0)?;
        (self.stats.failcount >= limit).then_some(limit)
    }

    /// The run is over; keep as many as were asked for.
    pub(super) fn keep(&mut self, task: &Task) {
        let count = self.request.task_history_count.unwrap_or(1);
        self.finished.push_front(task.describe());
        self.finished.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    }

    pub(super) fn describe(&self) -> rpc::Entry {
        let running = self.task.iter().map(Task::describe);
        rpc::Entry {
            id: self.id,
            rank: self.rank(),
            name: self.name().to_owned(),
            command: self.command().to_owned(),
            repeat: self.repeat(),
            stopped: self.stopped,
            kind: self.request.kind.clone(),
            stats: self.stats.clone(),
            timeout: self.request.timeout.filter(|timeout| *timeout >= 0.0),
            stop_on_failure: None,
            typedata: self.schedule.typedata(self.next),
            tasks: running.chain(self.finished.iter().cloned()).collect(),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.set_timer(None);
        if let Some(follower) = self.follower.take() {
            follower.abort();
        }
    }
}
