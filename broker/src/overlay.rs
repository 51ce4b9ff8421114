//! The tree-based overlay network between the brokers of an instance.

pub mod topology;
pub mod transport;
