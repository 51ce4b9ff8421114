//! Conversations captured from a real Flux, played against a broker in this process.
//!
//! One file per area. Each says which commands it leaves out, and why.

#![allow(clippy::unwrap_used, reason = "a test")]

mod instance;

mod attr;
mod config;
mod core_services;
mod cron;
mod event;
mod log;
mod module;
mod resource;
mod rexec;
mod store;
