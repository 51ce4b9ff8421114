//! What the bundled schedulers have in common: a pool of nodes with their free cores and GPUs, a
//! queue in priority order, and an estimate of when a job could start.
//!
//! Pure: no clock, no host. Nodes are taken worst fit first (most free cores, then most free
//! GPUs, then lowest rank), as Flux's own simple scheduler does.

mod forecast;
mod pool;
mod queue;
mod request;
mod text;

pub use forecast::Forecast;
pub use pool::{Grant, NoGrant, Pool, PoolError, Share};
pub use queue::{Pending, Queue};
pub use request::Want;
pub use text::{summary, targets};
