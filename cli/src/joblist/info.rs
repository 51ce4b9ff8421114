//! One job: the fields of formats, and the members of JSON output.

use flux_protocol::fluid::JobId;
use flux_protocol::payload::Object;
use serde_json::{Value as Json, json};

use super::instance::Instance;
use super::reason;
use super::state::{JobResult, State};
use crate::cmd::uri::to_local;
use crate::jobid;
use crate::listing::{Row, Value};

/// A job with the attributes that were asked for.
#[derive(Debug, Clone)]
pub(crate) struct JobInfo {
    pub(crate) id: JobId,
    attrs: Object,
    /// Seconds since 1970.
    pub(super) now: f64,
    /// What is known of the instance that the job is.
    pub(super) instance: Option<Instance>,
}

/// Members of JSON output that are there where the job has them, with what they are otherwise.
const DEFAULTS: &[(&str, f64)] = &[
    ("t_depend", 0.0),
    ("t_priority", 0.0),
    ("t_sched", 0.0),
    ("t_run", 0.0),
    ("t_cleanup", 0.0),
    ("t_inactive", 0.0),
    ("duration", 0.0),
    ("expiration", 0.0),
];

impl JobInfo {
    /// Nothing where there is no id.
    pub(crate) fn new(job: Json) -> Option<JobInfo> {
        let Json::Object(attrs) = job else { return None };
        let id = JobId(attrs.get("id")?.as_u64()?);
        Some(JobInfo { id, attrs, now: crate::when::now(), instance: None })
    }

    pub(crate) fn str(&self, name: &str) -> &str {
        self.attrs.get(name).and_then(Json::as_str).unwrap_or_default()
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.attrs.get(name).and_then(Json::as_i64)
    }

    pub(crate) fn float(&self, name: &str) -> f64 {
        self.attrs.get(name).and_then(Json::as_f64).unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.attrs.get(name).and_then(Json::as_bool).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> Option<State> {
        State::from_bit(self.attrs.get("state")?.as_u64()?)
    }

    pub(crate) fn result(&self) -> Option<JobResult> {
        JobResult::from_bit(self.attrs.get("result")?.as_u64()?)
    }

    /// A member of the annotations by the names on the way to it.
    pub(crate) fn annotation(&self, path: &str) -> Option<&Json> {
        path.split('.').try_fold(self.attrs.get("annotations")?, |json, name| json.get(name))
    }

    /// Dependencies that are not settled yet.
    pub(crate) fn dependencies(&self) -> Vec<String> {
        let list = self.attrs.get("dependencies").and_then(Json::as_array);
        let names = list.into_iter().flatten().filter_map(Json::as_str);
        names.map(|name| reason::dependency(name, self.now)).collect()
    }

    /// The URI of the instance that the job is.
    pub(crate) fn uri(&self) -> Option<&str> {
        self.annotation("user.uri")?.as_str().filter(|uri| !uri.is_empty())
    }

    /// Whether it is an instance that runs.
    pub(crate) fn is_instance(&self) -> bool {
        self.uri().is_some() && self.state() == Some(State::Run)
    }

    pub(crate) fn username(&self) -> String {
        let Some(userid) = self.int("userid").and_then(|id| u32::try_from(id).ok()) else {
            return String::new();
        };
        match nix::unistd::User::from_uid(userid.into()) {
            Ok(Some(user)) => user.name,
            _ => userid.to_string(),
        }
    }

    /// The state, or of an inactive job the result.
    pub(crate) fn status(&self) -> &'static str {
        match (self.state(), self.result()) {
            (Some(State::Inactive), Some(result)) => result.name(),
            (Some(State::Inactive) | None, _) => "",
            (Some(state), _) => state.name(),
        }
    }

