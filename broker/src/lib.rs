//! The Flux message broker and its services.
//!
//! One thread runs everything that holds instance state; see ARCHITECTURE.md for the map.

pub mod attrs;
pub mod boot;
pub mod broker;
pub mod call;
pub mod config;
pub mod connector;
pub mod context;
pub mod dump;
pub mod environment;
pub mod fault_signals;
pub mod handle;
pub mod instance;
pub mod inventory;
pub mod job_record;
mod jpath;
pub mod life;
pub mod loaded;
pub mod log;
pub mod mailbox;
pub mod methods;
pub mod metrics;
pub mod modules;
pub mod overlay;
pub mod parent;
pub mod paths;
pub mod peers;
pub mod plugin;
pub mod plugin_host;
pub mod plugin_tool;
pub mod rc;
pub mod router;
pub mod rundir;
pub mod service;
pub mod services;
pub mod spans;
pub mod startlog;
pub mod state;
pub mod subprocess;
mod systemd;
pub mod tap;
pub mod time;
pub mod trace;

/// Version of this software, as brokers compare it when they join.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub mod tstat;
mod users;
