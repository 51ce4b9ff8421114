//! What the bundled schedulers have in common: an engine on a pool of nodes with their free cores and GPUs, a
//! queue in priority order, and an estimate of when a job could start.
//!
//! All but the engine is pure: no clock, no host. Nodes are taken worst fit first (most free cores, then most free
//! GPUs, then lowest rank), as Flux's own simple scheduler does.

mod engine;
mod forecast;
mod pool;
mod queue;
mod request;
mod text;

pub use engine::{Engine, Policy, parse_depth};
pub use forecast::{Forecast, Reservation};
pub use pool::{Grant, NoGrant, Pool, PoolError, Share};
pub use queue::{Pending, Queue};
pub use request::Want;
pub use text::{summary, targets};
