//! Trees of brokers within one process, each with its own router, linked by real sockets.

#![allow(clippy::unwrap_used, reason = "a test")]

mod tree;

mod groups;
mod joining;
mod losing;
mod replay;
mod routing;
mod waiting;
