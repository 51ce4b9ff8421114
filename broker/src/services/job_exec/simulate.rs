//! Simulated execution: `attributes.system.exec.test` in the jobspec.
//!
//! Nothing is run; the job lasts for `run_duration` (FSD; without one for the job's own duration)
//! and ends with `wait_status`. A duration of 0 has no end. `mock_exception` (`init` or `run`) raises
//! an exception at that point; one that runs at a restart goes on. A guest may use it where `exec.testexec.allow-guests` says so. With `override`, the job starts when `job-exec.override` says so; one without a
//! duration ends so, too.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use flux_protocol::errno::Errno;
use flux_protocol::eventlog;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::job_exec::StartEvent;
use flux_protocol::rpc::kvs::{self, commit::LAZY};
use flux_protocol::treeobj::Treeobj;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Context;
use super::guest::{commit, event_line};
use super::run::Run;
use super::timer;
use crate::log::Severity;

/// The table in the jobspec.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Test {
    /// FSD; 0 has no end.
    run_duration: Option<String>,
    wait_status: i32,
    mock_exception: Option<String>,
    /// Not 0: it has ended when it is found running after a restart.
    reattach_finish: i64,
    /// Not 0: start by hand.
    #[serde(rename = "override")]
    by_hand: i64,
}

impl Test {
    pub(super) fn is_by_hand(&self) -> bool {
        self.by_hand != 0
    }

    fn mocks(&self, point: &str) -> bool {
        self.mock_exception.as_deref() == Some(point)
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

    fn was_started(&self) {
        self.started.set(true);
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

/// Nothing when the job is a real one; an error when its table can't be read.
pub(super) fn test(jobspec: &Value) -> Option<Result<Test, serde_json::Error>> {
    let table = jobspec.pointer("/attributes/system/exec/test")?;
    Some(Test::deserialize(table))
}

/// wait(2) status of a job that was ended by SIGTERM.
const TERMINATED: i32 = libc::SIGTERM;

pub(super) async fn run(run: &Rc<Run>, context: &Context, test: Result<Test, serde_json::Error>) {
    let test = match prepare(run, context, test) {
        Ok(test) => test,
        // Nothing has started, so that there is no status either.
        Err(note) => return run.fail_before_start(&note),
    };
    let is_started = tokio::select! {
        () = run.hand.started(), if test.is_by_hand() => true,
        () = ended(run), if test.is_by_hand() => false,
        else => true,
    };
    if !is_started {
        return end(run, context, &["init", "starting", "complete", "done"], TERMINATED).await;
    }
    run.tell(StartEvent::Start {});
    if test.mocks("run") {
        run.tell_exception("exec", "mock run exception generated");
    }
    let duration = duration(run, context, &test);
    // The job's time runs while its log is written, and may be over before.
    let begun = async {
        log(run, context, &["init", "starting"], 0).await;
        std::future::pending::<Infallible>().await
    };
    let status = tokio::select! {
        biased;
        never = begun => match never {},
        status = last(run, context, &test, duration) => status,
    };
    end(run, context, &["complete", "done"], status).await;
}

/// A job that ran before a restart has lost nothing by it, and goes on.
pub(super) async fn reattach(
    run: &Rc<Run>,
    context: &Context,
    test: Result<Test, serde_json::Error>,
) {
    let started = start_time(run, context).await;
    let (test, started) = match (test, started) {
        (Ok(test), Ok(started)) => (test, started),
        (Err(error), _) => return run.fail_before_start(&format!("exec.test: {error}")),
        (_, Err(failure)) => return run.fail_before_start(&format!("eventlog: {failure}")),
    };
    run.started_at(started);
    run.hand.was_started();
    run.tell(StartEvent::Reattached {});
    let so_far = crate::time::unix_seconds(SystemTime::now()) - started;
    let so_far = Duration::try_from_secs_f64(so_far).unwrap_or_default();
    let left = match test.reattach_finish {
        0 => duration(run, context, &test).map(|duration| duration.saturating_sub(so_far)),
        _ => Some(Duration::ZERO),
    };
    let status = last(run, context, &test, left).await;
    end(run, context, &["complete", "done"], status).await;
}

async fn start_time(run: &Run, context: &Context) -> Result<f64, Failure> {
    let request = kvs::LookupRequest {
        key: format!("{}.eventlog", run.id().kvs()),
        namespace: Some(kvs::PRIMARY.to_owned()),
        flags: 0,
        rootdir: None,
        rootseq: None,
    };
    let Treeobj::Val(data) = context.handle().rpc::<kvs::Lookup>(&request).await?.val else {
        return Err(Errno::EISDIR.into());
    };
    let invalid = |text: String| Failure::new(Errno::EINVAL, text);
    let bytes = data.decode().map_err(|error| invalid(error.to_string()))?;
    let start = eventlog::events(&String::from_utf8_lossy(&bytes))
        .filter_map(Result::ok)
        .find(|event| event.name == "start");
    start.map(|event| event.timestamp).ok_or_else(|| invalid("no start event".to_owned()))
}

/// From the start to the end; the status with which it ends.
async fn last(run: &Rc<Run>, context: &Context, test: &Test, duration: Option<Duration>) -> i32 {
    let timer = run.clone().watch_expiration(context.clone());
    tokio::select! {
        () = wait(duration) => test.wait_status,
        status = run.hand.finished() => status,
        () = ended(run) => TERMINATED,
        never = timer => match never {},
    }
}

/// What is told follows its log into the KVS.
async fn end(run: &Run, context: &Context, events: &[&str], status: i32) {
    let status = run.final_status(status);
    let log = log(run, context, events, status);
    tokio::join!(biased; log, async { run.finish_simulated(status) });
}

/// What can be said before the job starts; an error is the note of an exception.
fn prepare(
    run: &Run,
    context: &Context,
    test: Result<Test, serde_json::Error>,
) -> Result<Test, String> {
    let test =
        test.map_err(|error| format!("failed to initialize testconf: exec.test: {error}"))?;
    if run.userid() != context.broker().owner().0 && !run.settings().simulates_for_guests {
        return Err("guests may not use test exec implementation".to_owned());
    }
    match test.mocks("init") {
        true => Err("mock initialization exception generated".to_owned()),
        false => Ok(test),
    }
}

/// Without an end when it is nothing.
fn duration(run: &Run, context: &Context, test: &Test) -> Option<Duration> {
    let own = || run.jobspec().pointer("/attributes/system/duration").and_then(Value::as_f64);
    let seconds = match test.run_duration.as_deref().map(flux_protocol::fsd::parse) {
        Some(Ok(seconds)) => Some(seconds),
        Some(Err(error)) => {
            let id = run.id().f58();
            context.log(Severity::Err, format!("{id}: exec.test.run_duration: {error}"));
            own()
        }
        None => own(),
    };
    let duration = Duration::try_from_secs_f64(seconds?).ok()?;
    (!duration.is_zero()).then_some(duration)
}

async fn wait(duration: Option<Duration>) {
    match duration {
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
    if let Err(failure) = commit(context.handle(), kvs::PRIMARY, LAZY, vec![op]).await {
        context.log(Severity::Err, format!("{}: exec.eventlog: {failure}", run.id().f58()));
    }
}
