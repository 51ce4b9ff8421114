//! The commands, one per file; `table.rs` lists them.

pub mod submit;
