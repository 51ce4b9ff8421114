//! What to say of a job in a few words: where it runs, what it waits for, how it ended.

use flux_protocol::fsd;

use super::info::JobInfo;
use super::state::{JobResult, State};
use crate::listing::local_time;
use crate::signal;

/// By state: dependencies, estimated start, hold, or the hosts.
pub(super) fn info(job: &JobInfo) -> String {
    match job.state() {
        Some(State::Priority) => "priority-wait".to_owned(),
        Some(State::Depend) => format!("depends:{}", job.dependencies().join(",")),
        Some(State::Sched) => match job.annotation("sched.t_estimate").and_then(|t| t.as_f64()) {
            Some(estimate) if estimate < job.now => "eta:now".to_owned(),
            Some(estimate) => format!("eta:{}", fsd::python_format(estimate - job.now)),
            None if job.int("urgency") == Some(0) => "held".to_owned(),
            None if job.int("priority") == Some(0) => "priority-hold".to_owned(),
            None => String::new(),
        },
        _ => job.str("nodelist").to_owned(),
    }
}

/// How an inactive job ended.
pub(super) fn inactive(job: &JobInfo) -> String {
    if job.state() != Some(State::Inactive) {
        return String::new();
    }
    let occurred = job.flag("exception_occurred");
    let (kind, note) = (job.str("exception_type"), job.str("exception_note"));
    match job.result() {
        Some(JobResult::Canceled) if occurred && kind == "cancel" && !note.is_empty() => {
            format!("Canceled: {note}")
        }
        Some(JobResult::Canceled) => "Canceled".to_owned(),
        Some(JobResult::Timeout) => "Timeout".to_owned(),
        Some(JobResult::Failed)
            if occurred && kind != "exec" && job.int("exception_severity") == Some(0) =>
        {
            let note = if note.is_empty() { String::new() } else { format!(" note={note}") };
            format!("Exception: type={kind}{note}")
        }
        Some(JobResult::Failed) => match job.returncode() {
            Some(126) => "Command invoked cannot execute".to_owned(),
            Some(127) => "command not found".to_owned(),
            Some(128) => "Invalid argument to exit".to_owned(),
            Some(code) if code > 128 => signal::describe(i32::try_from(code - 128).unwrap_or(0)),
            code => format!("Exit {}", code.unwrap_or_default()),
        },
        Some(JobResult::Completed) | None => {
            let code = job.returncode().map(|code| code.to_string());
            format!("Exit {}", code.unwrap_or_default())
        }
    }
}

/// `begin-time=1700000000` as `begin@Nov14-22:13`; others as they are.
pub(super) fn dependency(name: &str, now: f64) -> String {
    let Some(time) = name.strip_prefix("begin-time=").and_then(|time| time.parse::<f64>().ok())
    else {
        return name.to_owned();
    };
    let part = |format: &str| local_time(time, format).unwrap_or_default();
    let today = local_time(now, "%F").unwrap_or_default() == part("%F");
    let mut text = part(if today { "begin@%H:%M" } else { "begin@%b%d-%H:%M" });
    if part("%S") != "00" {
        text.push_str(&part(":%S"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(json: Value) -> JobInfo {
        let mut job = JobInfo::new(json).unwrap();
        job.now = 1000.0;
        job
    }

    #[test]
    fn waiting_jobs_tell_what_for() {
        let info = |json| info(&job(json));
        assert_eq!(info(json!({ "id": 1, "state": 4 })), "priority-wait");
        assert_eq!(
            info(json!({ "id": 1, "state": 2, "dependencies": ["after=1", "x"] })),
            "depends:after=1,x"
        );
        assert_eq!(info(json!({ "id": 1, "state": 8, "urgency": 0, "priority": 0 })), "held");
        assert_eq!(
            info(json!({ "id": 1, "state": 8, "urgency": 1, "priority": 0 })),
            "priority-hold"
        );
        assert_eq!(info(json!({ "id": 1, "state": 8, "urgency": 16, "priority": 16 })), "");
        let eta =
            |t: f64| json!({ "id": 1, "state": 8, "annotations": { "sched": { "t_estimate": t }}});
        assert_eq!(info(eta(1060.0)), "eta:1m");
        assert_eq!(info(eta(10.0)), "eta:now");
    }

    #[test]
    fn inactive_jobs_tell_how_they_ended() {
        let reason = |json| inactive(&job(json));
        let canceled = json!({
            "id": 1, "state": 64, "result": 4,
            "exception_occurred": true, "exception_type": "cancel", "exception_note": "why not",
        });
        assert_eq!(reason(canceled), "Canceled: why not");
        let exception = json!({
            "id": 1, "state": 64, "result": 2, "exception_severity": 0,
            "exception_occurred": true, "exception_type": "alloc", "exception_note": "no",
        });
        assert_eq!(reason(exception), "Exception: type=alloc note=no");
        let failed =
            |status: i64| json!({ "id": 1, "state": 64, "result": 2, "waitstatus": status });
        assert_eq!(reason(failed(0x100)), "Exit 1");
        assert_eq!(reason(failed(127 << 8)), "command not found");
        assert_eq!(reason(failed(143 << 8)), "Terminated");
        assert_eq!(reason(json!({ "id": 1, "state": 64, "result": 8 })), "Timeout");
        assert_eq!(reason(json!({ "id": 1, "state": 64, "result": 1, "waitstatus": 0 })), "Exit 0");
        assert_eq!(reason(json!({ "id": 1, "state": 16 })), "");
    }

    #[test]
    fn begin_times_are_readable() {
        let text = dependency("begin-time=1700000060.0", 1000.0);
        assert!(text.starts_with("begin@Nov1") && text.ends_with(":20"), "{text}");
        assert_eq!(dependency("after=7", 0.0), "after=7");
    }
}
