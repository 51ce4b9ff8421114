//! Simulated execution: `attributes.system.exec.test` in the jobspec.
//!
//! Nothing is run; the job lasts for `run_duration` (FSD; without one for the job's own duration)
//! and ends with `wait_status`. `mock_exception` (`init`, `starting` or `run`) raises an exception
//! at that point. With `override`, the job starts when `job-exec.override` says so; one without a
//! duration ends so, too.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::job_exec::StartEvent;
use flux_protocol::rpc::kvs;
use flux_protocol::treeobj::Treeobj;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Context;
use super::guest::event_line;
use super::run::Run;
use super::timer;
use crate::log::Severity;

/// The table in the jobspec.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Test {
    #[serde(default)]
    run_duration: Option<Value>,
    #[serde(default)]
    wait_status: i32,
    #[serde(default)]
    mock_exception: Option<String>,
    /// Not 0: start by hand.
    #[serde(default, rename = "override")]
    by_hand: i64,
}

impl Test {
    pub(super) fn is_by_hand(&self) -> bool {
        self.by_hand != 0
    }
}

/// What somebody says of a job that goes by hand.
#[derive(Debug, Default)]
pub(super) struct Hand {
    started: Cell<bool>,
    /// wait(2) status with which it ends.
    finished: Cell<Option<i32>>,
    moved: Notify,
}

impl Hand {
    pub(super) fn tell(&self, event: &str, status: i32) -> Result<(), Failure> {
        let invalid = |text: &str| Err(Failure::new(Errno::EINVAL, text));
        match (event, self.started.get()) {
            ("start", true) => return invalid("Job already running"),
            ("finish", false) => return invalid("Job not running"),
            ("start", false) => self.started.set(true),
            ("finish", true) => self.finished.set(Some(status)),
            _ => return invalid("Invalid event"),
        }
        self.moved.notify_waiters();
        Ok(())
    }

    async fn started(&self) {
        while !self.started.get() {
            self.moved.notified().await;
        }
    }

    async fn finished(&self) -> i32 {
        loop {
            if let Some(status) = self.finished.get() {
                return status;
            }
            self.moved.notified().await;
        }
    }
}

/// Nothing when the job is a real one.
pub(super) fn test(jobspec: &Value) -> Option<Test> {
    let table = jobspec.pointer("/attributes/system/exec/test")?;
    Some(serde_json::from_value(table.clone()).unwrap_or_default())
}

/// wait(2) status of a job that was ended by SIGTERM.
const TERMINATED: i32 = libc::SIGTERM;

pub(super) async fn run(run: &Rc<Run>, context: &Context, test: Test) {
    let mock = |point: &str| test.mock_exception.as_deref() == Some(point);
    if mock("init") || mock("starting") {
        run.tell_exception("exec", "mock initialization exception generated");
        log(run, context, &["init"], 0).await;
        return run.finish_simulated(0x100);
    }
    let is_started = tokio::select! {
        () = run.hand.started(), if test.is_by_hand() => true,
        () = ended(run), if test.is_by_hand() => false,
        else => true,
    };
    if !is_started {
        log(run, context, &["init", "starting", "complete", "done"], TERMINATED).await;
        return run.finish_simulated(TERMINATED);
    }
    run.tell(StartEvent::Start {});
    log(run, context, &["init", "starting"], 0).await;
    if mock("run") {
        run.tell_exception("exec", "mock run exception generated");
    }
    let timer = run.clone().watch_expiration(context.clone());
    let status = tokio::select! {
        () = wait(run, duration(run, &test)) => test.wait_status,
        status = run.hand.finished() => status,
        () = ended(run) => TERMINATED,
        never = timer => match never {},
    };
    log(run, context, &["complete", "done"], status).await;
    run.finish_simulated(status);
}

fn duration(run: &Run, test: &Test) -> Option<Duration> {
    let seconds = match &test.run_duration {
        Some(Value::String(text)) => flux_protocol::fsd::parse(text).ok(),
        Some(value) => value.as_f64(),
        None => run
            .jobspec()
            .pointer("/attributes/system/duration")
            .and_then(Value::as_f64)
            .filter(|duration| *duration > 0.0),
    };
    Duration::try_from_secs_f64(seconds?).ok()
}

/// A job without a duration runs until it is ended.
async fn wait(_: &Run, duration: Option<Duration>) {
    match duration {
        Some(Duration::ZERO) => {}
        Some(duration) => timer::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn ended(run: &Run) {
    while !run.has_ended() {
        run.ending.notified().await;
    }
}

/// The log goes straight into the job's directory: no shell writes beside it.
async fn log(run: &Run, context: &Context, names: &[&str], status: i32) {
    let mut text = String::new();
    for name in names {
        let with = (*name == "complete").then(|| json!({ "status": status }));
        text.push_str(&event_line(name, with.as_ref()).unwrap_or_default());
    }
    let op = kvs::Op {
        key: format!("{}.guest.exec.eventlog", run.id().kvs()),
        flags: kvs::OP_APPEND,
        dirent: Some(Treeobj::val(text.as_bytes())),
    };
    let namespace = kvs::PRIMARY.to_owned();
    let request = kvs::CommitRequest { namespace, flags: 0, ops: vec![op] };
    if let Err(failure) = context.handle().rpc::<kvs::Commit>(&request).await {
        context.log(Severity::Err, format!("{}: exec.eventlog: {failure}", run.id().f58()));
    }
}
