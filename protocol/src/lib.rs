//! Flux wire messages, RFC data types, and one table of RPC topics per service.
//!
//! Everything here is pure: no I/O, no clock, no async runtime, no unsafe.
//! Each module names the RFC (or the file format) that defines it.
#![forbid(unsafe_code)]

pub mod credential;
pub mod errno;
pub mod failure;
pub mod frame;
pub mod message;
pub mod payload;
pub mod rpc;
