//! One run of an entry's command.

use std::time::SystemTime;

use flux_protocol::errno::Errno;
use flux_protocol::payload::Object;
use flux_protocol::rpc::rexec::Io;
use serde_json::json;

use crate::time::unix_seconds;

/// Times in seconds since 1970.
#[derive(Debug, Clone, Default)]
pub(super) struct Task {
    pub(super) rank: u32,
    pub(super) pid: i64,
    /// wait(2) status.
    pub(super) status: i32,
    created: f64,
    started: Option<f64>,
    running: Option<f64>,
    ended: Option<f64>,
    exited: bool,
    pub(super) timed_out: bool,
    /// It could not be started, or what ran it is gone.
    pub(super) failed: Option<Errno>,
    output: [String; 2],
}

// === impl Task ===

impl Task {
    pub(super) fn new() -> Task {
        Task { created: now(), ..Task::default() }
    }

    pub(super) fn start(&mut self) {
        self.started = Some(now());
    }

    pub(super) fn is_started(&self) -> bool {
        self.started.is_some()
    }

    pub(super) fn runs(&mut self, rank: u32, pid: i64) {
        self.rank = rank;
        self.pid = pid;
        self.running = Some(now());
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some() && !self.exited
    }

    pub(super) fn exit(&mut self, status: i32) {
        self.status = status;
        self.exited = true;
    }

    pub(super) fn end(&mut self, failed: Option<Errno>) {
        self.failed = failed;
        self.ended = Some(now());
    }

    /// The lines that a piece of output completes.
    pub(super) fn lines(&mut self, io: &Io) -> Vec<String> {
        let [stdout, stderr] = &mut self.output;
        let pending = if io.stream == "stderr" { stderr } else { stdout };
        if io.encoding.is_none() {
            pending.push_str(io.data.as_deref().unwrap_or_default());
        }
        let mut lines: Vec<String> = Vec::new();
        while let Some((line, rest)) = pending.split_once('\n') {
            lines.push(line.to_owned());
            *pending = rest.to_owned();
        }
        if io.eof && !pending.is_empty() {
            lines.push(std::mem::take(pending));
        }
        lines
    }

    /// For log lines: `Exit 1`, `Terminated`.
    pub(super) fn outcome(&self) -> String {
        match libc::WIFSIGNALED(self.status) {
            true => flux_protocol::signal::describe(libc::WTERMSIG(self.status)),
            false => format!("Exit {}", libc::WEXITSTATUS(self.status)),
        }
    }

    fn state(&self) -> &'static str {
        if self.failed.is_some() {
            "Rexec Failure"
        } else if self.started.is_none() {
            "Deferred"
        } else if !self.exited {
            "Running"
        } else if self.timed_out {
            "Timeout"
        } else if self.status != 0 {
            "Failed"
        } else {
            "Exited"
        }
    }

    /// As an entry shows it.
    pub(super) fn describe(&self) -> Object {
        let mut object = Object::new();
        let mut put = |name: &str, value| object.insert(name.to_owned(), value);
        put("rank", json!(self.rank));
        put("pid", json!(self.pid));
        put("status", json!(self.status));
        put("state", json!(self.state()));
        put("create-time", json!(self.created));
        if let Some(errno) = self.failed {
            put("rexec_errno", json!(errno.0));
        }
        if self.timed_out {
            put("timedout", json!(true));
        }
        if let Some(started) = self.started {
            put("start-time", json!(started));
        }
        if let Some(running) = self.running {
            put("running-time", json!(running));
        }
        if let Some(ended) = self.ended {
            let code = match libc::WIFSIGNALED(self.status) {
                true => 128 + libc::WTERMSIG(self.status),
                false => libc::WEXITSTATUS(self.status),
            };
            put("code", json!(code));
            put("end-time", json!(ended));
        }
        object
    }
}

pub(super) fn now() -> f64 {
    unix_seconds(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(data: &str, eof: bool) -> Io {
        Io {
            stream: "stdout".to_owned(),
            rank: "0".to_owned(),
            encoding: None,
            data: Some(data.to_owned()),
            eof,
        }
    }

    #[test]
    fn output_is_told_by_the_line() {
        let mut task = Task::new();
        assert_eq!(task.lines(&io("one\ntw", false)), ["one"]);
        assert_eq!(task.lines(&io("o\n\nthree", false)), ["two", ""]);
        assert_eq!(task.lines(&io("", true)), ["three"]);
    }

    #[test]
    fn states_follow_the_run() {
        let mut task = Task::new();
        let state = |task: &Task| task.describe()["state"].as_str().unwrap().to_owned();
        assert_eq!(state(&task), "Deferred");
        task.start();
        task.runs(0, 12);
        assert_eq!(state(&task), "Running");
        task.exit(0x100);
        task.end(None);
        assert_eq!((state(&task).as_str(), &task.describe()["code"]), ("Failed", &json!(1)));
        assert_eq!(task.outcome(), "Exit 1");
        task.exit(libc::SIGTERM);
        task.timed_out = true;
        assert_eq!((state(&task).as_str(), &task.describe()["code"]), ("Timeout", &json!(143)));
        assert_eq!(task.outcome(), "Terminated");
        task.end(Some(Errno::EHOSTUNREACH));
        assert_eq!(state(&task), "Rexec Failure");
    }
}
