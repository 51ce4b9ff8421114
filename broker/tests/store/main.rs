//! The content store and the key value store, as services of brokers in this process.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod crash;
mod database;
mod gc;
mod instance;
mod merging;
mod pair;
mod restart;
mod watching;
