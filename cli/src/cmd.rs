//! The commands, one per file; `table.rs` lists them.

pub mod attr;
pub mod broker;
pub mod config;
pub mod content;
pub mod dmesg;
pub mod event;
pub mod help;
pub mod kvs;
pub mod logger;
pub mod module;
pub mod overlay;
pub mod ping;
pub mod start;
pub mod version;
