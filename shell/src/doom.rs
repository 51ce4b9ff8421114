//! The end of the first task dooms the job: the others have to follow in time.

use flux_protocol::fsd;
use std::time::Duration;
use tokio::time::Instant;

use crate::fatal::Fatal;
use crate::job::Job;
use crate::journal::{EXEC, Journal};
use crate::options::seconds;
use crate::task::{self, Info};

const COMPONENT: &str = "task-exit";
const TIMEOUT: f64 = 30.0;

#[derive(Debug)]
pub(crate) struct Doom {
    /// Seconds; `None` waits for ever.
    timeout: Option<f64>,
    exit_on_error: bool,
    /// Who was first, once there is one. Other shells only tell the leader.
    first: Option<First>,
    reported: bool,
    deadline: Option<Instant>,
}

#[derive(Debug, Clone)]
struct First {
    what: &'static str,
    rank: u32,
    host: String,
    exit_code: i32,
    wait_status: Option<i32>,
}

// === impl Doom ===

impl Doom {
    pub(crate) fn new(job: &Job) -> Result<Doom, Fatal> {
        let options = &job.jobspec.options;
        let timeout = match options.get("exit-timeout") {
            None => Some(TIMEOUT),
            Some(value) if value.as_str().is_some_and(|v| v.eq_ignore_ascii_case("none")) => None,
            Some(value) => Some(seconds(value).ok_or_else(|| {
                Fatal::new(COMPONENT, "exit-timeout is not a valid Flux Standard Duration")
            })?),
        };
        Ok(Doom {
            timeout,
            exit_on_error: options.is_set("exit-on-error"),
            first: None,
            reported: false,
            deadline: None,
        })
    }

    /// A task of this shell has ended. Returns whether the leader is to be told.
    pub(crate) fn task_exited(
        &mut self,
        job: &Job,
        info: &Info,
        journal: &mut Journal,
    ) -> Result<bool, Fatal> {
        if self.reported {
            return Ok(false);
        }
        if !job.is_leader() {
            self.reported = true;
            return Ok(true);
        }
        self.first_exited(job, info, journal)?;
        Ok(false)
    }

    /// The leader hears of the end of a task, its own or another shell's.
    pub(crate) fn first_exited(
        &mut self,
        job: &Job,
        info: &Info,
        journal: &mut Journal,
    ) -> Result<(), Fatal> {
        if std::mem::replace(&mut self.reported, true) {
            return Ok(());
        }
        journal.append(EXEC, "shell.task-exit", info, Duration::ZERO);
        self.check(
            job,
            First {
                what: "task",
                rank: info.rank,
                host: job.layout.task_host(info.rank).to_owned(),
                exit_code: task::exit_code(info.wait_status),
                wait_status: Some(info.wait_status),
            },
        )
    }

    /// A shell of the job has gone without a word.
    pub(crate) fn shell_lost(&mut self, job: &Job, shell_rank: u32) -> Result<(), Fatal> {
        let host = job.layout.host(shell_rank as usize).to_owned();
        let wait_status = self.first.as_ref().and_then(|first| first.wait_status);
        self.check(job, First { what: "shell", rank: shell_rank, host, exit_code: 1, wait_status })
    }

    /// All tasks of all shells have ended: there is nothing left to wait for.
    pub(crate) fn all_complete(&mut self) {
        self.deadline = None;
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The deadline has passed.
    pub(crate) fn expire(&mut self, job: &Job) -> Fatal {
        self.deadline = None;
        let limit = fsd::format(self.timeout.unwrap_or_default()).unwrap_or_default();
        let tail = format!("and exit-timeout={limit} has expired");
        match &self.first {
            Some(first) => first.fatal(job, "exited", &tail),
            None => Fatal::new(COMPONENT, tail),
        }
    }

    fn check(&mut self, job: &Job, first: First) -> Result<(), Fatal> {
        if self.exit_on_error && first.exit_code != 0 {
            return Err(first.fatal(job, "failed", "and exit-on-error is set"));
        }
        self.first = Some(first);
        if let (None, Some(timeout)) = (self.deadline, self.timeout) {
            self.deadline = Duration::try_from_secs_f64(timeout)
                .ok()
                .and_then(|t| Instant::now().checked_add(t));
        }
        Ok(())
    }
}

impl First {
    fn fatal(&self, job: &Job, verb: &str, tail: &str) -> Fatal {
        let First { what, rank, host, .. } = self;
        let how = match self.wait_status {
            None => String::new(),
            Some(status) => match task::signal_of(status) {
                Some(signal) => format!(" ({})", crate::signals::describe(signal)),
                None => format!(" (Exit {})", task::exit_code(status)),
            },
        };
        let program = job.program();
        let text = format!("{program}: {what} rank {rank} on host {host} {verb}{how} {tail}");
        Fatal {
            wait_status: self.wait_status,
            ..Fatal::new(COMPONENT, text).exit_code(self.exit_code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use serde_json::{Value, json};

    fn first(options: Value, status: i32) -> (Job, Doom, Result<(), Fatal>) {
        let job = job(0, options);
        let mut doom = Doom::new(&job).unwrap();
        let first = First {
            what: "task",
            rank: 2,
            host: job.layout.task_host(2).to_owned(),
            exit_code: task::exit_code(status),
            wait_status: Some(status),
        };
        let result = doom.check(&job, first);
        (job, doom, result)
    }

    #[test]
    fn the_first_end_starts_the_clock() {
        let (job, mut doom, result) = first(json!({"exit-timeout": "1s"}), 3 << 8);
        result.unwrap();
        assert!(doom.deadline().is_some());
        let fatal = doom.expire(&job);
        assert_eq!(
            fatal.text,
            "app: task rank 2 on host n8 exited (Exit 3) and exit-timeout=1s has expired"
        );
        assert_eq!((fatal.exit_code, fatal.wait_status), (3, Some(768)));
    }

    #[test]
    fn a_failure_ends_the_job_at_once_where_that_is_wanted() {
        let (_, _, result) = first(json!({"exit-on-error": 1}), 11);
        assert_eq!(
            result.unwrap_err().text,
            "app: task rank 2 on host n8 failed (Segmentation fault) and exit-on-error is set"
        );
        let (_, _, result) = first(json!({"exit-on-error": 1}), 0);
        assert!(result.is_ok());
    }

    #[test]
    fn none_waits_for_ever_and_nonsense_is_refused() {
        let (_, doom, _) = first(json!({"exit-timeout": "none"}), 0);
        assert_eq!(doom.deadline(), None);
        assert!(Doom::new(&job(0, json!({"exit-timeout": "x"}))).is_err());
        assert!(Doom::new(&job(0, json!({"exit-timeout": true}))).is_err());
    }
}
