//! Silence on a link: this broker breaks its own, and reports that of its children.

use std::time::{Duration, Instant};

use flux_protocol::fsd;
use flux_protocol::message::Message;

use super::{News, Overlay, Severity, control, monitored};

/// Checks are in step with the instance's heartbeat, but at least and at most this far apart.
const CHECK_MIN: Duration = Duration::from_secs(1);
const CHECK_MAX: Duration = Duration::from_secs(5);

impl Overlay {
    /// Runs as long as the overlay.
    pub(super) async fn watch_silence(&self) {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(CHECK_MIN).await;
            let _ = tokio::time::timeout(CHECK_MAX - CHECK_MIN, self.pulse.notified()).await;
            self.break_silence();
            // When this broker itself was stopped, it is its own silence that it sees.
            if last.elapsed() < 2 * CHECK_MAX {
                self.check_torpid_children();
            }
            last = Instant::now();
        }
    }

    fn break_silence(&self) {
        let silent = self
            .parent
            .borrow()
            .as_ref()
            .is_some_and(|parent| parent.last_sent.elapsed() > self.torpid.get().min);
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
