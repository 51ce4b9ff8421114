//! Write a plugin for a Flux instance in Rust.
//!
//! A plugin is a WebAssembly module that the broker calls when a job is submitted, changes its
//! state or wants resources. It runs in a sandbox: a bug in it costs one callback, never the
//! broker. There are four kinds, each a trait here: [`Jobtap`], [`Scheduler`], [`Validator`]
//! and [`Frobnicator`]. A plugin implements one of them on a type of its own, and names itself:
//!
//! ```
//! use flux_plugin::prelude::*;
//!
//! struct NoFoo;
//!
//! impl Plugin for NoFoo {
//!     fn init(_: &Context) -> Result<Self, String> {
//!         Ok(NoFoo)
//!     }
//! }
//!
//! impl Validator for NoFoo {
//!     fn validate(&mut self, submission: &Submission) -> Verdict {
//!         match &submission.job {
//!             Some(job) if job.name == "foo" => refuse(errno::EINVAL, "foo is not run here"),
//!             _ => Verdict::Accept,
//!         }
//!     }
//! }
//!
//! flux_plugin::validator! {
//!     NoFoo,
//!     name: "nofoo",
//!     description: "Refuse jobs named foo",
//! }
//! ```
//!
//! Built with `cargo build --release --target wasm32-wasip1`, `nofoo.wasm` is loaded as it is.
//! A callback never acts by itself: it returns what it wants done (see [`Effects`]), and the
//! broker applies that, in order, once the callback has returned.
//!
//! The types are generated from the frozen contract in `wit/`; this crate adds the traits, the
//! export macros and, off wasm, a stand-in for the broker ([`testing`]) for unit tests.

pub mod errno;
mod export;
pub mod host;
mod manifest;
mod plugin;
pub mod testing;

pub use plugin::{
    Effects, Frobnicator, Jobtap, Plugin, Scheduler, Validator, refuse, refuse_edit, refuse_with,
};

/// Implementation details of the export macros.
#[doc(hidden)]
pub mod macros {
    pub use crate::bindings::exports::flux::plugin as exports;
    pub use crate::export::Slot;
}

#[allow(
    unsafe_code,
    missing_debug_implementations,
    unreachable_pub,
    clippy::undocumented_unsafe_blocks,
    clippy::too_many_lines,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
mod bindings;

/// The contract's records and variants.
pub mod types {
    pub use crate::bindings::flux::plugin::changes::{
        Allocation, Annotation, Change, Decision, Denial, Depth, ExpirationRequest,
        FeasibilityRequest, Freed, Pass, RunningJob, TokenRefusal,
    };
    pub use crate::bindings::flux::plugin::effects::{
        DrainNodes, Effect, ExecSignal, ExecStart, JobEvent, JobException, JobJson, JobNote,
        JobPriority, KeyValue, KvsQuery, Measure, PerilogFinish, PerilogStart, PluginCall,
        Publication, RpcAnswer, RpcCall, Timer,
    };
    pub use crate::bindings::flux::plugin::host::Level;
    pub use crate::bindings::flux::plugin::ingest::{Edit, Submission, Verdict};
    pub use crate::bindings::flux::plugin::job_events::{
        Admission, Answer, CustomCall, DependencyRequest, Event, EventPosted, JobNew, JobUpdated,
        Origin, Reply, StateChange, UpdateAllowed, UpdateRequest,
    };
    pub use crate::bindings::flux::plugin::start::{Context, Instance, StartReason};
    pub use crate::bindings::flux::plugin::types::{
        Count, CountOperator, CountStep, Entry, ExecUpdate, Job, JobId, JobResult, JobState,
        Property, Published, Refusal, Request, ResourceSet, RpcRequest, RpcResponse, Targets,
    };
}

/// What nearly every plugin uses.
pub mod prelude {
    pub use crate::types::{
        Answer, Change, Context, Decision, Depth, Edit, Effect, Entry, Event, Job, JobId,
        JobResult, JobState, Pass, Refusal, Reply, Submission, Verdict,
    };
    pub use crate::{
        Effects, Frobnicator, Jobtap, Plugin, Scheduler, Validator, errno, host, refuse,
        refuse_edit, refuse_with,
    };
}
