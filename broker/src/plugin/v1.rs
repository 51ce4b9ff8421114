//! Contract 1.x: generated types, host functions and the functions a plugin exports.
//!
//! A later major version gets a file of its own beside this one; which of them serves a plugin is
//! decided once, when it is loaded.

use super::instance::State;
use super::manifest::Kind;
use wasmtime::component::{Component, ComponentExportIndex, HasSelf, Instance, Linker};

pub(super) use wasmtime::component::{ComponentNamedList, Lift, Lower, TypedFunc};
use wasmtime::{Engine, Store};

#[allow(missing_debug_implementations, unreachable_pub, clippy::too_many_lines)]
mod generated {
    wasmtime::component::bindgen!({
        inline: "
            package flux:embedder;
            world everything {
                import flux:plugin/types@1.0.0;
                import flux:plugin/effects@1.0.0;
                import flux:plugin/start@1.0.0;
                import flux:plugin/job-events@1.0.0;
                import flux:plugin/changes@1.0.0;
                import flux:plugin/ingest@1.0.0;
                import flux:plugin/host@1.0.0;
                import flux:plugin/jobs@1.0.0;
            }
        ",
        path: "../abi/wit/since_v1.0.0",
        world: "flux:embedder/everything",
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// The records and variants of the contract, as the services use them.
pub mod types {
    use super::generated::flux::plugin;

    pub use plugin::changes::{
        Allocation, Annotation, Change, Decision, Denial, Depth, ExpirationRequest,
        FeasibilityRequest, Freed, Pass, RunningJob, TokenRefusal,
    };
    pub use plugin::effects::{
        DrainNodes, Effect, ExecSignal, ExecStart, JobEvent, JobException, JobJson, JobNote,
        JobPriority, KeyValue, KvsQuery, Measure, PerilogFinish, PerilogStart, PluginCall,
        Publication, RpcAnswer, RpcCall, Timer,
    };
    pub use plugin::host::Level;
    pub use plugin::ingest::{Edit, Submission, Verdict};
    pub use plugin::job_events::{
        Admission, Answer, CustomCall, DependencyRequest, Event, EventPosted, JobNew, JobUpdated,
        Origin, Reply, StateChange, UpdateAllowed, UpdateRequest,
    };
    pub use plugin::start::{Context, Instance, StartReason};
    pub use plugin::types::{
        Count, CountOperator, CountStep, Entry, ExecUpdate, Job, JobId, JobResult, JobState,
        Property, Published, Refusal, Request, ResourceSet, RpcRequest, RpcResponse, Targets,
    };
}

pub(super) use generated::flux::plugin::{host, jobs};

use types::{Answer, Change, Context, Decision, Depth, Edit, Event, Pass, Submission, Verdict};

/// Host functions, and traps for what a component may import of WASI.
///
/// # Errors
///
/// The engine's text.
pub(super) fn linker(engine: &Engine, component: &Component) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    host::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    jobs::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    linker.define_unknown_imports_as_traps(component)?;
    Ok(linker)
}

/// A function from a list to a list.
pub(super) type Batch<I, O> = TypedFunc<(Vec<I>,), (Vec<O>,)>;

/// The exported functions of one instance.
pub(super) struct Exports {
    pub(super) init: TypedFunc<(Context,), (Result<(), String>,)>,
    pub(super) configure: TypedFunc<(String, String), (Result<(), String>,)>,
    pub(super) query: TypedFunc<(), (String,)>,
    pub(super) save: TypedFunc<(), (Vec<u8>,)>,
    pub(super) of_kind: OfKind,
}

/// The exported functions that a kind adds.
pub(super) enum OfKind {
    Jobtap {
        handle: TypedFunc<(Vec<Event>,), (Vec<Answer>,)>,
    },
    Scheduler {
        ready: TypedFunc<(), (Depth,)>,
        update: TypedFunc<(Vec<Change>,), (Vec<Decision>,)>,
        schedule: TypedFunc<(f64,), (Pass,)>,
    },
    Validator {
        validate: TypedFunc<(Vec<Submission>,), (Vec<Verdict>,)>,
    },
    Frobnicator {
        frobnicate: TypedFunc<(Vec<Submission>,), (Vec<Edit>,)>,
    },
}

struct Lookup<'a> {
    instance: &'a Instance,
    store: &'a mut Store<State>,
}

impl Lookup<'_> {
    fn interface(&mut self, name: &str) -> Result<(ComponentExportIndex, String), String> {
        let full = format!("flux:plugin/{name}@1.0.0");
        let index = self.instance.get_export_index(&mut *self.store, None, &full);
        index.map(|index| (index, full.clone())).ok_or_else(|| format!("does not export {full}"))
    }

    fn func<P, R>(
        &mut self,
        interface: &(ComponentExportIndex, String),
        name: &str,
    ) -> Result<TypedFunc<P, R>, String>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let full = &interface.1;
        let index = self
            .instance
            .get_export_index(&mut *self.store, Some(&interface.0), name)
            .ok_or_else(|| format!("does not export {name} of {full}"))?;
        self.instance
            .get_typed_func(&mut *self.store, index)
            .map_err(|error| format!("exports {name} of {full} with another type: {error:#}"))
    }
}

impl Exports {
    /// Finds and checks them.
    ///
    /// # Errors
    ///
    /// What is missing or has another type.
    pub(super) fn find(
        instance: &Instance,
        store: &mut Store<State>,
        kind: Kind,
    ) -> Result<Self, String> {
        let mut lookup = Lookup { instance, store };
        let lifecycle = lookup.interface("lifecycle")?;
        let of_kind = match kind {
            Kind::Jobtap => {
                let interface = lookup.interface("callbacks")?;
                OfKind::Jobtap { handle: lookup.func(&interface, "handle")? }
            }
            Kind::Scheduler => {
                let interface = lookup.interface("scheduling")?;
                OfKind::Scheduler {
                    ready: lookup.func(&interface, "ready")?,
                    update: lookup.func(&interface, "update")?,
                    schedule: lookup.func(&interface, "schedule")?,
                }
            }
            Kind::Validator => {
                let interface = lookup.interface("validation")?;
                OfKind::Validator { validate: lookup.func(&interface, "validate")? }
            }
            Kind::Frobnicator => {
                let interface = lookup.interface("frobnication")?;
                OfKind::Frobnicator { frobnicate: lookup.func(&interface, "frobnicate")? }
            }
        };
        Ok(Exports {
            init: lookup.func(&lifecycle, "init")?,
            configure: lookup.func(&lifecycle, "configure")?,
            query: lookup.func(&lifecycle, "query")?,
            save: lookup.func(&lifecycle, "save")?,
            of_kind,
        })
    }
}
