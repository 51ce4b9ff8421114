//! The state of the link to the parent, followed through the reports of its monitor.
//!
//! ```text
//!          Connected            HandshakeSucceeded
//!  idle ------------> handshake -----------------> up
//!   ^ |                   |                         |
//!   | | Retried:          | NotAuthorized: Refused  | Disconnected: Lost
//!   | | Unreachable       | others: HandshakeFailed |
//!   +-+<------------------+<------------------------+
//! ```

use super::monitor::ReportKind;
use super::notice::HandshakeError;

/// One connection attempt after another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Link {
    phase: Phase,
    told: Option<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    Handshake,
    /// This attempt has failed, and how was said.
    Failed,
    Up,
}

/// What is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Refused,
    HandshakeFailed(HandshakeError),
    Unreachable,
    Lost,
}

// === impl Link ===

impl Link {
    /// Follows one report. A change that was the last one told is not told again.
    pub(super) fn observe(&mut self, report: ReportKind) -> Option<Change> {
        let (phase, change) = self.step(report);
        self.phase = phase;
        let change = change?;
        let same = self.told.is_some_and(|told| change.is_like(told));
        self.told = Some(change);
        (!same).then_some(change)
    }

    pub(super) fn was_refused(self) -> bool {
        self.told == Some(Change::Refused)
    }

    fn step(self, report: ReportKind) -> (Phase, Option<Change>) {
        match (report, self.phase) {
            (ReportKind::Connected, _) => (Phase::Handshake, None),
            (ReportKind::HandshakeSucceeded, _) => (Phase::Up, Some(Change::Up)),
            (ReportKind::NotAuthorized, _) => (Phase::Failed, Some(Change::Refused)),
            (ReportKind::ProtocolError(code), Phase::Handshake) => {
                let cause = HandshakeError::Protocol(code);
                (Phase::Failed, Some(Change::HandshakeFailed(cause)))
            }
            (ReportKind::HandshakeCut(errno), Phase::Handshake) => {
                (Phase::Failed, Some(Change::HandshakeFailed(HandshakeError::Cut(errno))))
            }
            (ReportKind::Disconnected, Phase::Up) => (Phase::Failed, Some(Change::Lost)),
            (ReportKind::Retried, Phase::Idle) => (Phase::Idle, Some(Change::Unreachable)),
            (ReportKind::Retried, _) => (Phase::Idle, None),
            (_, phase) => (phase, None),
        }
    }
}

impl Change {
    /// The same, whatever errno it came with.
    fn is_like(self, other: Change) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::errno::Errno;

    fn told(reports: &[ReportKind]) -> Vec<Change> {
        let mut link = Link::default();
        reports.iter().filter_map(|report| link.observe(*report)).collect()
    }

    #[test]
    fn parent_that_comes_up_late_is_unreachable_once_then_up() {
        use ReportKind::{Connected, HandshakeSucceeded, Other, Retried};
        let reports = [Other, Retried, Other, Retried, Retried, Connected, HandshakeSucceeded];
        assert_eq!(told(&reports), [Change::Unreachable, Change::Up]);
    }

    #[test]
    fn parent_that_cuts_the_handshake_is_told_once_and_is_not_unreachable() {
        use ReportKind::{Connected, Disconnected, HandshakeCut, Retried};
        let once = |errno| [Connected, HandshakeCut(errno), Disconnected, Retried];
        let reports = [once(Errno::EPIPE), once(Errno::ECONNRESET)].concat();
        let cause = HandshakeError::Cut(Errno::EPIPE);
        assert_eq!(told(&reports), [Change::HandshakeFailed(cause)]);
    }

    #[test]
    fn refusal_is_told_and_remembered_until_the_link_is_up() {
        use ReportKind::{Connected, Disconnected, HandshakeSucceeded, NotAuthorized};
        let mut link = Link::default();
        link.observe(Connected);
        assert_eq!(link.observe(NotAuthorized), Some(Change::Refused));
        assert_eq!(link.observe(Disconnected), None);
        assert!(link.was_refused());
        link.observe(Connected);
        assert_eq!(link.observe(NotAuthorized), None);
        link.observe(Connected);
        assert_eq!(link.observe(HandshakeSucceeded), Some(Change::Up));
        assert!(!link.was_refused());
    }

    #[test]
    fn link_that_breaks_is_lost_then_unreachable_then_up_again() {
        use ReportKind::{Connected, Disconnected, HandshakeSucceeded, Retried};
        let up = [Connected, HandshakeSucceeded];
        let reports = [&up[..], &[Disconnected, Retried, Retried, Retried], &up].concat();
        let expected = [Change::Up, Change::Lost, Change::Unreachable, Change::Up];
        assert_eq!(told(&reports), expected);
    }
}
