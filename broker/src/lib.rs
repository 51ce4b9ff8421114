//! The Flux message broker and its services.
//!
//! One thread runs everything that holds instance state; see ARCHITECTURE.md for the map.

pub mod attrs;
pub mod broker;
pub mod call;
pub mod config;
pub mod connector;
pub mod context;
pub mod handle;
pub mod log;
pub mod mailbox;
pub mod methods;
pub mod router;
pub mod service;
pub mod services;
pub mod time;
