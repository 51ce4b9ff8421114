//! Jobs, from submission to the end, in a broker in this process.
//!
//! Shells are not run here: execution is either that which `job-exec` simulates, or a double that
//! knows `true`, `false` and `sleep`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod abilities;
mod archive;
mod by_hand;
mod conversations;
mod crash;
mod execution;
mod harm;
mod housekeeping;
mod instance;
mod lifecycle;
mod listing;
mod perilog;
mod plugin_config;
#[path = "../plugin_support/mod.rs"]
mod plugin_support;
mod policy;
mod queues;
mod recording;
mod reload;
mod replacement;
mod restart;
