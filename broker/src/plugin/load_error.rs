//! Why a plugin was not loaded.

use super::fault::CallError;
use super::manifest::{InspectError, Kind};
use super::source::SourceError;

/// Why a plugin was not loaded. The text names the plugin as the configuration does.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file.
    #[error("{name}: {error}")]
    Source {
        /// As configured.
        name: String,
        /// Of the file.
        error: SourceError,
    },
    /// The module.
    #[error("{name}: {error}")]
    Inspect {
        /// As configured.
        name: String,
        /// Of the module.
        error: InspectError,
    },
    /// It is a plugin, but another kind was wanted.
    #[error("{name}: a {found} plugin, but a {wanted} plugin is wanted here: {}", place(*found))]
    Kind {
        /// As configured.
        name: String,
        /// What it is.
        found: Kind,
        /// What is wanted.
        wanted: Kind,
    },
    /// It wants what it was not granted.
    #[error("{name}: asks for capability '{capability}', which is not granted (caps = [...])")]
    Capability {
        /// As configured.
        name: String,
        /// The first one that is missing.
        capability: String,
    },
    /// It has not even what it begins with.
    #[error(
        "{name}: memory: {limit} bytes are too little, the module begins with {needed}: give it \
         \"{}M\" at least, or leave memory out for 64M", needed.div_ceil(1 << 20)
    )]
    Memory {
        /// As configured.
        name: String,
        /// Granted.
        limit: usize,
        /// Of the module.
        needed: u64,
    },
    /// It does not fit its world, or the engine cannot compile it.
    #[error("{name}: {reason}")]
    Module {
        /// As configured.
        name: String,
        /// The engine's text.
        reason: String,
    },
    /// It refused, or faulted while it started.
    #[error("{name}: {error}")]
    Start {
        /// As configured.
        name: String,
        /// What happened.
        error: CallError,
    },
}

impl LoadError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, LoadError::Source { error: SourceError::NotFound, .. })
    }
}

/// An entry of the configuration that a start would be stopped by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Dotted; entries of arrays have their number as key.
    pub key: String,
    /// What the start says.
    pub text: String,
    /// There is no such file in the plugin path.
    pub is_missing: bool,
}

/// Where plugins of a kind are listed in the configuration.
fn place(kind: Kind) -> &'static str {
    match kind {
        Kind::Jobtap => "list it in [job-manager] plugins",
        Kind::Scheduler => "set it as [sched] plugin",
        Kind::Validator => "list it in [ingest.validator] plugins",
        Kind::Frobnicator => "list it in [ingest.frobnicator] plugins",
    }
}
