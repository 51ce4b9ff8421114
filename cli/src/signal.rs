//! wait(2) statuses, and signals in words.

pub(crate) use flux_protocol::signal::describe;

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(u8),
    Killed(i32),
}

impl Ended {
    /// From a wait(2) status as Linux encodes it.
    pub(crate) fn from_status(status: i32) -> Ended {
        match status & 0x7f {
            0 => Ended::Exited(u8::try_from(status >> 8 & 0xff).unwrap_or(u8::MAX)),
            signal => Ended::Killed(signal),
        }
    }

    /// As shells report it: 128 and the signal number, or the exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Ended::Exited(code) => code,
            Ended::Killed(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_tell_exits_from_signals() {
        assert_eq!(Ended::from_status(0x300), Ended::Exited(3));
        assert_eq!(Ended::from_status(9), Ended::Killed(9));
        assert_eq!(Ended::from_status(0x8b), Ended::Killed(11));
        assert_eq!((Ended::Exited(3).code(), Ended::Killed(9).code()), (3, 137));
    }
}
