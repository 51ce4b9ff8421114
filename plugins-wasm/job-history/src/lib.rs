//! Each user's jobs, latest first: what `flux job last` and its job id slices look up.

use flux_plugin::prelude::*;
use flux_plugin::types::RpcRequest;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

#[derive(Default)]
struct History {
    /// Jobs by user, as (t_submit in order, id).
    users: HashMap<u32, BTreeSet<(u64, JobId)>>,
    known: HashMap<JobId, (u32, u64)>,
}

impl Plugin for History {
    fn init(_: &Context) -> Result<Self, String> {
        Ok(History::default())
    }
}

impl Jobtap for History {
    fn handle(&mut self, event: Event, _: &mut Effects) -> Reply {
        match event {
            Event::New(news) => self.add(&news.job),
            Event::InactiveAdd(job) => self.add(&job),
            Event::InactiveRemove(id) => self.remove(id),
            Event::Rpc(request) => return self.get(&request),
            _ => {}
        }
        Reply::Pass
    }
}

impl History {
    fn add(&mut self, job: &Job) {
        let key = order(job.t_submit);
        self.known.insert(job.id, (job.userid, key));
        self.users.entry(job.userid).or_default().insert((key, job.id));
    }

    fn remove(&mut self, id: JobId) {
        if let Some((user, key)) = self.known.remove(&id)
            && let Some(jobs) = self.users.get_mut(&user)
        {
            jobs.remove(&(key, id));
        }
    }

    fn get(&self, request: &RpcRequest) -> Reply {
        let payload: Value = serde_json::from_str(&request.payload).unwrap_or_default();
        let Some(slice) = payload.get("slice").and_then(Value::as_str) else {
            return Reply::Refuse(refuse_with(errno::EPROTO, "Protocol error"));
        };
        let jobs: Vec<JobId> = match self.users.get(&request.userid) {
            Some(jobs) => jobs.iter().rev().map(|(_, id)| *id).collect(),
            None => Vec::new(),
        };
        match Slice::parse(slice) {
            Some(slice) => Reply::Respond(json!({ "jobs": slice.of(&jobs) }).to_string()),
            None => {
                let text = "could not parse python-style slice expression";
                Reply::Refuse(refuse_with(errno::EINVAL, text))
            }
        }
    }
}

/// A time that compares as an integer.
fn order(time: f64) -> u64 {
    time.max(0.0).to_bits()
}

/// `[start:stop:step]` of Python; or `[index]`.
struct Slice {
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
}

impl Slice {
    fn parse(text: &str) -> Option<Self> {
        let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
        let number = |text: &str| -> Option<Option<i64>> {
            let text = text.trim();
            if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
        };
        let parts: Vec<&str> = inner.split(':').collect();
        match parts.as_slice() {
            [index] => {
                let start = number(index)??;
                // -1 is the last one: nothing stops after it.
                let stop = start.checked_add(1).filter(|&stop| stop != 0);
                Some(Slice { start: Some(start), stop, step: 1 })
            }
            [start, stop] => Some(Slice { start: number(start)?, stop: number(stop)?, step: 1 }),
            [start, stop, step] => {
                let step = number(step)?.unwrap_or(1);
                (step != 0).then_some(())?;
                Some(Slice { start: number(start)?, stop: number(stop)?, step })
            }
            _ => None,
        }
    }

    fn of(&self, list: &[JobId]) -> Vec<JobId> {
        let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
        let (low, high) = if self.step > 0 { (0, length) } else { (-1, length - 1) };
        let clip = |index: i64| {
            let index = if index < 0 { index.saturating_add(length) } else { index };
            index.clamp(low, high)
        };
        let first = self.start.map_or(if self.step > 0 { 0 } else { length - 1 }, clip);
        let end = self.stop.map_or(if self.step > 0 { length } else { -1 }, clip);
        let mut picked = Vec::new();
        let mut index = first;
        while if self.step > 0 { index < end } else { index > end } {
            let id = usize::try_from(index).ok().and_then(|index| list.get(index));
            picked.extend(id.copied());
            index = index.saturating_add(self.step);
        }
        picked
    }
}

flux_plugin::jobtap! {
    History,
    name: "history",
    description: "Recent jobs by user",
    topics: ["job.new", "job.inactive-add", "job.inactive-remove"],
    services: ["get": "user"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    fn get(history: &History, userid: u32, slice: &str) -> String {
        let payload = json!({ "slice": slice }).to_string();
        let method = "get".to_owned();
        let request = RpcRequest { token: 1, method, userid, rolemask: 2, payload };
        match history.get(&request) {
            Reply::Respond(text) => text,
            Reply::Refuse(refusal) => refusal.text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn each_user_sees_their_own_jobs_latest_first() {
        let mut history = History::default();
        for id in 1..=5_u32 {
            let t_submit = f64::from(100 + id);
            let job = Job { t_submit, userid: id % 2, ..testing::job(u64::from(id)) };
            history.add(&job);
            history.add(&job);
        }
        assert_eq!(get(&history, 1, "[:]"), r#"{"jobs":[5,3,1]}"#);
        assert_eq!(get(&history, 1, "[:1]"), r#"{"jobs":[5]}"#);
        assert_eq!(get(&history, 1, "[-1]"), r#"{"jobs":[1]}"#);
        assert_eq!(get(&history, 1, "[::-1]"), r#"{"jobs":[1,3,5]}"#);
        assert_eq!(get(&history, 1, "[1:9]"), r#"{"jobs":[3,1]}"#);
        assert_eq!(get(&history, 0, "[0]"), r#"{"jobs":[4]}"#);
        assert_eq!(get(&history, 7, "[:1]"), r#"{"jobs":[]}"#);
        history.remove(3);
        assert_eq!(get(&history, 1, "[:]"), r#"{"jobs":[5,1]}"#);
        assert!(get(&history, 1, "last").contains("could not parse"));
        assert!(get(&history, 1, "[::0]").contains("could not parse"));
    }
}
