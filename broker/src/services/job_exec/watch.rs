//! What a job's shells are not waited for any longer: that all of them come up, and that the others
//! end after the first.

use std::convert::Infallible;

use flux_protocol::fsd;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;

use super::Context;
use super::kill::seconds;
use super::run::Run;

impl Run {
    /// A node that hangs keeps its shell from the first barrier. The others wait for it as long as
    /// `barrier-timeout` says; then it is drained, and the job ends.
    pub(super) async fn watch_start(&self, context: &Context) -> Infallible {
        self.barrier.begun().await;
        wait(self.barrier_timeout()).await;
        let missing = self.barrier.missing();
        if !missing.is_empty() && !self.has_ended() {
            let reason = format!("job {} start timeout: possible node hang", self.id().f58());
            self.drain(context, &missing, reason).await;
            self.tell_exception("exec", &late_start(&missing, self.shells().count()));
        }
        std::future::pending().await
    }

    /// A shell, or what it is wrapped in, may stay behind when the job is over: the first shell ends
    /// when it has heard of all others. They have as long as `shell-exit-timeout` says.
    pub(super) async fn watch_end(&self) -> Infallible {
        self.shells().leader_exit().await;
        let timeout = self.settings().shell_exit_timeout;
        wait(timeout).await;
        let (ranks, hosts) = self.shells().active();
        // Whatever else ends the job ends them, too.
        if !ranks.is_empty() && !self.has_ended() {
            self.tell_exception("exec", &late_end(&ranks, &hosts, timeout));
        }
        std::future::pending().await
    }
}

/// 0 is for ever.
async fn wait(timeout: f64) {
    match timeout > 0.0 {
        true => tokio::time::sleep(seconds(timeout)).await,
        false => std::future::pending().await,
    }
}

fn late_start(missing: &Idset, all: usize) -> String {
    let (count, ranks) = (missing.count(), ranks(missing));
    format!("start barrier timeout waiting for {count}/{all} nodes ({ranks})")
}

fn late_end(active: &Idset, hosts: &Hostlist, timeout: f64) -> String {
    let (ranks, time) = (ranks(active), fsd::format(timeout).unwrap_or_default());
    format!("job shells still active on {hosts} ({ranks}) {time} after leader shell exit")
}

fn ranks(ranks: &Idset) -> String {
    let plural = if ranks.count() > 1 { "s" } else { "" };
    format!("rank{plural} {ranks}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_is_waited_for_is_named() {
        let ranks: Idset = "1,3-4".parse().unwrap();
        let text = "start barrier timeout waiting for 3/8 nodes (ranks 1,3-4)";
        assert_eq!(late_start(&ranks, 8), text);
        let text = "job shells still active on n2 (rank 2) 30s after leader shell exit";
        let hosts: Hostlist = ["n2"].into_iter().collect();
        assert_eq!(late_end(&Idset::from_range(2, 2), &hosts, 30.0), text);
    }

    #[test]
    fn no_time_is_for_ever() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let none = tokio::time::timeout(Duration::from_millis(1), wait(0.0)).await;
            assert!(none.is_err());
            wait(0.001).await;
        });
    }
}
