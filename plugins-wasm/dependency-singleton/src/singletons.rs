//! Of the jobs of one user that share a name, only one with this dependency runs at a time, and
//! only while no other job of that name is active.

use flux_plugin::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const TEXT: &str = "singleton";

type Key = (u32, String);

/// Active jobs of one user and name.
#[derive(Debug, Default)]
struct Group {
    active: BTreeSet<JobId>,
    /// Those that wait, in order.
    waiting: VecDeque<JobId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Singletons {
    groups: BTreeMap<Key, Group>,
    /// Where each job is.
    keys: BTreeMap<JobId, Key>,
}

fn key(job: &Job) -> Key {
    (job.userid, job.name.clone())
}

impl Singletons {
    pub(crate) fn report(&self) -> Value {
        let entry = |((user, name), group): (&Key, &Group)| {
            let report = json!({ "count": group.active.len(), "singletons": group.waiting });
            (format!("{user}:{name}"), report)
        };
        Value::Object(self.groups.iter().map(entry).collect::<Map<_, _>>())
    }

    /// A job wants to be the only one. It is not counted yet: it may still be refused.
    pub(crate) fn depend(&mut self, job: &Job, effects: &mut Effects) -> Reply {
        if !job.named {
            let text = "singleton jobs require a job name";
            return Reply::Refuse(refuse_with(errno::EINVAL, text));
        }
        let Some(group) = self.groups.get_mut(&key(job)) else { return Reply::Accept };
        let others = group.active.iter().any(|&other| other != job.id);
        if others && !group.waiting.contains(&job.id) {
            effects.add_dependency(job.id, TEXT);
            effects.explain(job.id, format!("waits for other jobs named {} to end", job.name));
            group.waiting.push_back(job.id);
            self.keys.insert(job.id, key(job));
        }
        Reply::Accept
    }

    /// A job is valid and active.
    pub(crate) fn arrived(&mut self, job: &Job) {
        if job.named && job.state != JobState::Inactive {
            self.groups.entry(key(job)).or_default().active.insert(job.id);
            self.keys.insert(job.id, key(job));
        }
    }

    /// A job is over. When only waiting jobs are left, the first of them goes on.
    pub(crate) fn ended(&mut self, id: JobId, effects: &mut Effects) {
        let Some(key) = self.keys.remove(&id) else { return };
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.active.remove(&id);
        group.waiting.retain(|&waiting| waiting != id);
        if group.active.len() == group.waiting.len()
            && let Some(next) = group.waiting.pop_front()
        {
            effects.remove_dependency(next, TEXT);
        }
        if group.active.is_empty() {
            self.groups.remove(&key);
        }
    }
}
