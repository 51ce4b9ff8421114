//! Silence on a link: this broker breaks its own, and reports that of its children.

use std::time::{Duration, Instant};

use flux_protocol::fsd;
use flux_protocol::message::Message;

use super::{News, Overlay, Severity, control, monitored};
use crate::boot::tbon::Torpid;

/// Checks are in step with the instance's heartbeat, but at least and at most this far apart.
const CHECK_MIN: Duration = Duration::from_secs(1);
const CHECK_MAX: Duration = Duration::from_secs(5);
/// More often is never needed: nobody takes a silence of a moment for a fault.
const CHECK_LIMIT: Duration = Duration::from_millis(100);

/// How far apart checks are, at least and at most: a broker that is well speaks before its parent
/// finds it silent for too long, however short that is.
fn pace(torpid_max: Duration) -> (Duration, Duration) {
    if torpid_max.is_zero() {
        return (CHECK_MIN, CHECK_MAX);
    }
    let half = (torpid_max / 2).max(CHECK_LIMIT);
    (CHECK_MIN.min(half), CHECK_MAX.min(half))
}

/// The silence after which a broker says something, at the next check.
fn speaks_after(torpid: Torpid) -> Duration {
    match torpid.max.is_zero() {
        true => torpid.min,
        false => torpid.min.min(torpid.max / 4),
    }
}

impl Overlay {
    /// Runs as long as the overlay.
    pub(super) async fn watch_silence(&self) {
        let mut last = Instant::now();
        loop {
            let (least, most) = pace(self.torpid.get().max);
            tokio::time::sleep(least).await;
            let _ = tokio::time::timeout(most - least, self.pulse.notified()).await;
            self.break_silence();
            // When this broker itself was stopped, it is its own silence that it sees.
            if last.elapsed() < 2 * CHECK_MAX {
                self.check_torpid_children();
            }
            last = Instant::now();
        }
    }

    fn break_silence(&self) {
        let min = speaks_after(self.torpid.get());
        let silent =
            self.parent.borrow().as_ref().is_some_and(|parent| parent.last_sent.elapsed() > min);
        if silent && self.is_joined() {
            // A parent that can't be told is lost, which is noticed elsewhere.
            let _ = self.send_up(&Message::control(control::HEARTBEAT, 0));
        }
    }

    pub(super) fn check_torpid_children(&self) {
        let max = self.torpid.get().max;
        let mut changed = Vec::new();
        for child in self.children.borrow_mut().iter_mut() {
            let silence = child.last_seen.elapsed();
            let torpid = !max.is_zero() && silence >= max;
            if child.status.is_online() && child.torpid != torpid {
                child.torpid = torpid;
                changed.push((monitored(child), silence));
            }
        }
        for (child, silence) in changed {
            self.log_torpid(child.rank, child.torpid, silence);
            self.tell(&News::Child(child));
        }
    }

    fn log_torpid(&self, rank: u32, torpid: bool, silence: Duration) {
        let host = self.host(rank);
        let what = match torpid {
            true => {
                let silence = fsd::format(silence.as_secs_f64()).unwrap_or_default();
                format!("has been unresponsive for {silence}")
            }
            false => "is responsive now".to_owned(),
        };
        self.log(Severity::Err, &format!("broker on {host} (rank {rank}) {what}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_well_is_not_silent_for_as_long_as_its_parent_bears() {
        for millis in [200, 500, 2_000, 7_000, 30_000, 600_000] {
            let max = Duration::from_millis(millis);
            let (least, most) = pace(max);
            let silence = speaks_after(Torpid { min: Duration::from_secs(5), max }) + most;
            assert!(least <= most && silence < max, "{max:?}: {least:?}, {most:?}, {silence:?}");
        }
        assert_eq!(pace(Duration::ZERO), pace(Duration::from_secs(30)));
        let patient = Torpid { min: Duration::from_secs(5), max: Duration::ZERO };
        assert_eq!(speaks_after(patient), patient.min);
    }
}
