//! What can go wrong inside a plugin, and what then happens to the job.

use std::fmt;
use std::time::Duration;

/// What a plugin did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It ran into a trap: unreachable code, a bad address, a division by zero.
    Trap,
    /// It panicked or aborted, with a message.
    Panic,
    /// It did not return in time.
    Deadline,
    /// It wanted more memory than it may have.
    Memory,
    /// It ran out of stack.
    Stack,
    /// Its answer could not be read: too large, bad text, a wrong length.
    Garbage,
    /// Its answer was readable but not allowed: one too many, resources that are not free.
    Misuse,
}

impl FaultKind {
    fn verb(self) -> &'static str {
        match self {
            FaultKind::Trap => "trapped",
            FaultKind::Panic => "panicked",
            FaultKind::Deadline => "exceeded its deadline",
            FaultKind::Memory => "exceeded its memory limit",
            FaultKind::Stack => "overflowed its stack",
            FaultKind::Garbage => "returned garbage",
            FaultKind::Misuse => "broke the rules",
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the plugin.
    pub plugin: String,
    /// Topic or exported function that was called.
    pub callback: String,
    /// What it did.
    pub kind: FaultKind,
    /// Details: trap code, panic message, limit.
    pub detail: String,
    /// Frames of the plugin, innermost first.
    pub backtrace: Vec<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {} {} in {}", self.plugin, self.kind.verb(), self.callback)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// What becomes of a job whose callback could not be carried out, as the administrator chose
/// (`on-fault`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFault {
    /// The job is refused, or gets a fatal exception.
    Reject,
    /// The job waits until the plugin is back.
    Hold,
    /// The job goes on as if the plugin were not there.
    #[default]
    Skip,
}

impl OnFault {
    /// By its name in the configuration.
    pub fn from_name(name: &str) -> Option<OnFault> {
        match name {
            "reject" => Some(OnFault::Reject),
            "hold" => Some(OnFault::Hold),
            "skip" => Some(OnFault::Skip),
            _ => None,
        }
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            OnFault::Reject => "reject",
            OnFault::Hold => "hold",
            OnFault::Skip => "skip",
        }
    }
}

/// Why a call had no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// This call faulted.
    #[error("{0}")]
    Fault(Box<Fault>),
    /// An earlier fault; the plugin is started again after `retry`.
    #[error("plugin {plugin} is restarting after a fault")]
    Down {
        /// Name of the plugin.
        plugin: String,
        /// From now.
        retry: Duration,
    },
    /// It faulted too often, and stays down until it is re-armed.
    #[error("plugin {plugin} is quarantined after {faults} faults")]
    Quarantined {
        /// Name of the plugin.
        plugin: String,
        /// Since it was loaded or re-armed.
        faults: u64,
    },
    /// It was removed.
    #[error("plugin {0} is gone")]
    Gone(String),
    /// It refused to start again.
    #[error("plugin {plugin} refused to start: {reason}")]
    Init {
        /// Name of the plugin.
        plugin: String,
        /// Its own text.
        reason: String,
    },
}

impl CallError {
    /// When it is worth trying again; none if only an administrator can help.
    pub fn retry(&self) -> Option<Duration> {
        match self {
            CallError::Fault(_) => Some(Duration::ZERO),
            CallError::Down { retry, .. } => Some(*retry),
            CallError::Quarantined { .. } | CallError::Gone(_) | CallError::Init { .. } => None,
        }
    }
}