    pub(crate) fn status_abbreviation(&self) -> &'static str {
        match (self.state(), self.result()) {
            (Some(State::Inactive), Some(result)) => result.abbreviation(),
            (Some(State::Inactive) | None, _) => "",
            (Some(state), _) => state.letter(),
        }
    }

    /// Seconds.
    pub(crate) fn runtime(&self) -> f64 {
        match (self.float("t_run"), self.float("t_cleanup")) {
            (start, end) if start > 0.0 && end > 0.0 => end - start,
            (start, _) if start > 0.0 => self.now - start,
            _ => 0.0,
        }
    }

    fn remaining(&self) -> f64 {
        if self.state() != Some(State::Run) {
            return 0.0;
        }
        (self.float("expiration") - self.now).max(0.0)
    }

    /// The exit code, minus the signal's number, or -128 for a job that was canceled before it ran.
    pub(crate) fn returncode(&self) -> Option<i64> {
        match self.int("waitstatus") {
            Some(status) if status & 0x7f != 0 => Some(-(status & 0x7f)),
            Some(status) => Some((status >> 8) & 0xff),
            None => match self.result()? {
                JobResult::Canceled => Some(-128),
                JobResult::Failed => Some(1),
                JobResult::Completed | JobResult::Timeout => None,
            },
        }
    }

    fn plain(&self, name: &str) -> Value {
        self.attrs.get(name).map_or(Value::None, Value::from_json)
    }

    fn annotation_value(&self, path: &str) -> Value {
        self.annotation(path).map_or(Value::None, Value::from_json)
    }

    fn exception(&self, name: &str) -> Value {
        self.plain(&format!("exception_{name}"))
    }

    /// Fields with a dot in their name.
    fn nested(&self, group: &str, name: &str) -> Value {
        match group {
            "id" => jobid::field(self.id, name),
            "exception" => self.exception(name),
            "annotations" => self.annotation_value(name),
            "sched" | "user" => self.annotation_value(&format!("{group}.{name}")),
            "uri" if name == "local" => self.uri().and_then(|uri| to_local(uri).ok()).into(),
            "instance" => self.instance.as_ref().map_or(Value::None, |found| found.field(name)),
            _ => Value::None,
        }
    }

    fn emoji(&self, result: bool) -> &'static str {
        const NO_RESULT: &str = "\u{3000}";
        match (self.state(), self.result(), result) {
            (Some(State::Inactive), Some(result), _) | (_, Some(result), true) => result.emoji(),
            (Some(State::Inactive), None, _) | (_, None, true) => NO_RESULT,
            (Some(state), _, false) => state.emoji(),
            (None, _, _) => "",
        }
    }

    /// What JSON output has of the job: no members that say nothing.
    pub(crate) fn to_json(&self) -> Vec<(String, Json)> {
        let mut members = Vec::new();
        let mut add = |name: &str, value: Json| members.push((name.to_owned(), value));
        for (name, default) in DEFAULTS {
            let value = self.attrs.get(*name).and_then(Json::as_f64).unwrap_or(*default);
            if value != 0.0 || *name == "duration" {
                add(name, json!(value));
            }
        }
        let copied = [
            "name",
            "cwd",
            "queue",
            "project",
            "bank",
            "ntasks",
            "ncores",
            "nnodes",
            "priority",
            "ranks",
            "nodelist",
            "success",
            "waitstatus",
        ];
        for name in copied {
            if let Some(value) = self.attrs.get(name)
                && value.as_str() != Some("")
            {
                add(name, value.clone());
            }
        }
        if let Some(result) = self.result() {
            add("result", json!(result.name()));
        }
        add("id", json!(self.id.0));
        for (name, value) in
            [("t_submit", self.float("t_submit")), ("t_remaining", self.remaining())]
        {
            if value != 0.0 {
                add(name, json!(value));
            }
        }
        add("state", json!(self.state().map_or("", State::name)));
        add("username", json!(self.username()));
        for name in ["userid", "urgency"] {
            if let Some(value) = self.attrs.get(name) {
                add(name, value.clone());
            }
        }
        if self.runtime() != 0.0 {
            add("runtime", json!(self.runtime()));
        }
        add("status", json!(self.status()));
        if let Some(code) = self.returncode() {
            add("returncode", json!(code));
        }
        add("dependencies", json!(self.dependencies()));
        add("jobid", json!(jobid::f58(self.id)));
        add("annotations", self.annotations_without_uri());
        add("exception", self.exception_json());
        if let Some(uri) = self.uri() {
            add("uri", json!(uri));
        }
        members
    }

    /// The URI is a member of its own.
    fn annotations_without_uri(&self) -> Json {
        let mut annotations = self.attrs.get("annotations").cloned().unwrap_or_else(|| json!({}));
        if let Some(all) = annotations.as_object_mut()
            && let Some(user) = all.get_mut("user").and_then(Json::as_object_mut)
            && user.shift_remove("uri").is_some()
            && user.is_empty()
        {
            all.shift_remove("user");
        }
        annotations
    }

    fn exception_json(&self) -> Json {
        if !self.flag("exception_occurred") {
            return json!({ "occurred": false });
        }
        let member = |name: &str| self.attrs.get(name).cloned().unwrap_or_else(|| json!(""));
        json!({
            "occurred": true,
            "severity": member("exception_severity"),
            "type": member("exception_type"),
            "note": member("exception_note"),
        })
    }
}

