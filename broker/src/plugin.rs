//! Policies as sandboxed WebAssembly: loading, running and surviving plugins.
//!
//! # For the services that call plugins
//!
//! [`PluginHost::load`] finds, checks, compiles and starts a plugin and gives a [`Plugin`]: a
//! cheap handle to a thread of its own. Its calls are `async` and never block the caller; many
//! may be under way at once, each plugin answers in order. Pass what you have at once: a batch
//! costs one hand-over between threads (about 10 µs), an item in it about 1 µs.
//!
//! ```ignore
//! let host = PluginHost::new(HostConfig { path: default_path(), .. }, notices);
//! let spec = PluginSpec::from_value(&toml_entry)?;
//! let plugin = host.load(&spec, Kind::Validator, stored_values).await?;     // LoadError: text
//!
//! for verdict in plugin.validate(submissions).await {                       // one per job
//!     match verdict {
//!         Ok(Verdict::Accept) => ..,
//!         Ok(Verdict::Refuse(refusal)) => ..,                               // errnum and text
//!         Ok(Verdict::AskFeasibility) => scheduler.feasibility(job, jobspec).await,
//!         Err(error) => match plugin.on_fault() { Reject | Hold | Skip => .. },
//!     }
//! }
//!
//! let answers = jobtap.handle(events).await;                                // one per event
//!
//! let scheduler = host.load_scheduler(&spec, events, stored_values).await?;
//! scheduler.tell(vec![Resources(..), Up(..), Hello(running)]).await?;
//! let depth = scheduler.ready().await?;
//! scheduler.tell(vec![Alloc(jobs)]).await?;           // answered on `events`: SchedulerEvent
//!
//! let plugin = host.replace(&plugin, &spec).await?;   // the old one stays if the new one fails
//! ```
//!
//! - The job manager keeps [`SharedJobs`] up to date: plugins look jobs up in it during a call,
//!   and the host announces its active jobs to a plugin that is loaded, replaced or restarted.
//! - The scheduler has a handle of its own, [`Scheduler`], with a channel of [`SchedulerEvent`]s.
//! - Effects come back in the order in which they are to be applied. Those that concern the
//!   plugin's own state were applied already; `Put` is passed on to be made durable. Timers,
//!   dependencies, perilog actions and commands are the job manager's.
//! - [`Notice`]s tell of what happens outside of a call: a fault, a restart, effects of a restart.
//! - A fault costs the call, never the broker: see [`worker`] for restart, breaker and batches.
//!   [`CallError`] says what happened, [`Plugin::on_fault`] what the administrator wants done.
//!
//! Nothing outside of this module names the engine.

mod breaker;
mod cache;
mod capability;
mod componentize;
mod conf_files;
mod desk;
mod engine;
mod fault;
mod grants;
mod handle;
mod host;
mod instance;
mod jobs;
mod known;
mod ledger;
mod load_error;
mod log_gate;
mod manifest;
mod pinned;
mod recorder;
mod replay;
mod request;
mod scheduler;
mod source;
mod spec;
mod stats;
#[cfg(test)]
mod testing;
mod topic;
mod v1;
mod worker;

pub use breaker::Patience;
pub(crate) use capability::REFUSED;
pub use desk::{ResourceStatus, SchedulerEvent};
pub use fault::{CallError, Fault, FaultKind, OnFault};
pub use handle::{Plugin, PluginFacts};
pub use host::{HostConfig, PluginHost, default_path};
pub use instance::Limits;
pub use jobs::{JobFacts, SharedJobs};
pub use known::as_known;
pub use ledger::{LedgerError, record};
pub use load_error::{LoadError, Mistake};
pub use log_gate::LogSink;
pub use manifest::{
    Abi, Caller, HOST_ABI, InspectError, Inspection, Kind, LoadOrder, Manifest, Service, inspect,
};
pub use pinned::check_pinned;
pub use recorder::{RecordedStep, Step};
pub use replay::{Replay, ReplayClock};
pub use request::{Notice, NoticeKind};
pub use scheduler::Scheduler;
pub(crate) use source::hex;
pub use source::{MODULE_MAX, SourceError};
pub use spec::{PluginSpec, SpecError};
pub use stats::{CallbackReport, Report};
pub use topic::{label, state_name, topic};
pub use v1::types;
pub use worker::dependencies;

pub use ledger::record as resource_record;
