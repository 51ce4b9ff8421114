//! States and results of jobs (RFC 21): bits, names, signs.

/// A state, of which a job has one at a time; values are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    New = 1,
    Depend = 2,
    Priority = 4,
    Sched = 8,
    Run = 16,
    Cleanup = 32,
    Inactive = 64,
}

/// How an inactive job has ended; values are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobResult {
    Completed = 1,
    Failed = 2,
    Canceled = 4,
    Timeout = 8,
}

pub(crate) const PENDING: u32 = 2 | 4 | 8;
pub(crate) const RUNNING: u32 = 16 | 32;
pub(crate) const ACTIVE: u32 = PENDING | RUNNING;
pub(crate) const INACTIVE: u32 = 64;

const STATES: [State; 7] = [
    State::New,
    State::Depend,
    State::Priority,
    State::Sched,
    State::Run,
    State::Cleanup,
    State::Inactive,
];

const RESULTS: [JobResult; 4] =
    [JobResult::Completed, JobResult::Failed, JobResult::Canceled, JobResult::Timeout];

/// Bits of the states that a name stands for: a state, `pending`, `running` or `active`.
pub(crate) fn state_mask(name: &str) -> Option<u32> {
    match name.to_lowercase().as_str() {
        "pending" => Some(PENDING),
        "running" => Some(RUNNING),
        "active" => Some(ACTIVE),
        name => STATES
            .iter()
            .find(|state| {
                state.name().eq_ignore_ascii_case(name) || state.letter().eq_ignore_ascii_case(name)
            })
            .map(|state| state.bit()),
    }
}

/// The bit of the result that a name stands for.
pub(super) fn result_mask(name: &str) -> Option<u32> {
    let result = RESULTS.iter().find(|result| result.name().eq_ignore_ascii_case(name))?;
    Some(result.bit())
}

// === impl State ===

impl State {
    pub(crate) fn from_bit(bit: u64) -> Option<State> {
        STATES.iter().copied().find(|state| u64::from(state.bit()) == bit)
    }

    pub(crate) fn bit(self) -> u32 {
        self as u32
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            State::New => "NEW",
            State::Depend => "DEPEND",
            State::Priority => "PRIORITY",
            State::Sched => "SCHED",
            State::Run => "RUN",
            State::Cleanup => "CLEANUP",
            State::Inactive => "INACTIVE",
        }
    }

    pub(crate) fn letter(self) -> &'static str {
        self.name().get(..1).unwrap_or_default()
    }

    pub(super) fn emoji(self) -> &'static str {
        match self {
            State::New => "\u{1f381}",
            State::Depend => "\u{1f6d1}",
            State::Priority => "\u{1f6a6}",
            State::Sched => "\u{1f4c5}",
            State::Run => "\u{1f3c3}",
            State::Cleanup => "\u{1f5d1}",
            State::Inactive => "\u{1f480}",
        }
    }
}

// === impl JobResult ===

impl JobResult {
    pub(crate) fn from_bit(bit: u64) -> Option<JobResult> {
        RESULTS.iter().copied().find(|result| u64::from(result.bit()) == bit)
    }

    fn bit(self) -> u32 {
        self as u32
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            JobResult::Completed => "COMPLETED",
            JobResult::Failed => "FAILED",
            JobResult::Canceled => "CANCELED",
            JobResult::Timeout => "TIMEOUT",
        }
    }

    pub(super) fn abbreviation(self) -> &'static str {
        match self {
            JobResult::Completed => "CD",
            JobResult::Failed => "F",
            JobResult::Canceled => "CA",
            JobResult::Timeout => "TO",
        }
    }

    pub(super) fn emoji(self) -> &'static str {
        match self {
            JobResult::Completed => "\u{1f600}",
            JobResult::Failed => "\u{1f4a9}",
            JobResult::Canceled => "\u{1f4a5}",
            JobResult::Timeout => "\u{231b}",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_states_are_masks() {
        assert_eq!(state_mask("sched"), Some(8));
        assert_eq!(state_mask("R"), Some(16));
        assert_eq!(state_mask("Pending"), Some(14));
        assert_eq!(state_mask("active"), Some(62));
        assert_eq!(state_mask("nope"), None);
        assert_eq!(result_mask("timeout"), Some(8));
    }
}
