//! Flux wire messages, RFC data types, and one table of RPC topics per service.
//!
//! Everything here is pure: no I/O, no clock, no async runtime, no unsafe.
//! Each module names the RFC (or the file format) that defines it.
#![forbid(unsafe_code)]

pub mod blobref;
pub mod constraint;
pub mod credential;
pub mod errno;
pub mod eventlog;
pub mod failure;
pub mod fluid;
pub mod frame;
pub mod fsd;
pub mod hostlist;
pub mod idset;
pub mod jobspec;
pub mod json;
pub mod kvs_key;
pub mod laggards;
pub mod layout;
pub mod message;
pub mod payload;
pub mod proctable;
pub mod r;
pub mod real;
pub mod rpc;
pub mod signal;
pub mod stdlog;
pub mod taskmap;
pub mod treeobj;
