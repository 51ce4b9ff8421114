//! The states of a broker and how events lead from one to the next; no I/O, no clock.
//!
//! ```text
//! none -> join -> init -> quorum -> run -> cleanup -> shutdown -> finalize -> goodbye -> exit
//!           |       |        |       |                 ^
//!           +-------+--------+-------+-----------------+   (on failure)
//! ```
//!
//! join: wait for the parent. init: rc1 brings the services up. quorum: wait until enough brokers
//! are there. run: rank 0 runs rc2, the initial program. cleanup: rank 0 ends the jobs. shutdown:
//! wait for the children to leave. finalize: rc3 takes the services down. goodbye: tell the
//! parent.

/// Where a broker is in its life. The numbers are those of `state-machine.monitor`, which has
/// more states than are told apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum State {
    None = 0,
    Join = 1,
    Init = 3,
    Quorum = 4,
    Run = 5,
    Cleanup = 6,
    Shutdown = 7,
    Finalize = 8,
    Goodbye = 9,
    Exit = 11,
}

/// What makes a broker change its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    Start,
    ParentReady,
    ParentNone,
    ParentFail,
    Rc1Success,
    /// There is no rc1: `broker.rc1_path` is empty.
    Rc1None,
    Rc1IgnoreFail,
    Rc1Fail,
    QuorumFull,
    QuorumFail,
    Rc2Success,
    Rc2Fail,
    Rc2None,
    /// The owner, a signal, or the parent wants an ordered stop.
    Shutdown,
    /// A service that nothing works without has failed.
    Panic,
    CleanupSuccess,
    CleanupNone,
    CleanupFail,
    ChildrenComplete,
    ChildrenNone,
    ChildrenTimeout,
    Rc3Success,
    Rc3None,
    Rc3Fail,
    Goodbye,
}

impl State {
    pub const ALL: [State; 10] = [
        State::None,
        State::Join,
        State::Init,
        State::Quorum,
        State::Run,
        State::Cleanup,
        State::Shutdown,
        State::Finalize,
        State::Goodbye,
        State::Exit,
    ];

    pub fn name(self) -> &'static str {
        match self {
            State::None => "none",
            State::Join => "join",
            State::Init => "init",
            State::Quorum => "quorum",
            State::Run => "run",
            State::Cleanup => "cleanup",
            State::Shutdown => "shutdown",
            State::Finalize => "finalize",
            State::Goodbye => "goodbye",
            State::Exit => "exit",
        }
    }

    pub fn number(self) -> u32 {
        self as u32
    }

    /// Where `event` leads; nothing when it has no meaning in this state.
    pub fn next(self, event: Event) -> Option<State> {
        use Event as E;
        use State as S;
        Some(match (self, event) {
            (S::None, E::Start) => S::Join,
            (S::Join, E::ParentReady | E::ParentNone) => S::Init,
            (S::Join, E::ParentFail | E::Shutdown) => S::Shutdown,
            (S::Init, E::Rc1Success | E::Rc1None | E::Rc1IgnoreFail) => S::Quorum,
            (S::Init, E::Rc1Fail | E::Panic | E::Shutdown | E::ParentFail) => S::Shutdown,
            (S::Quorum, E::QuorumFull) => S::Run,
            (S::Quorum, E::QuorumFail | E::Panic | E::Shutdown | E::ParentFail) => S::Shutdown,
            (S::Run, E::Rc2None) => S::Run,
            (S::Run, E::Rc2Success | E::Rc2Fail | E::Shutdown | E::ParentFail) => S::Cleanup,
            (S::Run, E::Panic) => S::Shutdown,
            (S::Cleanup, E::CleanupSuccess | E::CleanupNone | E::CleanupFail) => S::Shutdown,
            (S::Shutdown, E::ChildrenComplete | E::ChildrenNone | E::ChildrenTimeout) => {
                S::Finalize
            }
            (S::Finalize, E::Rc3Success | E::Rc3None | E::Rc3Fail) => S::Goodbye,
            (S::Goodbye, E::Goodbye) => S::Exit,
            _ => return None,
        })
    }
}

impl Event {
    pub const ALL: [Event; 25] = [
        Event::Start,
        Event::ParentReady,
        Event::ParentNone,
        Event::ParentFail,
        Event::Rc1Success,
        Event::Rc1None,
        Event::Rc1IgnoreFail,
        Event::Rc1Fail,
        Event::QuorumFull,
        Event::QuorumFail,
        Event::Rc2Success,
        Event::Rc2Fail,
        Event::Rc2None,
        Event::Shutdown,
        Event::Panic,
        Event::CleanupSuccess,
        Event::CleanupNone,
        Event::CleanupFail,
        Event::ChildrenComplete,
        Event::ChildrenNone,
        Event::ChildrenTimeout,
        Event::Rc3Success,
        Event::Rc3None,
        Event::Rc3Fail,
        Event::Goodbye,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Event::Start => "start",
            Event::ParentReady => "parent-ready",
            Event::ParentNone => "parent-none",
            Event::ParentFail => "parent-fail",
            Event::Rc1Success => "rc1-success",
            Event::Rc1None => "rc1-none",
            Event::Rc1IgnoreFail => "rc1-ignorefail",
            Event::Rc1Fail => "rc1-fail",
            Event::QuorumFull => "quorum-full",
            Event::QuorumFail => "quorum-fail",
            Event::Rc2Success => "rc2-success",
            Event::Rc2Fail => "rc2-fail",
            Event::Rc2None => "rc2-none",
            Event::Shutdown => "shutdown",
            Event::Panic => "panic",
            Event::CleanupSuccess => "cleanup-success",
            Event::CleanupNone => "cleanup-none",
            Event::CleanupFail => "cleanup-fail",
            Event::ChildrenComplete => "children-complete",
            Event::ChildrenNone => "children-none",
            Event::ChildrenTimeout => "children-timeout",
            Event::Rc3Success => "rc3-success",
            Event::Rc3None => "rc3-none",
            Event::Rc3Fail => "rc3-fail",
            Event::Goodbye => "goodbye",
        }
    }

    /// The event with this name, as `state-machine.post` sends it.
    pub fn from_name(name: &str) -> Option<Event> {
        Event::ALL.into_iter().find(|event| event.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ordinary_life_of_rank_0_ends_in_exit() {
        let events = [
            Event::Start,
            Event::ParentNone,
            Event::Rc1Success,
            Event::QuorumFull,
            Event::Rc2Success,
            Event::CleanupSuccess,
            Event::ChildrenNone,
            Event::Rc3Success,
            Event::Goodbye,
        ];
        let end = events.iter().fold(State::None, |state, event| state.next(*event).unwrap());
        assert_eq!(end, State::Exit);
    }

    #[test]
    fn no_event_leads_back() {
        for state in State::ALL {
            for event in Event::ALL {
                if let Some(next) = state.next(event) {
                    assert!(next > state || (state == State::Run && event == Event::Rc2None));
                }
            }
        }
    }

    #[test]
    fn every_state_but_exit_can_be_left() {
        for state in State::ALL {
            let leaves = Event::ALL.iter().any(|event| state.next(*event).is_some());
            assert_eq!(leaves, state != State::Exit, "{}", state.name());
        }
    }

    #[test]
    fn every_event_is_found_by_its_name() {
        for event in Event::ALL {
            assert_eq!(Event::from_name(event.name()), Some(event));
        }
    }
}
