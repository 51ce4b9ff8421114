//! Plays captured conversations of a real Flux against a broker and compares the answers.
//!
//! A [`Vector`] is one file of `tests/vectors`: commands, and for each the messages that went
//! between its clients and the broker. [`Replay`] connects to a broker's socket, sends what the
//! clients sent, and compares what comes back with what the real broker sent. What differs from
//! run to run (times, process ids, uuids) is named in [`Rules`]; what is left must be equal.
//!
//! ```no_run
//! # async fn example(socket: &std::path::Path) -> Result<(), flux_replay::VectorError> {
//! use flux_replay::{Replay, Rules, Vector};
//! let vector = Vector::load("cron")?;
//! let rules = Rules::default().any("ctime").bind("pid");
//! let report = Replay::new(&vector, rules, socket).skip_run("flux cron at", "no message").play().await;
//! report.assert_equal();
//! # Ok(()) }
//! ```
//!
//! [`sweep`] does the same for the table of probes that every topic was sent.

mod compare;
mod connection;
mod play;
mod rules;
pub mod sweep;
mod vector;

pub use compare::Bindings;
pub use connection::Connection;
pub use play::{Replay, Report};
pub use rules::Rules;
pub use vector::{Direction, Row, Run, Vector, VectorError, What};
