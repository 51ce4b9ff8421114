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
    #[error("{name}: a {found} plugin, but a {wanted} plugin is wanted here")]
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