impl Row for JobInfo {
    fn field(&self, name: &str) -> Value {
        if let Some((group, name)) = name.split_once('.') {
            return self.nested(group, name);
        }
        match name {
            "id" => Value::Id(self.id),
            "username" => self.username().into(),
            "state" => self.state().map_or("", State::name).into(),
            "state_single" => self.state().map_or("", State::letter).into(),
            "state_emoji" => self.state().map_or("", State::emoji).into(),
            "result" => self.result().map_or("", JobResult::name).into(),
            "result_abbrev" => self.result().map_or("", JobResult::abbreviation).into(),
            "result_emoji" => self.emoji(true).into(),
            "status" => self.status().into(),
            "status_abbrev" => self.status_abbreviation().into(),
            "status_emoji" => self.emoji(false).into(),
            "runtime" => self.runtime().into(),
            "t_remaining" => self.remaining().into(),
            "returncode" => self.returncode().into(),
            "dependencies" => self.dependencies().join(",").into(),
            // A word, so that scripts can tell: completions look for it.
            "uri" => self.uri().unwrap_or("None").into(),
            "contextual_info" => reason::info(self).into(),
            "contextual_time" => match self.state() {
                Some(State::Depend | State::Priority | State::Sched) => {
                    self.float("duration").into()
                }
                _ => self.runtime().into(),
            },
            "inactive_reason" => reason::inactive(self).into(),
            "sched" | "user" => self.annotation_value(name),
            "duration" | "expiration" => self.float(name).into(),
            name if name.starts_with("t_") => self.float(name).into(),
            "name" | "cwd" | "queue" | "project" | "bank" | "ranks" | "nodelist" => {
                self.str(name).into()
            }
            _ => self.plain(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(json: Json) -> JobInfo {
        JobInfo::new(json).unwrap()
    }

    fn text(job: &JobInfo, field: &str) -> String {
        job.field(field).text()
    }

    #[test]
    fn fields_of_a_running_job() {
        let job = job(json!({
            "id": 1_234_567_890, "state": 16, "userid": 0, "t_run": 10.5, "t_cleanup": 12.0,
            "ntasks": 4, "nodelist": "host[1-2]",
            "annotations": { "sched": { "resource_summary": "rank0/core0" }, "user": { "a": 1 } },
        }));
        assert_eq!(text(&job, "id"), crate::jobid::f58(JobId(1_234_567_890)));
        assert_eq!(text(&job, "id.dec"), "1234567890");
        assert_eq!(text(&job, "id.f58plain"), "f2t6V2H");
        assert_eq!((job.status(), job.status_abbreviation()), ("RUN", "R"));
        assert_eq!(text(&job, "username"), "root");
        assert_eq!(text(&job, "runtime"), "1.5");
        assert_eq!(text(&job, "contextual_info"), "host[1-2]");
        assert_eq!(text(&job, "annotations.user.a"), "1");
        assert_eq!(text(&job, "sched.resource_summary"), "rank0/core0");
        assert_eq!(text(&job, "sched.none.none"), "");
        assert_eq!((text(&job, "priority"), text(&job, "uri")), (String::new(), "None".into()));
    }

    #[test]
    fn return_codes_of_signals_are_negative() {
        let code = |json| job(json).returncode();
        assert_eq!(code(json!({ "id": 1, "state": 64, "waitstatus": 0x300 })), Some(3));
        assert_eq!(code(json!({ "id": 1, "state": 64, "waitstatus": 9 })), Some(-9));
        assert_eq!(code(json!({ "id": 1, "state": 64, "result": 4 })), Some(-128));
        assert_eq!(code(json!({ "id": 1, "state": 64, "result": 2 })), Some(1));
        assert_eq!(code(json!({ "id": 1, "state": 16 })), None);
    }

    #[test]
    fn json_has_what_says_something() {
        let members = job(json!({
            "id": 1, "state": 64, "result": 1, "name": "x", "queue": "", "t_run": 0.0,
            "annotations": { "user": { "uri": "ssh://h/x" } },
        }))
        .to_json();
        let find = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, v)| v);
        assert_eq!(find("name"), Some(&json!("x")));
        assert_eq!((find("queue"), find("t_run")), (None, None));
        assert_eq!(find("status"), Some(&json!("COMPLETED")));
        assert_eq!(find("annotations"), Some(&json!({})));
        assert_eq!(find("uri"), Some(&json!("ssh://h/x")));
        assert_eq!(find("exception"), Some(&json!({ "occurred": false })));
    }
}
