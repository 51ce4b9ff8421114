//! Signals for the job, and interrupts that are meant for it.

use std::time::{Duration, Instant};

use flux_client::RpcError;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_manager;
use tokio::signal::unix::{SignalKind, signal};

use super::{Heard, Session};
use crate::failure::Failure;

/// Two interrupts within this time mean it.
const INTERRUPTS: Duration = Duration::from_secs(2);
/// Signals that are passed on to the job.
const FORWARDED: [i32; 5] = [
    nix::libc::SIGTERM,
    nix::libc::SIGHUP,
    nix::libc::SIGALRM,
    nix::libc::SIGUSR1,
    nix::libc::SIGUSR2,
];

impl Session<'_> {
    pub(super) fn trap_signals(&self) -> Result<(), Failure> {
        let own = [nix::libc::SIGINT, nix::libc::SIGTSTP];
        for signum in own.into_iter().chain(FORWARDED) {
            let mut arrivals = signal(SignalKind::from_raw(signum)).map_err(Failure::new)?;
            let heard = self.heard.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() {
                    if heard.send(Heard::Signal(signum)).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(())
    }

    /// Interrupted once, one may think again; twice, the job is canceled.
    pub(super) fn signalled(&mut self, signum: i32) -> Result<Option<u8>, Failure> {
        let recently = self.interrupted.is_some_and(|at| at.elapsed() <= INTERRUPTS);
        match signum {
            nix::libc::SIGINT if !recently => {
                self.interrupted = Some(Instant::now());
                crate::errln!("flux-job: one more ctrl-C within 2s to cancel or ctrl-Z to detach");
            }
            nix::libc::SIGINT => {
                let request = job_manager::RaiseRequest {
                    id: self.id,
                    severity: 0,
                    kind: "cancel".to_owned(),
                    note: Some("interrupted by ctrl-C".to_owned()),
                    wait_status: None,
                };
                let answer = self.flux.start::<job_manager::Raise>(Nodeid::ANY, &request)?;
                complain("cancel", answer);
            }
            nix::libc::SIGTSTP if recently => {
                crate::errln!("flux-job: detaching...");
                return Ok(Some(self.exit_code));
            }
            nix::libc::SIGTSTP => {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).map_err(Failure::new)?;
            }
            signum => self.kill(signum)?,
        }
        Ok(None)
    }

    pub(super) fn kill(&self, signum: i32) -> Result<(), Failure> {
        let request = job_manager::KillRequest { id: self.id, signum: i64::from(signum) };
        let answer = self.flux.start::<job_manager::Kill>(Nodeid::ANY, &request)?;
        complain("kill", answer);
        Ok(())
    }
}

fn complain<T: Send + 'static>(what: &'static str, answer: flux_client::Pending<T>)
where
    flux_client::Pending<T>: Future<Output = Result<T, RpcError>>,
{
    tokio::spawn(async move {
        if let Err(error) = answer.await {
            crate::errln!("flux-job: {what}: {error}");
        }
    });
}
