//! The commands, one per file; `table.rs` lists them.

pub mod attr;
pub mod broker;
pub mod help;
pub mod kvs;
pub mod start;
pub mod version;
