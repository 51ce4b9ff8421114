//! The state of a subtree, as its parent sees it.

/// Numbers as they travel in control messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Never seen from a peer of ours.
    Unknown = 0,
    /// Online, and all below it.
    Full = 1,
    /// Online, but some below are offline.
    Partial = 2,
    /// Online, but some below are lost.
    Degraded = 3,
    /// Gone without a word.
    Lost = 4,
    /// Not there yet, or left in good order.
    Offline = 5,
}

impl Status {
    const ALL: [Status; 6] = [
        Status::Unknown,
        Status::Full,
        Status::Partial,
        Status::Degraded,
        Status::Lost,
        Status::Offline,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Status::Unknown => "unknown",
            Status::Full => "full",
            Status::Partial => "partial",
            Status::Degraded => "degraded",
            Status::Lost => "lost",
            Status::Offline => "offline",
        }
    }

    pub fn number(self) -> u32 {
        self as u32
    }

    pub fn from_number(number: u32) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.number() == number)
    }

    pub fn is_online(self) -> bool {
        matches!(self, Status::Full | Status::Partial | Status::Degraded)
    }
}

/// How many children are in which status, so that a change costs the same with any number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Census {
    full: usize,
    partial: usize,
    degraded: usize,
    lost: usize,
    offline: usize,
}

// === impl Census ===

impl Census {
    pub(super) fn add(&mut self, status: Status) {
        *self.of(status) += 1;
    }

    pub(super) fn change(&mut self, from: Status, to: Status) {
        *self.of(from) -= 1;
        *self.of(to) += 1;
    }

    pub(super) fn online(&self) -> usize {
        self.full + self.partial + self.degraded
    }

    /// The status of a broker with these children.
    pub(super) fn subtree(&self) -> Status {
        if self.degraded + self.lost > 0 {
            Status::Degraded
        } else if self.partial + self.offline > 0 {
            Status::Partial
        } else {
            Status::Full
        }
    }

    fn of(&mut self, status: Status) -> &mut usize {
        match status {
            Status::Full => &mut self.full,
            Status::Partial => &mut self.partial,
            Status::Degraded => &mut self.degraded,
            Status::Lost => &mut self.lost,
            Status::Offline | Status::Unknown => &mut self.offline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtree_is_as_bad_as_its_worst_child() {
        use Status::{Degraded, Full, Lost, Offline, Partial};
        for (children, expected) in [
            (&[][..], Full),
            (&[Full, Full], Full),
            (&[Full, Offline], Partial),
            (&[Partial, Full], Partial),
            (&[Offline, Lost], Degraded),
            (&[Full, Degraded], Degraded),
        ] {
            let mut census = Census::default();
            children.iter().for_each(|status| census.add(*status));
            assert_eq!(census.subtree(), expected, "{children:?}");
        }
        let mut census = Census::default();
        census.add(Offline);
        census.change(Offline, Degraded);
        assert_eq!((census.online(), census.subtree()), (1, Degraded));
        census.change(Degraded, Full);
        assert_eq!(census.subtree(), Full);
    }

    #[test]
    fn numbers_are_those_of_the_wire() {
        for status in Status::ALL {
            assert_eq!(Status::from_number(status.number()), Some(status));
        }
        assert_eq!(Status::from_number(3), Some(Status::Degraded));
        assert_eq!(Status::from_number(6), None);
    }
}
