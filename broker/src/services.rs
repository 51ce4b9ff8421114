//! The services of the broker, a file (and folder) each.

pub mod attr;
pub mod common;
pub mod shutdown;
pub mod state_machine;
pub mod event;
pub mod content;
pub mod content_sqlite;
pub mod kvs;
