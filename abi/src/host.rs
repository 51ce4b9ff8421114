//! What the broker answers during a call. In unit tests these talk to [`crate::testing`].

use crate::types::{Job, JobId, Level};

/// Writes to the broker's log under the plugin's name.
pub fn log(level: Level, text: &str) {
    sys::log(level, text);
}

/// Logs at level info.
pub fn info(text: impl AsRef<str>) {
    log(Level::Info, text.as_ref());
}

/// Logs at level err.
pub fn error(text: impl AsRef<str>) {
    log(Level::Err, text.as_ref());
}

/// The broker's clock, seconds since the epoch; the same for the whole of one call.
pub fn now() -> f64 {
    sys::now()
}

/// A number from the broker's generator; not for secrets.
pub fn random() -> u64 {
    sys::random()
}

/// Seconds that this call may still take.
pub fn remaining() -> f64 {
    sys::remaining()
}

/// Whether a capability was granted.
pub fn granted(capability: &str) -> bool {
    sys::granted(capability)
}

/// A value of the plugin's own state.
pub fn get(key: &str) -> Option<Vec<u8>> {
    sys::get(key)
}

/// The keys of the plugin's own state that start with `prefix`.
pub fn keys(prefix: &str) -> Vec<String> {
    sys::keys(prefix)
}

/// A job by id.
pub fn job(id: JobId) -> Option<Job> {
    sys::lookup(id)
}

/// A jobspec (JSON), without its environment.
pub fn jobspec(id: JobId) -> Option<String> {
    sys::jobspec(id)
}

/// R of a job (JSON).
pub fn resources(id: JobId) -> Option<String> {
    sys::resources(id)
}

/// Whether a job's eventlog has an event of this name; none for an unknown job.
pub fn event_posted(id: JobId, name: &str) -> Option<bool> {
    sys::event_posted(id, name)
}

#[cfg(target_arch = "wasm32")]
use wasm as sys;

#[cfg(target_arch = "wasm32")]
mod wasm {
    pub(super) use crate::bindings::flux::plugin::host::{
        get, granted, keys, log, now, random, remaining,
    };
    pub(super) use crate::bindings::flux::plugin::jobs::{
        event_posted, jobspec, lookup, resources,
    };
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::answers as sys;
