//! The services of the broker, a file (and folder) each.

pub mod attr;
pub mod broker;
pub mod common;
pub mod config;
pub mod connector_local;
pub mod content;
pub mod content_sqlite;
pub mod event;
pub mod heaptrace;
pub mod heartbeat;
pub mod job_exec;
pub mod job_info;
pub mod job_ingest;
pub mod job_list;
pub mod job_manager;
pub mod kvs;
pub mod kvs_watch;
pub mod log;
pub mod module;
pub mod resource;
pub mod rexec;
pub mod runat;
pub mod sched;
pub mod shutdown;
pub mod state_machine;
