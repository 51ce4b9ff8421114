//! Signals as strsignal(3) describes them, and wait(2) statuses.

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

/// What a signal means, in words.
pub(crate) fn describe(signal: i32) -> String {
    let text = match signal {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        5 => "Trace/breakpoint trap",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        10 => "User defined signal 1",
        11 => "Segmentation fault",
        12 => "User defined signal 2",
        13 => "Broken pipe",
        14 => "Alarm clock",
        15 => "Terminated",
        16 => "Stack fault",
        17 => "Child exited",
        18 => "Continued",
        19 => "Stopped (signal)",
        20 => "Stopped",
        21 => "Stopped (tty input)",
        22 => "Stopped (tty output)",
        23 => "Urgent I/O condition",
        24 => "CPU time limit exceeded",
        25 => "File size limit exceeded",
        26 => "Virtual timer expired",
        27 => "Profiling timer expired",
        28 => "Window changed",
        29 => "I/O possible",
        30 => "Power failure",
        31 => "Bad system call",
        other => return format!("Unknown signal {other}"),
    };
    text.to_owned()
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
