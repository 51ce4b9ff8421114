//! A stand-in for the broker, for unit tests of a plugin on the machine it is written on.
//!
//! ```
//! use flux_plugin::{host, testing};
//!
//! testing::reset();
//! testing::set_now(1000.0);
//! assert_eq!(host::now(), 1000.0);
//! host::info("hello");
//! assert_eq!(testing::take_log(), ["info: hello"]);
//! ```
//!
//! Each test thread has one of its own.

use crate::types::{Context, Effect, Instance, Job, JobId, JobState, KeyValue, StartReason};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct Broker {
    now: f64,
    #[cfg(not(target_arch = "wasm32"))]
    random: u64,
    granted: BTreeSet<String>,
    state: BTreeMap<String, Vec<u8>>,
    jobs: BTreeMap<JobId, Job>,
    jobspecs: BTreeMap<JobId, String>,
    resources: BTreeMap<JobId, String>,
    events: BTreeSet<(JobId, String)>,
    log: Vec<String>,
}

thread_local! {
    static BROKER: RefCell<Broker> = RefCell::default();
}

fn with<T>(f: impl FnOnce(&mut Broker) -> T) -> T {
    BROKER.with(|broker| f(&mut broker.borrow_mut()))
}

/// Forgets everything.
pub fn reset() {
    with(|broker| *broker = Broker::default());
}

/// Sets the clock.
pub fn set_now(now: f64) {
    with(|broker| broker.now = now);
}

/// Grants a capability.
pub fn grant(capability: &str) {
    with(|broker| broker.granted.insert(capability.to_owned()));
}

/// Makes a job known to lookups.
pub fn put_job(job: Job) {
    with(|broker| broker.jobs.insert(job.id, job));
}

/// Sets what [`crate::host::jobspec`] answers.
pub fn put_jobspec(id: JobId, jobspec: &str) {
    with(|broker| broker.jobspecs.insert(id, jobspec.to_owned()));
}

/// Sets what [`crate::host::resources`] answers.
pub fn put_resources(id: JobId, resources: &str) {
    with(|broker| broker.resources.insert(id, resources.to_owned()));
}

/// Notes that an event was posted to a job.
pub fn put_event(id: JobId, name: &str) {
    with(|broker| broker.events.insert((id, name.to_owned())));
}

/// Carries out the effects that concern the plugin's own state.
pub fn apply_state(effects: &[Effect]) {
    with(|broker| {
        for effect in effects {
            if let Effect::Put(KeyValue { key, value }) = effect {
                match value {
                    Some(value) => broker.state.insert(key.clone(), value.clone()),
                    None => broker.state.remove(key),
                };
            }
        }
    });
}

/// The log lines so far, as "level: text".
pub fn take_log() -> Vec<String> {
    with(|broker| std::mem::take(&mut broker.log))
}

/// A context as at the broker's start, with a configuration (JSON objects).
pub fn context(config: &str, broker_config: &str) -> Context {
    Context {
        reason: StartReason::Start,
        config: config.to_owned(),
        broker_config: broker_config.to_owned(),
        granted: with(|broker| broker.granted.iter().cloned().collect()),
        instance: Instance { owner: 0, size: 1, level: 0, attributes: "{}".to_owned() },
        saved: None,
    }
}

/// A job in state NEW with nothing special about it.
pub fn job(id: JobId) -> Job {
    Job {
        id,
        userid: 1000,
        urgency: 16,
        priority: None,
        state: JobState::New,
        flags: 0,
        t_submit: 0.0,
        duration: 0.0,
        request: None,
        name: "true".to_owned(),
        named: false,
        queue: None,
        bank: None,
        project: None,
        constraints: None,
        job_result: None,
        end_event: None,
    }
}

/// Same names as the host functions.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod answers {
    use super::{Job, JobId, with};
    use crate::types::Level;

    pub(crate) fn log(level: Level, text: &str) {
        let level = format!("{level:?}").to_lowercase();
        let level = level.strip_prefix("level::").unwrap_or(&level).to_owned();
        with(|broker| broker.log.push(format!("{level}: {text}")));
    }

    pub(crate) fn now() -> f64 {
        with(|broker| broker.now)
    }

    /// SplitMix64.
    pub(crate) fn random() -> u64 {
        with(|broker| {
            broker.random = broker.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = broker.random;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    }

    pub(crate) fn remaining() -> f64 {
        1.0
    }

    pub(crate) fn granted(capability: &str) -> bool {
        with(|broker| broker.granted.contains(capability))
    }

    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        with(|broker| broker.state.get(key).cloned())
    }

    pub(crate) fn keys(prefix: &str) -> Vec<String> {
        with(|broker| broker.state.keys().filter(|key| key.starts_with(prefix)).cloned().collect())
    }

    pub(crate) fn lookup(id: JobId) -> Option<Job> {
        with(|broker| broker.jobs.get(&id).cloned())
    }

    pub(crate) fn jobspec(id: JobId) -> Option<String> {
        with(|broker| broker.jobspecs.get(&id).cloned())
    }

    pub(crate) fn resources(id: JobId) -> Option<String> {
        with(|broker| broker.resources.get(&id).cloned())
    }

    pub(crate) fn event_posted(id: JobId, name: &str) -> Option<bool> {
        with(|broker| {
            broker.jobs.contains_key(&id).then(|| broker.events.contains(&(id, name.to_owned())))
        })
    }
}
